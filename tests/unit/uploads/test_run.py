import dataclasses
import errno
import json
import lzma
import os
import re
import signal
import stat
import sys
import time
import types
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.minimal_disk import as_disk

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ConfigError,
    ImageError,
    LocalIOError,
    LockedError,
    MissingFileError,
    StoppedError,
    TargetDataError,
    TransientError,
    UnknownTargetError,
)
from clouduploader.model.disk import ZeroBlocks
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import (
    CloudObject,
    Field,
    FieldKind,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Plan,
    Platform,
    PlatformContext,
    Shortfall,
    UploadResult,
)
from clouduploader.store import config, job_log, journal
from clouduploader.store.job_log import MASK, JobLog
from clouduploader.uploads import run as uploads_run
from clouduploader.util.cancel import Cancel

RAW = as_disk(b"0123456789abcdef" * 999)
METADATA = "Metadata-Version: 2.1\nName: made-up-platform\nVersion: 1.0\n"
IMAGE = CloudObject("image", "ami-1", "here")
SNAPSHOT = CloudObject("snapshot", "snap-1", "here")
ENTRY_POINTS = "[clouduploader.platforms]\nmade-up = made_up_platform:create\n"


class MadeUpPlatform(Platform):
    """A platform that notes what it is asked for, and does in `upload` what the test wants."""

    fields = (
        Field(name="filename", description="The real name."),
        Field(name="password", description="A secret.", is_secret=True),
    )

    def __init__(self):
        super().__init__(PlatformContext(home=Path("/"), settings={}, environment={}))
        self.request = None
        self.seen = {}
        self.work = lambda request, reporter, cancel: UploadResult("ami-1", (CloudObject("image", "ami-1"),))
        self.plan_work = lambda cancel: None

    def link_name(self, image):
        return f"linked-{image.filename}"

    def plan(self, ctx):
        self.plan_work(ctx.cancel)
        return [f"upload {ctx.request.image.path.name}"]

    def upload(self, ctx):
        request = self.request = ctx.request
        self.seen = {
            "content": request.image.path.read_bytes(),
            "is_link": request.image.path.is_symlink(),
            "mode": stat.S_IMODE(request.work_dir.stat().st_mode),
            "work_dir": sorted(path.name for path in request.work_dir.iterdir()),
        }
        return self.work(request, ctx.reporter, ctx.cancel)

    def remove(self, ctx, thing):
        raise NotImplementedError


@pytest.fixture
def platform(tmp_path_factory, monkeypatch):
    """A platform of an installed package, found by its entry point like a stranger's."""
    site = tmp_path_factory.mktemp("site")
    package = site / "made_up_platform-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(METADATA)
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    made = MadeUpPlatform()
    module = types.ModuleType("made_up_platform")
    module.create = lambda _context: made
    monkeypatch.setitem(sys.modules, "made_up_platform", module)
    monkeypatch.syspath_prepend(site)
    return made


class Lines:
    """A sink of a log, as lines."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data

    def __iter__(self):
        return iter(self.data.decode().splitlines())

    def __contains__(self, line):
        return line in list(self)


@pytest.fixture
def lines():
    """What the job's log holds."""
    return Lines()


@pytest.fixture
def run(tmp_path, lines):
    """A function that runs a task; it makes the image and the rest unless told otherwise."""

    def run_task(
        *, what=uploads_run.run, cancel=None, events_path=None, data=b"{}", image="42.file", content=None, **changes
    ):
        path = tmp_path / image
        if content is not None or not path.exists():
            path.write_bytes(lzma.compress(RAW) if content is None else content)
        fields = {"user": "tom", "target": "made-up", "filename": None, "job": None, "is_by_hand": False} | changes
        task = uploads_run.UploadTask(image_path=path, targetdata=data, **fields)
        settings = config.load(home=tmp_path / "home", spool=tmp_path, environment={})
        keywords = {"events_path": events_path} if what is uploads_run.run else {}
        log = JobLog([lines], is_verbose=True)
        return what(task, config=settings, log=log, cancel=cancel or Cancel(), **keywords)

    return run_task


JOB = Job(name="42", state=JobState.UPLOADING, arch="x86_64", filename="from-the-job.raw.xz")


