"""The contract suite: what every platform must do, ours and a stranger's.

How to use it for a plugin of your own: install clouduploader, pytest, hypothesis and jsonschema,
copy this file next to your tests as `platform_contract.py` (a module called `platform` would hide
Python's own), and write

    import pytest
    from platform_contract import Case, PlatformContract, UploadContract

    @pytest.fixture
    def case(tmp_path):
        image = tmp_path / "42.file"
        image.write_bytes(b"an image")
        return Case(
            reference="my_package.my_platform:create",       # as in your entry point
            context=PlatformContext(home=tmp_path, settings={...}, environment={}),
            targetdata={...},                                # such as your platform takes
            image=Image(image, "my.raw.xz", Packing.XZ, image.stat().st_size),
            remaining=lambda: ...,                           # the names of all that is in the cloud
            sabotage=lambda: ...,                            # from now on an upload must fail
        )

    class TestMyPlatform(PlatformContract):
        pass

    class TestMyUpload(UploadContract):
        pass

`PlatformContract` touches no cloud. `UploadContract` does: let `case` lead to a double of yours. So does
`AccountsContract`, for platforms that have accounts.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, DataError, ImageError, StoppedError, UsageError
from clouduploader.model.disk import Block, BlockSource, DiskFormat, Image, ImageFacts, ReadStats
from clouduploader.plugin import (
    Accounts,
    BytesMoved,
    CleanUpReport,
    CloudObject,
    Field,
    FieldKind,
    Finding,
    FoundObject,
    JsonValue,
    Level,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Plan,
    Platform,
    PlatformContext,
    UploadRequest,
    UploadResult,
    Verification,
)
from clouduploader.store import job_log, target_data
from clouduploader.util.cancel import Cancel

ACCOUNT_METHODS = [name for name, member in vars(Accounts).items() if callable(member) and name[0] != "_"]
METHODS = [name for name, member in vars(Platform).items() if callable(member) and name[0] != "_"]
NAME_MAX_BYTES = 255  # of Linux
SLOW_MODULES = ("asyncssh", "boto3", "botocore", "cryptography", "gnupg", "paramiko", "requests", "rich", "urllib3")
ONE_LINE = re.compile(r"[^\x00-\x1f\x7f]+")

# the fixture is only read, so that all examples may share it; subclasses share the test itself
shared_case = hypothesis.settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.differing_executors,
        hypothesis.HealthCheck.too_slow,
    ],
)

# Run in a Python of its own: makes the platform, and says what that imported and touched.
MAKER = """
import importlib, json, pathlib, sys
from clouduploader.plugin import PlatformContext
reference, home, settings, sys.path[:] = json.load(sys.stdin)
module, _, attribute = reference.partition(":")
create = getattr(importlib.import_module(module), attribute)
WATCHED = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "socket.", "subprocess.", "os.exec", "os.fork")
touched = []
def watch(event, arguments):
    is_import = event == "open" and str(arguments[0]).endswith((".py", ".pyc"))
    if event.startswith(WATCHED) and not is_import:
        touched.append(f"{event} {arguments!r}")
sys.addaudithook(watch)
create(PlatformContext(home=pathlib.Path(home), settings=settings, environment={}))
seen = list(touched)
print(json.dumps({"touched": seen, "modules": sorted(sys.modules)}))
"""


class MemoryJournal:
    """A journal that lasts as long as the object."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.key = "0123456789abcdef0123456789abcdef"
        self.directory = directory
        self._entries: list[Mapping[str, JsonValue]] = []

    def entries(self) -> list[Mapping[str, JsonValue]]:
        """What was written."""
        return list(self._entries)

    def write(self, what: str, **values: JsonValue) -> None:
        """Write it, as JSON would have it."""
        self._entries.append(json.loads(json.dumps({"what": what, **values})))


