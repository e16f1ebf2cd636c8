"""The contract suite: what every platform must do."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, DataError, ImageError, StoppedError
from clouduploader.model.disk import Image
from clouduploader.plugin.capabilities import Accounts, Verification
from clouduploader.plugin.context import Context, UploadContext
from clouduploader.plugin.events import BytesMoved, Event, ObjectCreated, PhaseStarted
from clouduploader.plugin.fields import Field, FieldKind, JsonValue, is_allowed, json_schema
from clouduploader.plugin.objects import CleanUpReport, CloudObject, FoundObject
from clouduploader.plugin.platform import Platform, PlatformContext
from clouduploader.plugin.request import UploadRequest
from clouduploader.plugin.results import Cost, Finding, Level, UploadResult
from clouduploader.plugin.testing.fakes import (
    FakeClock,
    LostUploadError,
    MemoryJournal,
    RecordingReporter,
    make_request,
    opened_stream,
    upload,
)
from clouduploader.util.cancel import Cancel

ACCOUNT_METHODS = [name for name, member in vars(Accounts).items() if callable(member) and name[0] != "_"]
METHODS = [name for name, member in vars(Platform).items() if callable(member) and name[0] != "_"]
NAME_MAX_BYTES = 255  # of Linux
SLOW_MODULES = (
    *("azure.core", "boto3", "botocore", "google.auth", "openstack"),
    *("asyncssh", "cryptography", "gnupg", "paramiko", "requests", "rich", "urllib3"),
)
ONE_LINE = re.compile(r"[^\x00-\x1f\x7f]+")

# the fixture is only read, so that all examples may share it; subclasses share the test itself
shared_case = hypothesis.settings(
    deadline=None,
    max_examples=min(50, hypothesis.settings().max_examples),
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.differing_executors,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.filter_too_much,  # of a pattern few texts are as long as a secret is
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A platform, and what the suite needs to try it.

    Attributes:
        reference: `module:attribute` of the entry point.
        platform_context: What the platform is made from.
        targetdata: Right for this platform.
        image: One that it takes; its file must be there.
        remaining: Names of all that is in the cloud now. Only for UploadContract.
        sabotage: Makes every later upload fail, after it began. Only for UploadContract.
    """

    reference: str
    platform_context: PlatformContext
    targetdata: Mapping[str, JsonValue]
    image: Image
    remaining: Callable[[], Collection[str]] = tuple
    sabotage: Callable[[], None] | None = None

    def make(self) -> Platform:
        """Make the platform, a new one each time."""
        module, _, attribute = self.reference.partition(":")
        platform: Platform = getattr(importlib.import_module(module), attribute)(self.platform_context)
        return platform

    def accounts(self) -> Accounts:
        """Give what the platform does with its users' accounts."""
        found = self.make().accounts
        assert found
        return found

    def request(self, work_dir: Path) -> UploadRequest:
        """Make a request for the image."""
        return make_request(self.image, self.targetdata, work_dir)

    def context(self, platform: Platform, *, with_data: bool = True) -> Context:
        """Make a context for what is no upload."""
        data = self.targetdata if with_data else {}
        return Context(platform, data, RecordingReporter(), Cancel(), clock=FakeClock())


@functools.cache  # a pattern takes longer to prepare than values that match it take to draw
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
            return st.lists(items, max_size=5).filter(lambda chosen: is_allowed(field, chosen))
    if field.allowed:
        return st.sampled_from(field.allowed)
    least = field.least_length or 0
    texts = st.from_regex(field.pattern, fullmatch=True) if field.pattern else st.text(min_size=least)
    return texts.filter(lambda text: text and is_allowed(field, text))