def test_result_is_the_platforms_and_the_log_tells_the_story(run, platform, lines):
    assert run(job=JOB).id == "ami-1"
    shown = list(lines)
    assert shown[0] == "Start uploading image from-the-job.raw.xz."
    assert re.fullmatch(r"Upload took: \d\d:\d\d:\d\d", shown[-1])


def test_request_tells_the_platform_what_it_needs(run, platform):
    run(job=JOB, user="caf\udce9", is_by_hand=True, data=b'{"password": "open-sesame", "filename": ""}')
    request = platform.request
    assert (request.user, request.job_name, request.arch, request.is_by_hand) == ("caf\udce9", "42", "x86_64", True)
    assert request.targetdata == {"password": "open-sesame"}
    assert request.image.filename == "from-the-job.raw.xz"
    assert platform.seen["mode"] == 0o700
    assert "open-sesame" not in repr(request)


def test_image_can_be_measured_by_the_platform(run, platform):
    platform.work = lambda request, _reporter, _cancel: UploadResult(str(request.measure_image()))
    assert run().id == str(len(RAW))


def test_plan_is_left_at_once_by_a_signal(run, platform):
    cancel = Cancel()
    went_on = []

    def work(cancel):
        cancel.request(signal.SIGTERM)
        went_on.append(True)

    platform.plan_work = work
    with pytest.raises(StoppedError):
        run(what=uploads_run.plan, filename="a.raw.xz", cancel=cancel)
    assert not went_on


def test_measuring_is_stopped_by_a_signal(run, platform):
    cancel = Cancel()

    def work(request, _reporter, cancel):
        cancel.request(signal.SIGTERM)
        request.measure_image()

    platform.work = work
    with pytest.raises(StoppedError):
        run(cancel=cancel)


@pytest.mark.parametrize(
    ("filename", "job_filename", "data", "expected"),
    [
        ("argument.raw", "job.raw", "data.raw", "argument.raw"),
        (None, "job.raw", "data.raw", "job.raw"),
        ("", "job.raw", "data.raw", "job.raw"),
        (None, None, "data.raw", "data.raw"),
        (None, "", "", "42.file"),
        ("../../x/a.raw", None, "", "a.raw"),
    ],
)
def test_real_name_is_the_first_that_somebody_gave(run, platform, filename, job_filename, data, expected):
    job = Job(name="42", state=JobState.UPLOADING, filename=job_filename)
    run(filename=filename, job=job, data=json.dumps({"filename": data}).encode())
    assert platform.request.image.filename == expected


@hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.one_of(st.text(st.characters()), st.text(st.sampled_from("./\\-\n\0 ~"), min_size=1)))
def test_hostile_name_is_linked_as_a_safe_one(run, platform, tmp_path, name):
    before = set(tmp_path.iterdir()) | {tmp_path / "42.file", tmp_path / "journal"}
    run(filename=name)
    found = platform.request.image
    assert found.path.name == f"linked-{found.filename}"
    assert "/" not in found.filename
    assert not found.filename.startswith((".", "-"))
    assert found.filename.isprintable()
    assert found.path.parent == platform.request.work_dir
    assert not found.path.parent.exists()
    assert set(tmp_path.iterdir()) == before


def test_link_is_in_the_private_directory_and_gone_afterwards(run, platform):
    run(filename="a.raw.xz")
    assert platform.seen["is_link"]
    assert lzma.decompress(platform.seen["content"]) == RAW
    assert platform.seen["work_dir"] == [".clouduploader-private", "linked-a.raw.xz"]
    assert not platform.request.work_dir.exists()


def test_link_is_in_the_jobs_own_directory_when_started_there(run, platform, tmp_path, monkeypatch):
    own = tmp_path / "42.dir"
    own.mkdir()
    monkeypatch.chdir(own)
    run(filename="a.raw.xz")
    assert platform.request.image.path == own / "linked-a.raw.xz"
    assert platform.seen["is_link"]
    assert list(own.iterdir()) == []
    assert platform.seen["work_dir"] == [".clouduploader-private"]


def test_link_is_in_the_private_directory_where_the_jobs_own_takes_none(run, platform, tmp_path, monkeypatch):
    own = tmp_path / "42.dir"
    own.mkdir()
    (own / "linked-a.raw.xz").write_text("in the way")
    monkeypatch.chdir(own)
    run(filename="a.raw.xz")
    assert platform.request.image.path.parent == platform.request.work_dir
    assert platform.seen["is_link"]


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, TransientError), (errno.EIO, LocalIOError)])
def test_full_disk_is_worth_another_try(run, platform, number, error):
    def fail(_ctx):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as exc:
            raise LocalIOError("the image can't be written") from exc

    platform.upload = fail
    with pytest.raises(error, match="the image can't be written"):
        run()