class _Blocks:
    """The blocks of a file that is not packed, without a thought for holes."""

    can_reread = False

    def __init__(self, data: bytes, block_bytes: int) -> None:
        self._data, self._block_bytes, self._lock, self._next = data, block_bytes, threading.Lock(), 0

    def next_into(self, buffer: bytearray) -> Block | None:
        with self._lock:
            index = self._next
            if index * self._block_bytes >= len(self._data):
                return None
            self._next += 1
        piece = self._data[index * self._block_bytes :][: self._block_bytes]
        buffer[:] = piece.ljust(self._block_bytes, b"\0")
        return Block(index, not piece.strip(b"\0"))

    def reread_into(self, index: int, buffer: bytearray) -> None:
        raise AssertionError("can_reread is false")

    def position(self) -> int:
        return min(self._next * self._block_bytes, len(self._data))

    def tally(self) -> ReadStats:
        blocks = [self._data[at:][: self._block_bytes] for at in range(0, len(self._data), self._block_bytes)]
        zeros = sum(not block.strip(b"\0") for block in blocks)
        return ReadStats(
            size_bytes=len(self._data),
            data_blocks=len(blocks) - zeros,
            zero_blocks=zeros,
            hole_blocks=0,
            skipped_blocks=0,
            file_sha256=hashlib.sha256(self._data).hexdigest(),
            raw_sha256=hashlib.sha256(self._data).hexdigest(),
        )


@contextlib.contextmanager
def opened_blocks(path: Path, block_bytes: int) -> Iterator[BlockSource]:
    """The blocks of a file that is not packed; for `UploadRequest.open_blocks`."""
    yield _Blocks(path.read_bytes(), block_bytes)