class PlatformContract:
    """What holds without any cloud. Needs the fixture `case`."""

    def test_signatures_take_what_is_passed(self, case: Case) -> None:
        platform = case.make()
        for name in METHODS:
            wanted = [p for p in inspect.signature(getattr(Platform, name)).parameters if p != "self"]
            found = inspect.signature(getattr(platform, name))
            found.bind(*wanted)
            assert list(found.parameters)[: len(wanted)] == wanted, name

    def test_making_it_is_cheap_and_touches_nothing(self, case: Case) -> None:
        words = [case.reference, str(case.platform_context.home), dict(case.platform_context.settings), sys.path]
        done = subprocess.run(
            [sys.executable, "-c", MAKER], input=json.dumps(words), capture_output=True, text=True, check=True
        )
        report = json.loads(done.stdout)
        assert report["touched"] == []
        assert not set(SLOW_MODULES).intersection(report["modules"])

    def test_fields_are_complete_and_have_a_schema(self, case: Case) -> None:
        platform = case.make()
        names = [field.name for field in platform.fields]
        assert len(names) == len(set(names))
        options = [field.option_name() for field in platform.fields if field.option_name()]
        assert len(options) == len(set(options))
        assert [option for option in options if not re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*", option)] == []
        for field in platform.fields:
            assert field.description.endswith("."), field.name
            assert field.kind in (FieldKind.STRING, FieldKind.ARRAY) or not (field.allowed or field.pattern), field.name
            if field.pattern:
                assert field.pattern_meaning, field.name
        schema = json_schema(platform.fields)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(dict(case.targetdata))

    def test_targetdata_are_taken(self, case: Case) -> None:
        platform = case.make()
        fields = {field.name: field for field in platform.fields}
        assert all(is_allowed(fields[name], value) for name, value in case.targetdata.items())
        assert all(case.targetdata.get(name) for name, field in fields.items() if field.is_required)
        assert platform.problems(case.targetdata) == []

    @shared_case
    @hypothesis.given(data=st.data())
    def test_problems_are_lines_and_never_raise(self, case: Case, data: st.DataObject) -> None:
        platform = case.make()
        chosen = data.draw(st.fixed_dictionaries({}, optional={f.name: values(f) for f in platform.fields}))
        problems = platform.problems(chosen)
        assert isinstance(problems, list)
        assert all(ONE_LINE.fullmatch(problem) for problem in problems)

    @shared_case
    @hypothesis.given(name=st.text(min_size=1, max_size=60).filter(lambda name: name.isprintable()))
    def test_link_name_is_a_safe_base_name_or_refused(self, case: Case, name: str) -> None:
        hypothesis.assume("/" not in name and name[0] not in ".-")
        image = dataclasses.replace(case.image, filename=name)
        with contextlib.suppress(ImageError):
            self._check_link_name(case, image)

    def test_link_name_of_the_case_is_safe(self, case: Case) -> None:
        self._check_link_name(case, case.image)

    @staticmethod
    def _check_link_name(case: Case, image: Image) -> None:
        link_name = case.make().link_name(image)
        assert ONE_LINE.fullmatch(link_name)
        assert "/" not in link_name
        assert link_name[0] not in ".-"
        assert len(link_name.encode()) <= NAME_MAX_BYTES
        assert case.make().link_name(image) == link_name

    def test_description_is_a_sentence(self, case: Case) -> None:
        assert re.fullmatch(r"[A-Z][^\x00-\x1f\x7f]+\.", case.make().description)

    def test_files_are_below_the_home_and_explained(self, case: Case) -> None:
        for file in case.make().files:
            assert not Path(file.path).is_absolute()
            assert ".." not in Path(file.path).parts
            assert re.fullmatch(r"[A-Z][^\x00-\x1f\x7f]+\.", file.description), file.path

    def test_fields_of_accounts_are_texts_and_there_where_accounts_are(self, case: Case) -> None:
        platform = case.make()
        fields = [field for field in platform.fields if field.is_of_account]
        assert {field.kind for field in fields} <= {FieldKind.STRING}
        assert bool(fields) == (platform.accounts is not None)


class AccountsContract:
    """What `accounts` owes. Needs the fixture `case`; works on the cloud that it leads to."""

    def test_signatures_take_what_is_passed(self, case: Case) -> None:
        for name in ACCOUNT_METHODS:
            wanted = inspect.signature(getattr(Accounts, name)).parameters.values()
            found = inspect.signature(getattr(case.accounts(), name)).parameters
            assert [(p.name, p.kind) for p in wanted if p.name != "self"] == [(p.name, p.kind) for p in found.values()]

    def test_new_values_are_new_and_fit_their_fields(self, case: Case) -> None:
        fields = {field.name: field for field in case.make().fields if field.is_of_account}
        made = [case.accounts().new_values() for _ in range(100)]
        for name in made[0]:
            assert len({values[name] for values in made}) == 100
            assert not fields[name].is_secret
            assert is_allowed(fields[name], made[0][name])

    def test_what_it_offers_is_explained(self, case: Case) -> None:
        kept = case.accounts()
        assert re.fullmatch(r"[A-Z][^\x00-\x1f\x7f]+\.", kept.description)
        for name, meaning in (*kept.extras.items(), *kept.scripts.items()):
            assert re.fullmatch(r"[a-z]+", name)
            assert ONE_LINE.fullmatch(meaning)
        assert not {"text", "json"}.intersection(kept.scripts)  # forms that `account show` has for all

    def test_guide_is_whole_and_can_be_written_as_json(self, case: Case) -> None:
        kept, record = case.accounts(), RecordingReporter()
        guide = kept.guide(self._values(case), extras=(), reporter=record)
        assert guide.facts
        assert all(re.fullmatch(r"[a-z_]+", name) and ONE_LINE.fullmatch(fact) for name, fact in guide.facts.items())
        assert guide.scripts.keys() == kept.scripts.keys()
        assert all(script.strip() for script in guide.scripts.values())
        assert json.loads(json.dumps(guide.policies)) == guide.policies

    def test_each_extra_asks_for_more(self, case: Case) -> None:
        kept, record = case.accounts(), RecordingReporter()
        without = kept.guide(self._values(case), extras=(), reporter=record)
        for extra in kept.extras:
            assert kept.guide(self._values(case), extras=(extra,), reporter=record).policies != without.policies

    def test_verify_of_an_account_with_nothing_in_it_is_refused(self, case: Case) -> None:
        with pytest.raises(DataError):
            case.accounts().verify({}, reporter=RecordingReporter())

    def test_verify_tells_what_it_found(self, case: Case) -> None:
        found = case.accounts().verify(self._values(case), reporter=RecordingReporter())
        assert isinstance(found, Verification)
        assert all(isinstance(finding, Finding) and ONE_LINE.fullmatch(finding.message) for finding in found.findings)
        is_fine = all(finding.level is not Level.FAILURE for finding in found.findings)
        assert is_fine == (found.is_usable and not found.is_open)

    @staticmethod
    def _values(case: Case) -> dict[str, str]:
        fields = [field.name for field in case.make().fields if field.is_of_account]
        return {name: str(case.targetdata[name]) for name in fields if name in case.targetdata}


class UploadContract:
    """What an upload owes. Needs the fixture `case`; works on the cloud that it leads to."""

    def test_upload_gives_a_line_and_its_objects(self, case: Case, tmp_path: Path) -> None:
        request = case.request(self._work_dir(tmp_path))
        record = RecordingReporter(journal=request.journal)
        before = set(case.remaining())
        result = upload(case.make(), request, record)
        assert isinstance(result, UploadResult)
        assert ONE_LINE.fullmatch(result.id)
        assert record.existing == set(result.objects)
        assert any(isinstance(event, PhaseStarted) for event in record.events)
        assert set(case.remaining()) != before
        self._check_secrets(case, "\n".join(record.lines))

    def test_what_an_upload_asks_for_is_in_the_journal_before_it_is_made(self, case: Case, tmp_path: Path) -> None:
        request = case.request(self._work_dir(tmp_path))
        upload(case.make(), request, RecordingReporter(journal=request.journal))
        asked = {entry["kind"] for entry in request.journal.entries() if entry["what"] == "asked"}
        seen = set()
        for entry in request.journal.entries():
            if entry["what"] == "asked":
                seen.add(entry["kind"])
            elif entry["what"] == "made" and entry["kind"] in asked:
                assert entry["kind"] in seen

    def test_upload_tells_bytes_that_only_grow(self, case: Case, tmp_path: Path) -> None:
        record = RecordingReporter()
        upload(case.make(), case.request(self._work_dir(tmp_path)), record)
        done = 0
        for event in record.events:
            if isinstance(event, PhaseStarted):
                done = 0
            elif isinstance(event, BytesMoved):
                assert done <= event.done_bytes <= (event.total_bytes or event.done_bytes)
                done = event.done_bytes

    def test_stream_whose_length_nothing_tells_is_sent_or_refused(self, case: Case, tmp_path: Path) -> None:
        request = dataclasses.replace(
            case.request(self._work_dir(tmp_path)),
            open_stream=lambda _encoding, digest: opened_stream(case.image.path, digest, is_size_known=False),
        )
        record = RecordingReporter(journal=request.journal)
        objects: tuple[CloudObject, ...] = ()
        with contextlib.suppress(ImageError):
            objects = upload(case.make(), request, record).objects
        assert record.existing == set(objects)

    def test_upload_stopped_before_it_began_leaves_nothing(self, case: Case, tmp_path: Path) -> None:
        cancel = Cancel()
        cancel.request(signal.SIGTERM)
        self._check_stopped(case, tmp_path, RecordingReporter(), cancel)

    @pytest.mark.parametrize("kind", [PhaseStarted, ObjectCreated, BytesMoved])
    def test_upload_stopped_while_it_runs_leaves_nothing(self, case: Case, tmp_path: Path, kind: type[Event]) -> None:
        cancel = Cancel()

        def request_stop(event: Event) -> None:
            if isinstance(event, kind):
                cancel.request(signal.SIGTERM)

        self._check_stopped(case, tmp_path, RecordingReporter(request_stop), cancel)
        assert cancel.is_requested

    def test_upload_that_fails_leaves_nothing(self, case: Case, tmp_path: Path) -> None:
        assert case.sabotage
        case.sabotage()
        before, record = set(case.remaining()), RecordingReporter()
        with pytest.raises(ClouduploaderError) as caught:
            upload(case.make(), case.request(self._work_dir(tmp_path)), record)
        assert not isinstance(caught.value, StoppedError)
        assert ONE_LINE.fullmatch(caught.value.message)
        assert record.existing == set()
        assert set(case.remaining()) == before
        self._check_secrets(case, f"{record.lines}{caught.value!r}{caught.value.__cause__!r}")

    def test_upload_that_another_host_has_by_now_removes_nothing(self, case: Case, tmp_path: Path) -> None:
        request = case.request(self._work_dir(tmp_path))
        journal = MemoryJournal(tmp_path / "journal")
        left: set[str] = set()

        def lose(event: Event) -> None:
            if isinstance(event, ObjectCreated) and not journal.is_lost:
                left.update(case.remaining())
                journal.is_lost = True

        record = RecordingReporter(lose, journal)
        with contextlib.suppress(LostUploadError):
            upload(case.make(), dataclasses.replace(request, journal=journal), record)
        assert left <= set(case.remaining())
        platform = case.make()
        unrecorded = {it.object for it in platform.find(case.context(platform), None) if not it.keep_reason}
        platform.clean_up(case.context(platform), list(record.existing | unrecorded))

    def test_plan_changes_nothing(self, case: Case, tmp_path: Path) -> None:
        before, record = set(case.remaining()), RecordingReporter()
        platform = case.make()
        request = case.request(self._work_dir(tmp_path))
        steps = list(platform.plan(UploadContext(platform, request, record, Cancel(), clock=FakeClock())))
        assert steps
        assert all(isinstance(step, Cost) or ONE_LINE.fullmatch(step) for step in steps)
        assert set(case.remaining()) == before
        assert record.existing == set()

    def test_clean_up_of_nothing_does_nothing(self, case: Case) -> None:
        before, platform = set(case.remaining()), case.make()
        assert platform.clean_up(case.context(platform), []) == CleanUpReport()
        assert set(case.remaining()) == before

    def test_clean_up_answers_for_each_object(self, case: Case) -> None:
        strange, platform = CloudObject("strange thing", "no-such-thing"), case.make()
        report = platform.clean_up(case.context(platform), [strange])
        assert [*report.removed, *report.absent, *(left.object for left in report.left)] == [strange]

    def test_find_gives_nothing_that_no_upload_made(self, case: Case) -> None:
        platform = case.make()
        assert list(platform.find(case.context(platform), "f" * 32)) == []

    def test_find_changes_nothing_and_keeps_what_an_upload_gave(self, case: Case, tmp_path: Path) -> None:
        platform = case.make()
        upload(platform, case.request(self._work_dir(tmp_path)))
        before = set(case.remaining())
        for found in platform.find(case.context(platform), None):
            assert isinstance(found, FoundObject)
            assert found.keep_reason, found
            assert ONE_LINE.fullmatch(found.keep_reason)
        assert set(case.remaining()) == before

    def test_find_needs_nothing_that_is_neither_required_nor_the_account_s(self, case: Case) -> None:
        platform = case.make()
        names = {"region", *(field.name for field in platform.fields if field.is_of_account or field.is_required)}
        data = {name: value for name, value in case.targetdata.items() if name in names}
        ctx = Context(platform, data, RecordingReporter(), Cancel(), clock=FakeClock())
        assert all(isinstance(found, FoundObject) for found in platform.find(ctx, None))

    def test_check_gives_findings(self, case: Case) -> None:
        platform = case.make()
        findings = list(platform.check(case.context(platform)))
        assert findings
        assert all(isinstance(finding, Finding) and ONE_LINE.fullmatch(finding.message) for finding in findings)

    @staticmethod
    def _work_dir(tmp_path: Path) -> Path:
        path = tmp_path / "work"
        path.mkdir(mode=0o700)
        return path

    def _check_stopped(self, case: Case, tmp_path: Path, record: RecordingReporter, cancel: Cancel) -> None:
        before = set(case.remaining())
        with pytest.raises(StoppedError) as caught:
            upload(case.make(), case.request(self._work_dir(tmp_path)), record, cancel)
        assert caught.value.exit_code == 128 + signal.SIGTERM
        assert record.existing == set()
        assert set(case.remaining()) == before

    @staticmethod
    def _check_secrets(case: Case, text: str) -> None:
        names = [field.name for field in case.make().fields if field.is_secret]
        assert not [name for name in names if str(case.targetdata.get(name) or "\0") in text]