def test_link_is_not_in_the_directory_of_another_job(run, platform, tmp_path, monkeypatch):
    for name in ("42.dir", "43.dir"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "43.dir")
    run()
    assert platform.request.image.path.parent == platform.request.work_dir


def test_image_that_is_no_job_is_linked_in_the_private_directory(run, platform, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(image="my.raw.xz")
    assert platform.request.image.path.parent == platform.request.work_dir
    assert platform.request.image.filename == "my.raw.xz"


def test_secret_of_the_target_data_is_masked_from_then_on(run, platform, lines):
    def work(_request, reporter, _cancel):
        reporter.line("the password is open-sesame")
        reporter.event(PhaseStarted("open-sesame"))
        return UploadResult("ami-1")

    platform.work = work
    run(data=b'{"password": "open-sesame"}')
    assert "the password is ********" in lines
    assert b"open-sesame" not in lines.data


def test_unknown_keys_are_named_in_the_verbose_log(run, platform, lines):
    run(data=b'{"user_id": 7, "x": "secret?"}')
    assert "The target data have keys that made-up does not use: user_id, x." in lines
    assert b"secret?" not in lines.data


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"target": "nowhere"}, UnknownTargetError),
        ({"data": b"{"}, TargetDataError),
        ({"data": b'{"filename": 7}'}, TargetDataError),
        ({"content": b""}, ImageError),
    ],
)
def test_nothing_is_uploaded_if_something_is_wrong(run, platform, changes, error):
    with pytest.raises(error):
        run(**changes)
    assert platform.request is None


def test_plan_gives_the_steps_and_uploads_nothing(run, platform):
    assert run(what=uploads_run.plan, filename="a.raw.xz") == Plan(("upload linked-a.raw.xz",))
    assert platform.request is None


def journal_in(tmp_path):
    (found,) = journal.read_all(tmp_path / "journal")
    return found


def test_log_says_what_an_earlier_upload_had_made(run, platform, lines):
    platform.work = lambda _request, _reporter, _cancel: UploadResult("ami-1", (IMAGE,), is_already_there=True)
    run()
    assert job_log.read(lines).found == (IMAGE,)


def test_upload_is_written_down_and_the_log_names_the_journal(run, platform, lines, tmp_path):
    seen = []

    def work(request, reporter, _cancel):
        request.journal.write("asked", kind="image", region="here")
        reporter.event(ObjectCreated(IMAGE))
        reporter.event(ObjectCreated(SNAPSHOT))
        reporter.event(ObjectRemoved(SNAPSHOT))
        seen.append((journal_in(tmp_path), journal_in(tmp_path).targetdata()))
        return UploadResult("ami-1", (IMAGE,))

    platform.work = work
    run(job=JOB, user="caf\udce9", is_by_hand=True)
    ((during, data),) = seen
    assert during.is_live
    assert list(during.state.objects) == [IMAGE]
    assert during.state.asked == ()
    assert data == b"{}"
    began = during.state.began
    assert (began["job"], began["user"], began["target"], began["filename"], began["image"], began["by_hand"]) == (
        "42", "caf\udce9", "made-up", "from-the-job.raw.xz", str(tmp_path / "42.file"), True,
    )  # fmt: skip
    assert began["work_dir"] == str(platform.request.work_dir)
    found = journal_in(tmp_path)
    assert f"Journal: {found.key}" in lines
    assert not found.is_live
    assert not found.state.is_open
    assert (found.state.end["outcome"], found.state.end["result"]) == ("succeeded", "ami-1")
    assert found.state.delivered == {IMAGE}


@pytest.mark.parametrize("secret", ["a", "1234567"])
def test_secret_that_would_mask_other_words_is_refused(run, platform, lines, secret):
    with pytest.raises(TargetDataError, match="a secret of less than 8 characters") as caught:
        run(data=json.dumps({"password": secret}).encode())
    assert caught.value.hint == "Take a longer one, or do not encrypt it."
    assert platform.request is None
    assert MASK.encode() not in lines.data


