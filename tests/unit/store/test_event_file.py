import datetime
import json
import os
import stat
import threading
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import CannotCreateError
from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    ImageFound,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
)
from clouduploader.store import event_file


@pytest.fixture
def make_events(tmp_path):
    """A factory of an event file, and a function that reads what is in it."""

    def make():
        path = tmp_path / "events"
        return event_file.EventFile(path), lambda: [json.loads(line) for line in path.read_text().splitlines()]

    return make


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


THING = CloudObject("snapshot", "snap-1", "eu-west-1")
FIELDS = {"kind": "snapshot", "id": "snap-1", "region": "eu-west-1"}


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            lambda file: file.start(job="42", user="o'brien & sons", target="ec2"),
            {"event": "start", "job": "42", "user": "o'brien & sons", "target": "ec2"},
        ),
        (
            lambda file: file.start(job=None, user="größe", target="ec2"),
            {"event": "start", "job": None, "user": "größe", "target": "ec2"},
        ),
        (
            lambda file: file(ImageFound(Image("/x", "a.raw.xz", Compression.XZ, 7))),
            {"event": "image", "filename": "a.raw.xz", "size_bytes": 7, "packing": "xz"},
        ),
        (lambda file: file(PhaseStarted("upload")), {"event": "phase", "phase": "upload"}),
        (lambda file: file(ObjectCreated(THING)), {"event": "object-created", **FIELDS}),
        (lambda file: file(ObjectRemoved(THING)), {"event": "object-removed", **FIELDS}),
        (
            lambda file: file.end(outcome="succeeded", result="ami-1", reason=None, exit_code=0),
            {
                "event": "end",
                "outcome": "succeeded",
                "result": "ami-1",
                "reason": None,
                "exit_code": 0,
                "shortfalls": [],
            },
        ),
        (
            lambda file: file.end(outcome="failed", result=None, reason="no\nway", exit_code=76),
            {
                "event": "end",
                "outcome": "failed",
                "result": None,
                "reason": "no\nway",
                "exit_code": 76,
                "shortfalls": [],
            },
        ),
    ],
)
def test_event_is_one_json_object_with_its_keys_and_the_time(make_events, write, expected):
    file, read = make_events()
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    write(file)
    file.end(outcome="x", result=None, reason=None, exit_code=0)
    found = read()[0]
    time = found.pop("time")
    assert found == expected
    assert time.endswith("Z")
    assert before <= datetime.datetime.fromisoformat(time) <= datetime.datetime.now(datetime.UTC)


def test_progress_event_has_its_keys_and_the_phase(make_events):
    file, read = make_events()
    file(PhaseStarted("check image"))
    file(BytesMoved(500, 1000))
    file.end(outcome="failed", result=None, reason="x", exit_code=65)
    progress = read()[1]
    assert progress.keys() == {
        "time", "event", "phase", "done_bytes", "total_bytes", "rate_bytes_per_second", "eta_seconds",
    }  # fmt: skip
    assert progress["phase"] == "check image"
    assert (progress["done_bytes"], progress["total_bytes"]) == (500, 1000)
    assert isinstance(progress["rate_bytes_per_second"], int)


def test_progress_without_a_total_has_no_eta(make_events):
    file, read = make_events()
    file(BytesMoved(5, None))
    file.end(outcome="failed", result=None, reason="x", exit_code=65)
    assert (read()[0]["total_bytes"], read()[0]["eta_seconds"]) == (None, None)


def test_progress_is_told_once_a_second_and_at_the_end_of_a_phase(make_events):
    file, read = make_events()
    file(PhaseStarted("upload"))
    for done in range(1, 10_001):
        file(BytesMoved(done, 10_000))
    file.end(outcome="succeeded", result="ami-1", reason=None, exit_code=0)
    told = [event["done_bytes"] for event in read() if event["event"] == "progress"]
    assert told[0] == 1
    assert told[-1] == 10_000
    assert len(told) < 1000


def test_progress_at_the_end_of_a_phase_is_told_once(make_events):
    # a small file that unpacks to a large one is read to its end long before it is done
    file, read = make_events()
    file(PhaseStarted("check image"))
    for _ in range(1000):
        file(BytesMoved(10, 10))
    file(PhaseStarted("upload"))
    file(BytesMoved(10, 10))
    file.end(outcome="succeeded", result="ami-1", reason=None, exit_code=0)
    told = [event["phase"] for event in read() if event["event"] == "progress"]
    assert told.count("check image") < 100
    assert told.count("upload") == 1


def test_pace_is_bytes_a_second_since_it_began():
    clock = Clock()
    pace = event_file.EventRate(clock)
    assert pace.rate(BytesMoved(1000, 4000)) is None  # no time has gone by
    clock.now += 4
    assert pace.rate(BytesMoved(1000, 4000)) == 250
    assert pace.eta_seconds(BytesMoved(1000, 4000)) == 12
    assert pace.eta_seconds(BytesMoved(1000, None)) is None
    assert pace.rate(BytesMoved(0, 4000)) is None
    assert pace.eta_seconds(BytesMoved(0, 4000)) is None
    assert pace.eta_seconds(BytesMoved(5000, 4000)) == 0


@hypothesis.given(st.text(st.characters()), st.text(st.characters()))
def test_lines_are_ascii_and_whole_whatever_the_text(tmp_path_factory, user, reason):
    path = tmp_path_factory.mktemp("events") / "events"
    file = event_file.EventFile(path)
    file.start(job=None, user=user, target="ec2")
    file.end(outcome="failed", result=None, reason=reason, exit_code=1)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    found = [json.loads(line.decode("ascii")) for line in lines]
    assert (found[0]["user"], found[1]["reason"]) == (user, reason)


def test_file_is_appended_to(tmp_path):
    path = tmp_path / "events"
    path.write_text("earlier\n")
    file = event_file.EventFile(path)
    file.end(outcome="failed", result=None, reason="x", exit_code=1)
    assert path.read_text().startswith('earlier\n{"time"')


def test_each_event_is_in_the_file_at_once(make_events):
    file, read = make_events()
    file(PhaseStarted("upload"))
    assert [event["event"] for event in read()] == ["phase"]
    file.end(outcome="failed", result=None, reason="x", exit_code=1)


def test_nothing_is_written_after_the_end(make_events):
    file, read = make_events()
    file.end(outcome="failed", result=None, reason="x", exit_code=1)
    file(PhaseStarted("upload"))
    file.end(outcome="failed", result=None, reason="x", exit_code=1)
    assert [event["event"] for event in read()] == ["end"]


def test_file_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(CannotCreateError, match=r"none/events can't be written: No such file"):
        event_file.EventFile(tmp_path / "none" / "events")


def test_reader_of_a_fifo_gets_events_and_may_go_away(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = event_file.EventFile(path)
    file(PhaseStarted("upload"))
    assert json.loads(os.read(reader, 4096))["phase"] == "upload"
    os.close(reader)
    file(PhaseStarted("snapshot"))
    file(PhaseStarted("register"))
    file.end(outcome="succeeded", result="ami-1", reason=None, exit_code=0)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_descriptor_of_a_caller_can_be_written_to():
    reading, writing = os.pipe()
    file = event_file.EventFile(Path(f"/dev/fd/{writing}"))
    os.close(writing)
    thread = threading.Thread(
        target=lambda: file.end(outcome="failed", result=None, reason="x", exit_code=1), daemon=True
    )
    thread.start()
    data = os.read(reading, 4096)
    thread.join()
    os.close(reading)
    assert json.loads(data)["reason"] == "x"
