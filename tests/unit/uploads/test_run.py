import errno
import json
import lzma
import os
import re
import signal

import pytest
from samples.uploads import JOB, RAW

from clouduploader.errors import (
    CannotCreateError,
    ConfigError,
    ImageError,
    LocalIOError,
    StoppedError,
    TargetDataError,
    TransientError,
    UnknownTargetError,
)
from clouduploader.plugin import (
    CloudObject,
    PhaseStarted,
    Plan,
    Shortfall,
    UploadResult,
)
from clouduploader.store import job_log, journal
from clouduploader.uploads import run as uploads_run
from clouduploader.util.arrival import FD_VARIABLE, ArrivalWriter
from clouduploader.util.cancel import Cancel

IMAGE = CloudObject("image", "ami-1", "here")


def test_result_is_the_platforms_and_the_log_tells_the_story(run, platform, lines):
    assert run(job=JOB).id == "ami-1"
    shown = list(lines)
    assert shown[0] == "Start uploading image from-the-job.raw.xz."
    assert re.fullmatch(r"Upload took: \d\d:\d\d:\d\d", shown[-1])


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


@pytest.fixture
def arriving(tmp_path):
    """An image that has come, but is not known to be right: its path, the writer's side, and the environment."""
    path, data = tmp_path / "42.file", lzma.compress(RAW)
    path.write_bytes(data)
    with ArrivalWriter() as arrival:
        arrival.have(len(data))
        yield path, arrival, {FD_VARIABLE: str(arrival.descriptor)}


def test_upload_begins_while_the_image_comes_if_the_platform_can_do_with_that(run, platform, arriving, monkeypatch):
    path, arrival, environment = arriving
    monkeypatch.setattr(platform, "needs_whole_file", False, raising=False)

    def work(request, _reporter, _cancel):
        arrival.finish(path.stat().st_mtime_ns)
        request.await_file()
        return UploadResult("ami-1")

    platform.work = work
    assert run(environment=environment).id == "ami-1"


def test_upload_by_another_platform_waits_until_all_of_the_image_is_there(run, platform, arriving):
    _path, arrival, environment = arriving
    arrival.fail()
    with pytest.raises(TransientError, match="did not come"):
        run(environment=environment)
    assert platform.request is None