def test_next_try_of_the_same_upload_has_the_same_journal(run, platform):
    keys = []
    platform.work = lambda request, _reporter, _cancel: (keys.append(request.journal.key), UploadResult("ami-1"))[1]
    run(job=JOB)
    run(job=dataclasses.replace(JOB, name="43"), data=b'{"user_id": 7, "password": "open-sesame", "filename": null}')
    run(job=JOB, user="other")
    run(job=JOB, data=b'{"filename": "a.raw"}')
    run(job=JOB, filename="a.raw")
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("error", "outcome"), [(ImageError("x"), "failed"), (StoppedError(15), "stopped"), (KeyError("x"), "failed")]
)
def test_end_of_a_failure_is_written_down(run, platform, tmp_path, error, outcome):
    def work(_request, reporter, _cancel):
        reporter.event(ObjectCreated(SNAPSHOT))
        raise error

    platform.work = work
    with pytest.raises(type(error)):
        run()
    found = journal_in(tmp_path)
    assert found.state.end["outcome"] == outcome
    assert list(found.state.objects) == [SNAPSHOT]
    assert found.state.is_open


def test_same_upload_is_refused_while_it_runs(run, platform, monkeypatch):
    monkeypatch.setattr(journal, "LOCK_SECONDS", 0.1)

    def work(_request, _reporter, _cancel):
        with pytest.raises(LockedError, match="the job 42"):
            run(job=dataclasses.replace(JOB, name="43"))
        return UploadResult("ami-1")

    platform.work = work
    assert run(job=JOB).id == "ami-1"


def test_upload_goes_on_without_a_state_directory(run, platform, lines, tmp_path):
    (tmp_path / "journal").touch()
    seen = []

    def work(request, _reporter, _cancel):
        request.journal.write("mine")
        seen.extend(request.journal.entries())
        (request.journal.directory / "ledger").touch()
        seen.append(request.journal.directory)
        return UploadResult("ami-1")

    platform.work = work
    run()
    assert [entry["what"] for entry in seen[:-1]] == ["begin", "mine"]
    assert not seen[-1].exists()
    assert any(line.endswith("if this upload is killed, it can't be resumed.") for line in lines)
    assert not any(line.startswith("Journal: ") for line in lines)


def test_job_of_another_spool_has_its_journal_there(run, platform, tmp_path):
    (tmp_path / "other").mkdir()
    run(job=JOB, image="other/42.file")
    assert len(list(journal.read_all(tmp_path / "other" / "journal"))) == 1
    assert not (tmp_path / "journal").exists()


def test_nothing_is_written_down_of_an_upload_that_cannot_begin(run, platform, tmp_path):
    for data in (b"{", b'{"filename": 7}', b"\xff"):
        with pytest.raises(TargetDataError):
            run(data=data)
    run(what=uploads_run.plan)
    assert not (tmp_path / "journal").exists()


def test_provenance_is_that_of_the_job(run, platform):
    run(job=dataclasses.replace(JOB, project="P", package="a:b", repository=None))
    assert platform.request.provenance == {"project": "P", "package": "a:b", "arch": "x86_64"}
    run()
    assert platform.request.provenance == {}


def test_image_can_be_looked_into_by_the_platform(run, platform):
    platform.work = lambda request, _reporter, _cancel: UploadResult(str(request.inspect_image().size_bytes))
    assert run().id == str(len(RAW))


PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


@pytest.mark.parametrize("what", [uploads_run.run, uploads_run.plan])
@pytest.mark.parametrize("pack", [bytes, lzma.compress])
@pytest.mark.parametrize(
    ("content", "words"),
    [(PAGE, "looks like a web page"), (bytes(1 << 20), "nothing but zeros"), (as_disk(b"x" * 999)[:-1], "1023")],
)
def test_image_that_is_no_disk_is_refused(run, platform, what, pack, content, words):
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    platform.plan = lambda ctx: [str(ctx.request.measure_image())]
    with pytest.raises(ImageError, match=rf"42\.file is not the image of a disk: .*{words}"):
        run(what=what, content=pack(content))


@pytest.mark.parametrize("pack", [bytes, lzma.compress])
@pytest.mark.parametrize("content", [PAGE, as_disk(b"x" * 999)[:-1]])
def test_force_uploads_what_is_no_disk(run, platform, lines, pack, content):
    platform.fields = (*platform.fields, Field(name="force", description="Go on.", kind=FieldKind.BOOLEAN))
    seen = []
    platform.work = lambda request, _reporter, _cancel: (seen.append(blocks(request)), UploadResult("ami-1"))[1]
    run(content=pack(content), data=b'{"force": true}')
    assert seen[0][0].startswith(content)
    assert seen[0][1].size_bytes == len(content)