def facts_of(image: Image) -> ImageFacts:
    """What can be said of an image that nobody looked into; for `UploadRequest.inspect_image`."""
    return ImageFacts(
        disk_format=DiskFormat.RAW,
        size_bytes=image.size_bytes,
        is_size_exact=True,
        partition_table=None,
        minimum_bytes=0,
        architectures=(),
        boots_uefi=None,
        boots_bios=None,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A platform, and what the suite needs to try it.

    Attributes:
        reference: `module:function` of the entry point.
        context: What the function is called with.
        targetdata: Right for this platform.
        image: One that it takes; its file must be there.
        remaining: Names of all that is in the cloud now. Only for UploadContract.
        sabotage: Makes every later upload fail, after it began. Only for UploadContract.
    """

    reference: str
    context: PlatformContext
    targetdata: Mapping[str, JsonValue]
    image: Image
    remaining: Callable[[], Collection[str]] = tuple
    sabotage: Callable[[], None] | None = None

    def make(self) -> Platform:
        """Make the platform, a new one each time."""
        module, _, attribute = self.reference.partition(":")
        platform: Platform = getattr(importlib.import_module(module), attribute)(self.context)
        return platform

    def request(self, work_dir: Path) -> UploadRequest:
        """A request for the image."""
        return UploadRequest(
            user="o'brien & sons",
            job_name="42",
            arch="x86_64",
            image=self.image,
            targetdata=self.targetdata,
            work_dir=work_dir,
            is_by_hand=False,
            measure_image=lambda **_how: self.image.size_bytes,
            inspect_image=lambda: facts_of(self.image),
            open_blocks=lambda block_bytes, _zero_blocks: opened_blocks(self.image.path, block_bytes),
            check_unchanged=lambda _sha256=None: None,
            journal=MemoryJournal(work_dir / "journal"),
            provenance={"project": "home:tom", "package": "image", "repository": "images", "arch": "x86_64"},
        )


class Record:
    """A real job log, kept in memory, and all events."""

    def __init__(self, on_event=None):
        self.data = bytearray()
        self.events = []
        self.log = job_log.JobLog([self], is_verbose=False)
        self.log.listen(self.events.append)
        if on_event:
            self.log.listen(on_event)

    def write(self, data):
        self.data += data

    @property
    def lines(self):
        return self.data.decode().splitlines(keepends=True)

    @property
    def existing(self):
        """What was created and not removed, by the events."""
        things = {}
        for event in self.events:
            if isinstance(event, ObjectCreated):
                things[event.object] = None
            elif isinstance(event, ObjectRemoved):
                things.pop(event.object, None)
        return set(things)


def values(field: Field) -> st.SearchStrategy[JsonValue]:
    """Values that a field takes."""
    match field.kind:
        case FieldKind.BOOLEAN:
            return st.booleans()
        case FieldKind.INTEGER:
            return st.integers(field.minimum, field.maximum)
        case FieldKind.OBJECT:
            return st.dictionaries(st.text(), st.text())
        case FieldKind.ARRAY:
            items = values(dataclasses.replace(field, kind=FieldKind.STRING))
            return st.lists(items, max_size=5).filter(lambda chosen: target_data.is_allowed(field, chosen))
    if field.allowed:
        return st.sampled_from(field.allowed)
    texts = st.from_regex(field.pattern, fullmatch=True) if field.pattern else st.text()
    return texts.filter(lambda text: text and target_data.is_allowed(field, text))


class _NoKeys:
    """A keyring for data in which nothing is encrypted."""

    @property
    def gpg(self):
        raise AssertionError("nothing is encrypted")

    @property
    def rsa(self):
        return self

    def is_encrypted(self, value):
        return False


class PlatformContract:
    """What holds without any cloud. Needs the fixture `case`."""

    def test_signatures_take_what_is_passed(self, case):
        platform = case.make()
        for name in METHODS:
            wanted = [p for p in inspect.signature(getattr(Platform, name)).parameters if p != "self"]
            found = inspect.signature(getattr(platform, name))
            found.bind(*wanted)
            assert list(found.parameters)[: len(wanted)] == wanted, name

    def test_making_it_is_cheap_and_touches_nothing(self, case):
        words = [case.reference, str(case.context.home), dict(case.context.settings), sys.path]
        done = subprocess.run(
            [sys.executable, "-c", MAKER], input=json.dumps(words), capture_output=True, text=True, check=True
        )
        report = json.loads(done.stdout)
        assert report["touched"] == []
        assert not set(SLOW_MODULES).intersection(report["modules"])

    def test_fields_are_complete_and_have_a_schema(self, case):
        platform = case.make()
        names = [field.name for field in platform.fields]
        assert len(names) == len(set(names))
        for field in platform.fields:
            assert field.description.endswith("."), field.name
            assert field.kind in (FieldKind.STRING, FieldKind.ARRAY) or not (field.allowed or field.pattern), field.name
            if field.pattern:
                assert field.pattern_meaning, field.name
                assert field.pattern.flags == re.UNICODE, f"{field.name}: JSON Schema knows no flags"
        schema = target_data.json_schema(platform)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(dict(case.targetdata))

    def test_targetdata_are_taken(self, case):
        data = json.dumps(case.targetdata).encode()
        assert target_data.read(data, case.make(), _NoKeys()).values == case.targetdata

    @shared_case
    @hypothesis.given(data=st.data())
    def test_problems_are_lines_and_never_raise(self, case, data):
        platform = case.make()
        chosen = data.draw(st.fixed_dictionaries({}, optional={f.name: values(f) for f in platform.fields}))
        problems = platform.problems(chosen)
        assert isinstance(problems, list)
        assert all(ONE_LINE.fullmatch(problem) for problem in problems)

    @shared_case
    @hypothesis.given(name=st.text(min_size=1, max_size=60).filter(lambda name: name.isprintable()))
    def test_link_name_is_a_safe_base_name_or_refused(self, case, name):
        hypothesis.assume("/" not in name and name[0] not in ".-")
        image = dataclasses.replace(case.image, filename=name)
        with contextlib.suppress(ImageError):
            self._check_link_name(case, image)

    def test_link_name_of_the_case_is_safe(self, case):
        self._check_link_name(case, case.image)

    @staticmethod
    def _check_link_name(case, image):
        link_name = case.make().link_name(image)
        assert ONE_LINE.fullmatch(link_name)
        assert "/" not in link_name
        assert link_name[0] not in ".-"
        assert len(link_name.encode()) <= NAME_MAX_BYTES
        assert case.make().link_name(image) == link_name

    def test_fields_of_accounts_are_texts_and_there_where_accounts_are(self, case):
        platform = case.make()
        fields = [field for field in platform.fields if field.is_of_account]
        assert {field.kind for field in fields} <= {FieldKind.STRING}
        assert bool(fields) == (getattr(platform, "accounts", None) is not None)


class AccountsContract:
    """What `accounts` owes. Needs the fixture `case`; works on the cloud that it leads to."""

    def test_signatures_take_what_is_passed(self, case):
        for name in ACCOUNT_METHODS:
            wanted = inspect.signature(getattr(Accounts, name)).parameters.values()
            found = inspect.signature(getattr(case.make().accounts, name)).parameters
            assert [(p.name, p.kind) for p in wanted if p.name != "self"] == [(p.name, p.kind) for p in found.values()]

    def test_new_values_are_new_and_fit_their_fields(self, case):
        fields = {field.name: field for field in case.make().fields if field.is_of_account}
        made = [case.make().accounts.new_values() for _ in range(100)]
        for name in made[0]:
            assert len({values[name] for values in made}) == 100
            assert not fields[name].is_secret
            assert target_data.is_allowed(fields[name], made[0][name])

    def test_guide_is_whole_and_can_be_written_as_json(self, case):
        kept, record = case.make().accounts, Record()
        guide = kept.guide(self._values(case), method=None, extras=(), reporter=record.log)
        assert guide.facts
        assert all(re.fullmatch(r"[a-z_]+", name) and ONE_LINE.fullmatch(fact) for name, fact in guide.facts.items())
        assert all(script.strip() for script in guide.scripts.values())
        assert json.loads(json.dumps(guide.policies)) == guide.policies

    @pytest.mark.parametrize("how", [{"method": "by magic", "extras": ()}, {"method": None, "extras": ("everything",)}])
    def test_guide_refuses_what_it_does_not_know(self, case, how):
        with pytest.raises(UsageError):
            case.make().accounts.guide(self._values(case), reporter=Record().log, **how)

    def test_verify_of_an_account_with_nothing_in_it_is_refused(self, case):
        with pytest.raises(DataError):
            case.make().accounts.verify({}, reporter=Record().log)

    def test_verify_tells_what_it_found(self, case):
        found = case.make().accounts.verify(self._values(case), reporter=Record().log)
        assert isinstance(found, Verification)
        assert all(isinstance(finding, Finding) and ONE_LINE.fullmatch(finding.message) for finding in found.findings)
        is_fine = all(finding.level is Level.OK for finding in found.findings)
        assert is_fine == (found.is_usable and not found.is_open)

    @staticmethod
    def _values(case):
        fields = [field.name for field in case.make().fields if field.is_of_account]
        return {name: case.targetdata[name] for name in fields if name in case.targetdata}


class UploadContract:
    """What an upload owes. Needs the fixture `case`; works on the cloud that it leads to."""

    def test_upload_gives_a_line_and_its_objects(self, case, tmp_path):
        platform, record = case.make(), Record()
        before = set(case.remaining())
        result = platform.upload(case.request(self._work_dir(tmp_path)), record.log, Cancel())
        assert isinstance(result, UploadResult)
        assert ONE_LINE.fullmatch(result.id)
        assert record.existing == set(result.objects)
        assert any(isinstance(event, PhaseStarted) for event in record.events)
        assert set(case.remaining()) != before
        assert set(job_log.read(record.lines).objects) == set(result.objects)
        self._check_secrets(case, record.data.decode())

    def test_upload_tells_bytes_that_only_grow(self, case, tmp_path):
        record = Record()
        case.make().upload(case.request(self._work_dir(tmp_path)), record.log, Cancel())
        done = 0
        for event in record.events:
            if isinstance(event, PhaseStarted):
                done = 0
            elif isinstance(event, BytesMoved):
                assert done <= event.done_bytes <= (event.total_bytes or event.done_bytes)
                done = event.done_bytes

    def test_upload_stopped_before_it_began_leaves_nothing(self, case, tmp_path):
        cancel = Cancel()
        cancel.request(signal.SIGTERM)
        self._check_stopped(case, tmp_path, Record(), cancel)

    @pytest.mark.parametrize("kind", [PhaseStarted, ObjectCreated, BytesMoved])
    def test_upload_stopped_while_it_runs_leaves_nothing(self, case, tmp_path, kind):
        cancel = Cancel()

        def request_stop(event):
            if isinstance(event, kind):
                cancel.request(signal.SIGTERM)

        self._check_stopped(case, tmp_path, Record(request_stop), cancel)
        assert cancel.is_requested

    def test_upload_that_fails_leaves_nothing(self, case, tmp_path):
        case.sabotage()
        before, record = set(case.remaining()), Record()
        with pytest.raises(ClouduploaderError) as caught:
            case.make().upload(case.request(self._work_dir(tmp_path)), record.log, Cancel())
        assert not isinstance(caught.value, StoppedError)
        assert ONE_LINE.fullmatch(caught.value.message)
        assert record.existing == set()
        assert set(case.remaining()) == before
        self._check_secrets(case, f"{record.data.decode()}{caught.value!r}{caught.value.__cause__!r}")

    def test_plan_changes_nothing(self, case, tmp_path):
        before, record = set(case.remaining()), Record()
        plan = case.make().plan(case.request(self._work_dir(tmp_path)), record.log, Cancel())
        assert isinstance(plan, Plan)
        steps = plan.steps
        assert steps
        assert all(ONE_LINE.fullmatch(step) for step in steps)
        assert set(case.remaining()) == before
        assert record.existing == set()

    def test_clean_up_of_nothing_does_nothing(self, case):
        before = set(case.remaining())
        assert case.make().clean_up(case.targetdata, [], Record().log) == CleanUpReport()
        assert set(case.remaining()) == before

    def test_clean_up_answers_for_each_object(self, case):
        strange = CloudObject("strange thing", "no-such-thing")
        report = case.make().clean_up(case.targetdata, [strange], Record().log)
        assert [*report.removed, *(left.object for left in report.left)] == [strange]

    def test_find_gives_nothing_that_nobody_made(self, case):
        assert list(case.make().find(case.targetdata, "f" * 32, Record().log)) == []

    def test_find_changes_nothing_and_keeps_what_an_upload_gave(self, case, tmp_path):
        case.make().upload(case.request(self._work_dir(tmp_path)), Record().log, Cancel())
        before = set(case.remaining())
        for found in case.make().find(case.targetdata, None, Record().log):
            assert isinstance(found, FoundObject)
            assert found.keep_reason, found
            assert ONE_LINE.fullmatch(found.keep_reason)
        assert set(case.remaining()) == before

    def test_check_gives_findings(self, case):
        findings = list(case.make().check(case.targetdata, None))
        assert findings
        assert all(isinstance(finding, Finding) and ONE_LINE.fullmatch(finding.message) for finding in findings)

    @staticmethod
    def _work_dir(tmp_path):
        path = tmp_path / "work"
        path.mkdir(mode=0o700)
        return path

    def _check_stopped(self, case, tmp_path, record, cancel):
        before = set(case.remaining())
        with pytest.raises(StoppedError) as caught:
            case.make().upload(case.request(self._work_dir(tmp_path)), record.log, cancel)
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert record.existing == set()
        assert set(case.remaining()) == before

    @staticmethod
    def _check_secrets(case, text):
        names = [field.name for field in case.make().fields if field.is_secret]
        assert not [name for name in names if str(case.targetdata.get(name) or "\0") in text]
