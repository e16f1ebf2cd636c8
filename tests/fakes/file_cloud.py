"""A platform whose cloud is a directory: `REGION/ID` is a thing, and holds what there is to know of it as JSON.

Files in that directory say what happens: `crash` names the point at which an upload kills itself, `fail` the
point at which it fails without cleaning up, `bug` the one at which it raises what no SDK does, with the password in
it; `wait` is a FIFO that it reads once it has made something; `stubborn`
holds ids that can't be removed, `hidden` those that it denies, `shortfall` what falls short; with `locked-out` nobody
may look.
"""

import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from clouduploader.errors import AbsentError, CredentialsError, DataError, PlatformReplyError
from clouduploader.plugin import (
    AccountGuide,
    Accounts,
    CloudObject,
    Field,
    Finding,
    FoundObject,
    HomeFile,
    Level,
    ObjectCreated,
    ObjectState,
    PhaseStarted,
    Platform,
    Shortfall,
    UploadResult,
    Verification,
)


class FileCloud(Platform):
    description = "Makes files that tell of an image."
    files = (
        HomeFile(path="file-cloud.key", description="Its key.", is_secret=True),
        HomeFile(path="file-cloud.map", description="Where its places are."),
    )
    settings_defaults = MappingProxyType({"path": ""})
    fields = (
        Field(name="region", description="Where.", is_required=True),
        Field(name="password", description="A secret.", is_secret=True, is_of_account=True, max_length=20),
        Field(name="tenant", description="Whose.", is_of_account=True),
    )

    needs_disk = False

    def __init__(self, context):
        super().__init__(context)
        self._path = Path(self.settings["path"])

    @property
    def accounts(self):
        return FileAccounts(self._words)

    def plan(self, ctx):
        return ["do it"]

    def upload(self, ctx):
        request, reporter = ctx.request, ctx.reporter
        self._journal, self._reporter, self._job = request.journal, reporter, request.job_name or ""
        self._password = ctx.targetdata.get("password")
        region = ctx.region
        reporter.event(PhaseStarted("upload"))
        reporter.line(f"provenance {json.dumps(request.provenance, sort_keys=True)}")
        snapshot = self._earlier("snapshot")
        if snapshot:
            reporter.line(f"going on with {snapshot.id}")
        else:
            snapshot = self._make("snapshot", region)
        self._words("wait")
        self._reach("made")
        self._journal.write("sealing", snapshot_id=snapshot.id)
        self._reach("sealing")
        self._change(snapshot, state="complete")
        self._reach("complete")
        image = self._earlier("image") or self._make("image", region, snapshot=snapshot.id)
        self._reach("registered")
        shortfalls = tuple(Shortfall(name, "it is on fire") for name in self._words("shortfall"))
        return UploadResult(image.id, (image, snapshot), shortfalls)

    def _earlier(self, kind):
        made = [entry for entry in self._journal.entries() if entry["what"] == "made" and entry["kind"] == kind]
        things = [CloudObject(kind, entry["id"], entry["region"]) for entry in made]
        return next((thing for thing in things if (self._path / thing.region / thing.id).exists()), None)

    def _make(self, kind, region, **more):
        self._journal.write("asked", kind=kind, region=region)
        self._reach(f"asked {kind}")
        directory = self._path / region
        directory.mkdir(exist_ok=True)
        thing = CloudObject(kind, f"{kind}-{os.urandom(4).hex()}", region)
        created = datetime.now(UTC).isoformat()
        self._change(thing, kind=kind, key=self._journal.key, job=self._job, created=created, **more)
        self._reach(f"unreported {kind}")
        self._reporter.event(ObjectCreated(thing))
        return thing

    def _change(self, thing, **values):
        path = self._path / thing.region / thing.id
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(old | values))

    def _reach(self, point):
        if point in self._words("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if point in self._words("fail"):
            raise PlatformReplyError(f"failed at {point}")
        if point in self._words("bug"):
            raise ValueError(f"bug at {point} with {self._password}", self._password)

    def _words(self, name):
        path = self._path / name
        return path.read_text().splitlines() if path.exists() else []

    def find(self, ctx, key):
        if self._words("locked-out"):
            raise CredentialsError("the role is gone")
        directory = self._path / ctx.region
        things = {path.name: json.loads(path.read_text()) for path in directory.iterdir()} if directory.is_dir() else {}
        used = {value.get("snapshot") for value in things.values()}
        sealed = {entry.get("snapshot_id") for entry in ctx.entries if entry["what"] == "sealing"}
        found = []
        for name, value in sorted(things.items()):
            if key not in (None, value["key"]) or name in self._words("hidden"):
                continue
            is_complete = value.get("state") == "complete" and name not in used
            reason = "an image that can be used" if value["kind"] == "image" else None
            reason = "in use" if name in used else reason
            reason = "complete; `clouduploader resume JOB` goes on with it" if is_complete else reason
            is_completing = name in sealed and "state" not in value
            reason = (
                "it may be being completed; `clouduploader resume JOB` goes on with it" if is_completing else reason
            )
            is_complete |= is_completing
            thing = CloudObject(value["kind"], name, ctx.region)
            created = datetime.fromisoformat(value["created"])
            is_pending = value["kind"] == "snapshot" and "state" not in value
            state = ObjectState.COMPLETE if is_complete else ObjectState.PENDING if is_pending else ObjectState.PARTIAL
            found.append(FoundObject(thing, value["key"], value["job"], created, reason, state))
        return found

    def remove(self, ctx, thing):
        if thing.id in self._words("hidden"):
            raise AbsentError("it does not show")
        if thing.id in self._words("stubborn"):
            raise PlatformReplyError("it is in use")
        (self._path / thing.region / thing.id).unlink(missing_ok=True)


class FileAccounts(Accounts):
    """Who knows the words in the file `password` gets in; with a file `open` everybody does."""

    description = "A password opens a tenant."
    extras = MappingProxyType({"fire": "setting it on fire"})
    scripts = MappingProxyType({"shell": "commands for a shell"})

    def __init__(self, words):
        self._words = words

    def new_values(self):
        return {"tenant": os.urandom(4).hex()}

    def guide(self, values, *, extras, reporter):
        facts = {"tenant": values["tenant"]}
        policies = {"rule": {"a": [1]}, **{name: {"a": [2]} for name in extras}}
        return AccountGuide(facts=facts, policies=policies, scripts={"shell": "do it"})

    def verify(self, values, *, reporter):
        if "password" not in values:
            raise DataError("the account has no password yet")
        reporter.hide(values["password"])
        reporter.detail(f"trying {values['password']}")
        is_usable, is_open = values["password"] in self._words("password"), bool(self._words("open"))
        level = Level.OK if is_usable and not is_open else Level.FAILURE
        return Verification((Finding(level, "account", "tried"),), is_usable=is_usable, is_open=is_open)


create = FileCloud