def test_platform_that_stores_files_takes_what_may_be_a_disk(run, platform, lines):
    platform.needs_disk = False
    for content in (b"ab\n", bytes(1 << 20), lzma.compress(b"ab\n")[:-5]):
        run(content=content)
    warnings = [line for line in lines if line.startswith("Warning: ")]
    assert [("text" in line, "zeros" in line, "cut off" in line) for line in warnings] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    with pytest.raises(ImageError, match="a web page"):
        run(content=PAGE)


def blocks(request):
    with request.open_blocks(4096, ZeroBlocks.SEND) as source:
        buffer, found = bytearray(4096), b""
        while block := source.next_into(buffer):
            found += bytes(4096) if block.is_zero else bytes(buffer)
        return found, source.tally()


def test_image_can_be_read_as_blocks_by_the_platform(run, platform):
    seen = []
    platform.work = lambda request, _reporter, _cancel: (seen.append(blocks(request)), UploadResult("ami-1"))[1]
    run()
    ((data, tally),) = seen
    assert data == RAW.ljust(len(data), b"\0")
    assert tally.size_bytes == len(RAW)


def test_checksum_beside_the_image_must_be_right(run, platform, tmp_path):
    (tmp_path / "my.raw.xz.sha256").write_text(f"{'0' * 64}  my.raw.xz\n")
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError, match="0000"):
        run(image="my.raw.xz")
    platform.work = lambda request, _reporter, _cancel: (request.measure_image(), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError, match="0000"):
        run(image="my.raw.xz")


def test_platform_that_reads_the_image_itself_learns_that_it_changed(run, platform, tmp_path):
    def upload(request, _reporter, _cancel):
        request.check_unchanged()
        request.check_unchanged("0" * 64)  # nothing was promised
        (tmp_path / "my.raw.xz.sha256").write_text("1" * 64)
        request.check_unchanged("1" * 64)
        with pytest.raises(ImageError, match="its SHA-256 is 0000"):
            request.check_unchanged("0" * 64)
        os.utime(tmp_path / "my.raw.xz", ns=(0, 0))
        request.check_unchanged()

    platform.work = upload
    with pytest.raises(ImageError, match=r"my\.raw\.xz changed while it was read: it was written to, or replaced"):
        run(image="my.raw.xz")


def test_image_may_not_be_larger_than_is_set(run, platform, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "clouduploader.conf").write_text("[clouduploader]\nmax_size = 4K\n")
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError):
        run()


def test_shortfalls_are_in_log_journal_and_events(run, platform, lines, tmp_path):
    platform.work = lambda _request, _reporter, _cancel: UploadResult("ami-1", (), (Shortfall("us-east-1", "on fire"),))
    run(events_path=tmp_path / "events")
    assert "Failed: us-east-1: on fire" in lines
    assert journal_in(tmp_path).state.end["shortfalls"] == [{"subject": "us-east-1", "reason": "on fire"}]
    assert events(tmp_path / "events")[-1]["shortfalls"] == [{"subject": "us-east-1", "reason": "on fire"}]


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_tell_the_whole_upload(run, platform, tmp_path):
    platform.work = lambda _request, reporter, _cancel: (reporter.event(PhaseStarted("upload")), UploadResult("ami-1"))[
        1
    ]
    run(events_path=tmp_path / "events", job=JOB, user="caf\udce9")
    found = events(tmp_path / "events")
    assert [event["event"] for event in found] == ["start", "image", "phase", "end"]
    assert (found[0]["job"], found[0]["user"], found[0]["target"]) == ("42", "caf\\udce9", "made-up")
    assert (found[-1]["outcome"], found[-1]["result"], found[-1]["exit_code"]) == ("succeeded", "ami-1", 0)


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "code"),
    [
        (ConfigError("x is open-sesame", hint="Set x."), "failed", "x is ********. Set x.", 78),
        (StoppedError(15), "stopped", "stopped by SIGTERM.", 143),
        (KeyError("open-sesame"), "failed", "KeyError", 70),
    ],
)
def test_events_end_with_the_reason(run, platform, tmp_path, error, outcome, reason, code):
    def work(_request, _reporter, _cancel):
        raise error

    platform.work = work
    with pytest.raises(type(error)):
        run(events_path=tmp_path / "events", data=b'{"password": "open-sesame"}')
    last = events(tmp_path / "events")[-1]
    assert (last["outcome"], last["reason"].strip(), last["exit_code"]) == (outcome, reason, code)
    assert last["result"] is None


def test_events_that_cannot_be_written_end_the_upload_before_it_begins(run, platform, tmp_path):
    with pytest.raises(CannotCreateError):
        run(events_path=tmp_path / "none" / "events")
    assert platform.request is None


def write_result(path, text, *, cancel=None):
    uploads_run.write_result(path, text, log=JobLog([], is_verbose=False), cancel=cancel or Cancel())


def test_result_is_written_whole_in_one_line(tmp_path):
    path = tmp_path / "42.result"
    path.write_text("old and much longer than the new one")
    write_result(path, "ami-1\nwith \x00 and \udcff\n")
    assert path.read_bytes() == b"ami-1\\nwith \\x00 and \\udcff"
    assert [item.name for item in tmp_path.iterdir()] == ["42.result"]


def test_waiting_for_a_full_disk_ends_with_a_stop(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cancel = Cancel()
    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(time, "sleep", lambda _seconds: cancel.request(signal.SIGTERM))
    with pytest.raises(StoppedError):
        write_result(tmp_path / "42.result", "ami-1", cancel=cancel)
    assert list(tmp_path.iterdir()) == []


@hypothesis.given(st.text(st.characters()))
def test_any_result_is_one_line_of_utf8(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("result") / "42.result"
    write_result(path, text)
    assert not re.search("[\x00-\x1f\x7f]", path.read_bytes().decode())


def test_result_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "42.result").mkdir()
    with pytest.raises(CannotCreateError, match=r"42\.result can't be written: Is a directory"):
        write_result(tmp_path / "42.result", "ami-1")
    assert [item.name for item in tmp_path.iterdir()] == ["42.result"]
    with pytest.raises(CannotCreateError):
        write_result(tmp_path / "none" / "42.result", "ami-1")


@pytest.mark.parametrize(
    ("name", "job"), [("42.file", "42"), ("1.file", "1"), ("a.file", None), ("42.file.x", None), (".42.file7", None)]
)
def test_job_of_an_image_is_told_by_its_name(tmp_path, name, job):
    found = uploads_run.job_of(tmp_path / name)
    assert (found and found[1]) == job
    assert found is None or found[0].directory == tmp_path


def test_target_data_are_read_but_not_without_end(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * (3 << 20))
    assert len(uploads_run.read_targetdata(tmp_path / "data")) == (1 << 20) + 1
    with pytest.raises(MissingFileError, match="there are no target data"):
        uploads_run.read_targetdata(tmp_path / "none")
    with pytest.raises(LocalIOError, match="Is a directory"):
        uploads_run.read_targetdata(tmp_path)


def test_reason_is_one_line_with_what_to_do():
    assert uploads_run.reason(ConfigError("x is\nwrong.", hint="Set y.")) == "x is\\nwrong. Set y."
    assert uploads_run.reason(ConfigError("x")) == "x."


def test_failure_is_told_in_the_log_masked(lines):
    log = JobLog([lines], is_verbose=False)
    log.hide("open-sesame")
    error = ImageError("the image open-sesame is bad", hint="Build it again.")
    assert uploads_run.tell_failure(log, error, error) == "the image ******** is bad. Build it again."
    assert list(lines) == ["Error: the image ******** is bad. Build it again."]


def test_bug_is_told_in_the_log_with_its_traceback(lines):
    log = JobLog([lines], is_verbose=False)
    try:
        raise KeyError("x")
    except KeyError as exc:
        uploads_run.tell_failure(log, exc, ClouduploaderError("this is a bug: KeyError"))
    shown = list(lines)
    assert shown[0].startswith("Traceback")
    assert shown[-2:] == ["KeyError: 'x'", "Error: this is a bug: KeyError."]


def test_task_does_not_show_its_target_data(tmp_path):
    task = uploads_run.UploadTask(
        user="tom", target="x", image_path=tmp_path, targetdata=b"sesame-x", filename=None, job=None, is_by_hand=False
    )
    assert "sesame-x" not in repr(task)
    assert os.fspath(tmp_path) in repr(task)
