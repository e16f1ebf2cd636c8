import concurrent.futures
import errno
import fcntl
import json
import math
import os
import signal
import stat
import subprocess
import sys
import threading

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.journals import BEGINNING, IMAGE, KEY, SNAPSHOT, end, read, whats

from clouduploader.errors import CannotCreateError, LocalIOError, LockedError
from clouduploader.plugin import (
    CloudObject,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Shortfall,
    UploadResult,
    visibility,
)
from clouduploader.store import journal
from clouduploader.store.journal import writer

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def test_entries_are_on_the_disk_when_write_returns(state_dir, attempt):
    with attempt() as opened:
        opened.write("asked", kind="snapshot", region="eu-west-1", token="t", more={"x": [1]})
        found = read(state_dir)
    assert found.entries[-1]["more"] == {"x": [1]}
    assert visibility.time_of(found.entries[-1]).tzinfo
    began = found.state.began
    assert (began["user"], began["job"], began["image"], began["by_hand"]) == ("caf\udce9", "42", "/srv/42.file", False)


def test_files_are_private(state_dir, attempt):
    os.umask(old := os.umask(0))
    os.umask(0)
    try:
        with attempt(b"sesame") as opened:
            assert opened.directory.is_dir()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state_dir.rglob("*")}
    finally:
        os.umask(old)
    assert modes == {KEY: 0o700, "journal": 0o600, "targetdata": 0o600, "platform": 0o700}
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


def test_upload_lives_as_long_as_its_journal_is_open(state_dir, attempt):
    with attempt():
        assert read(state_dir).is_live
    assert not read(state_dir).is_live
    assert read(state_dir).state.is_open


def test_success_leaves_the_small_journal_only(state_dir, attempt):
    with attempt(b"sesame") as opened:
        opened.take(ObjectCreated(SNAPSHOT))
        opened.take(ObjectCreated(IMAGE))
        (opened.directory / "ledger").write_bytes(b"x")
        opened.end(
            journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1", (IMAGE, SNAPSHOT), (Shortfall("us-east-1", "no"),))
        )
    found = read(state_dir)
    assert [path.name for path in (state_dir / KEY).iterdir()] == ["journal"]
    assert found.targetdata() is None
    assert not found.state.is_open
    assert found.state.objects == {}
    assert found.state.delivered == {IMAGE, SNAPSHOT}
    assert found.state.end["shortfalls"] == [{"subject": "us-east-1", "reason": "no"}]


def test_failure_that_left_nothing_is_closed(state_dir, attempt):
    with attempt(b"sesame") as opened:
        opened.write("asked", kind="snapshot", region="eu-west-1")
        opened.take(ObjectCreated(SNAPSHOT))
        opened.write("asked", kind="image", region="eu-west-1")
        opened.write("refused", kind="image", region="eu-west-1")
        opened.take(PhaseStarted("clean up"))
        opened.take(ObjectRemoved(SNAPSHOT))
        opened.end(journal.AttemptOutcome.FAILED)
    assert not read(state_dir).state.is_open
    assert [path.name for path in (state_dir / KEY).iterdir()] == ["journal"]
    with attempt() as opened:
        assert whats(opened.entries()) == ["begin"]


def test_failure_that_left_something_is_open_until_it_is_cleaned(state_dir, attempt):
    with attempt(b"sesame") as opened:
        opened.take(ObjectCreated(SNAPSHOT))
        opened.end(journal.AttemptOutcome.FAILED)
    found = read(state_dir)
    assert found.state.is_open
    assert list(found.state.objects) == [SNAPSHOT]
    assert found.targetdata() == b"sesame"
    with journal.open_journal(state_dir, KEY) as opened:
        opened.end(journal.AttemptOutcome.CLEANED)
    assert not read(state_dir).state.is_open
    assert read(state_dir).targetdata() is None


@pytest.mark.parametrize(
    ("outcome", "is_kept"), [(journal.AttemptOutcome.SUCCEEDED, False), (journal.AttemptOutcome.FAILED, True)]
)
def test_target_data_of_an_upload_by_hand_are_kept_only_while_it_has_not_succeeded(
    state_dir, attempt, outcome, is_kept
):
    with attempt(b"sesame", is_by_hand=True) as opened:
        opened.take(ObjectCreated(SNAPSHOT))
        opened.end(outcome)
        assert read(state_dir).targetdata() == b"sesame"
        opened.end(journal.AttemptOutcome.CLEANED)
    assert (read(state_dir).targetdata() is not None) == is_kept


def test_what_was_asked_for_and_never_answered_may_be_left(state_dir, attempt):
    with attempt() as opened:
        opened.write("asked", kind="snapshot", region="eu-west-1", token="1")
        opened.write("asked", kind="snapshot", region="eu-west-1", token="2")
        opened.write("asked", kind="snapshot", region="us-east-1", token="3")
        opened.take(ObjectCreated(SNAPSHOT))
        opened.take(ObjectRemoved(SNAPSHOT))
        opened.end(journal.AttemptOutcome.FAILED)
    assert [entry["token"] for entry in read(state_dir).state.asked] == ["2", "3"]
    assert read(state_dir).state.is_open


def test_request_that_is_repeated_with_its_token_makes_one_thing(state_dir, attempt):
    with attempt() as opened:
        opened.write("asked", kind="image", region="eu-west-1", token="t", number=1)
        opened.write("asked", kind="image", region="us-east-1", token="t", number=2)
        opened.write("asked", kind="image", region="eu-west-1", token="t", number=3)
        assert [entry["number"] for entry in opened.state().asked] == [2, 3]
        opened.take(ObjectCreated(IMAGE))
        assert [entry["number"] for entry in opened.state().asked] == [2]


def test_success_does_not_forget_what_was_asked_for_and_never_answered(state_dir, attempt):
    with attempt() as opened:
        opened.write("asked", kind="snapshot", region="eu-west-1", number=1)
        opened.write("asked", kind="snapshot", region="eu-west-1", number=2)
        opened.write("asked", kind="image", region="eu-west-1", number=3)
    with attempt() as opened:
        opened.take(ObjectCreated(SNAPSHOT))
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1", (IMAGE, SNAPSHOT)))  # the image was found
    found = read(state_dir)
    assert [entry["number"] for entry in found.state.asked] == [2]
    assert found.state.is_open
    assert found.targetdata() == b"{}"


def test_next_try_knows_what_dead_ones_wrote(attempt):
    with attempt() as opened:
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-0"))
    with attempt() as opened:
        opened.write("mine", number=1)
    with attempt() as opened:
        opened.write("mine", number=2)
        assert whats(opened.entries()) == ["begin", "mine", "begin", "mine"]
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1"))
    with attempt() as opened:
        assert whats(opened.entries()) == ["begin"]


def test_next_try_knows_of_a_success_that_falls_short(attempt):
    with attempt() as opened:
        opened.take(ObjectCreated(IMAGE))
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1", (IMAGE,), (Shortfall("us-east-1", "no"),)))
    with attempt() as opened:
        assert whats(opened.entries()) == ["begin", "made", "end", "begin"]
        assert opened.state().objects == {}


def test_second_upload_is_refused_while_the_first_lives(state_dir, attempt, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.1)
    with attempt(), pytest.raises(LockedError, match=r"the job 42 \(journal 0123"), attempt():
        pass
    with attempt():
        pass


CHILD = """
import os, sys, time
from pathlib import Path
from clouduploader.store import journal
from clouduploader.plugin import CloudObject, ObjectCreated
beginning = journal.UploadStart(job="7", user="tom", target="ec2", filename="a.raw", image_path=Path("/x"),
                              is_by_hand=True, work_dir=Path("/y"))
with journal.open_journal(Path(sys.argv[1]), sys.argv[2]) as opened:
    opened.begin(beginning, b"{}")
    opened.take(ObjectCreated(CloudObject("snapshot", "snap-1", "eu-west-1")))
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(state_dir):
    """Another process with the journal open; returns it."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, state_dir, KEY], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_lock_of_another_process_ends_with_its_life(state_dir, attempt, other_process, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.1)
    assert read(state_dir).is_live
    with pytest.raises(LockedError, match="the job 7"), attempt():
        pass
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    found = read(state_dir)
    assert not found.is_live
    assert found.state.is_open
    assert list(found.state.objects) == [SNAPSHOT]
    with attempt() as opened:
        assert whats(opened.entries()) == ["begin", "made", "begin"]


def test_crash_at_any_byte_leaves_what_the_next_try_understands(state_dir, attempt):
    with attempt() as opened:
        opened.write("asked", kind="snapshot", region="eu-west-1", token="t")
        opened.take(ObjectCreated(SNAPSHOT))
        opened.take(ObjectCreated(IMAGE))
    path = state_dir / KEY / "journal"
    whole = path.read_bytes()
    entries = read(state_dir).entries
    for size_bytes in range(len(whole) + 1):
        path.write_bytes(whole[:size_bytes])
        count = whole[:size_bytes].count(b"\n")
        assert read(state_dir).entries == entries[:count]
        with journal.open_journal(state_dir, KEY) as opened:
            assert opened.entries() == entries[:count]
            opened.write("mine")
        again = read(state_dir)
        assert again.entries[:-1] == entries[:count]
        assert again.entries[-1]["what"] == "mine"
        assert path.read_bytes().endswith(b"\n")


def test_what_a_success_neither_gave_nor_removed_is_left(state_dir, attempt):
    with attempt(b"secret") as opened:
        for thing in (SNAPSHOT, IMAGE, CloudObject("instance", "i-1", "eu-west-1")):
            opened.take(ObjectCreated(thing))
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1", (IMAGE, SNAPSHOT)))
    found = read(state_dir)
    assert list(found.state.objects) == [CloudObject("instance", "i-1", "eu-west-1")]
    assert found.state.is_open
    assert found.targetdata() == b"secret"  # for the clean-up
    with attempt() as opened:
        opened.take(ObjectRemoved(CloudObject("instance", "i-1", "eu-west-1")))
        opened.end(journal.AttemptOutcome.SUCCEEDED, UploadResult("ami-1", (IMAGE, SNAPSHOT)))
    assert not read(state_dir).state.is_open
    assert read(state_dir).targetdata() is None


entry_like = st.fixed_dictionaries(
    {"what": st.sampled_from(["begin", "asked", "refused", "made", "removed", "end", "other"])},
    optional={
        name: json_values
        for name in ("kind", "id", "region", "time", "outcome", "objects", "shortfalls", "job", "result", "target")
    },
)


@hypothesis.given(st.lists(entry_like | json_values, max_size=8), st.binary(max_size=20))
def test_any_journal_can_be_read_and_gone_on_with(tmp_path_factory, lines, rest):
    state_dir = tmp_path_factory.mktemp("state")
    (state_dir / KEY).mkdir()
    (state_dir / KEY / "journal").write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + rest)
    found = read(state_dir)
    assert isinstance(found.state.is_open, bool)
    assert found.changed is None or found.changed.tzinfo
    with journal.open_journal(state_dir, KEY) as opened:
        opened.begin(BEGINNING, b"{}")
        assert opened.entries()[-1]["what"] == "begin"
        opened.end(journal.AttemptOutcome.CLEANED)
        assert opened.entries() == ()


def test_write_that_fails_leaves_no_torn_line(state_dir, attempt):
    import resource

    with attempt() as opened:
        size_bytes = (state_dir / KEY / "journal").stat().st_size
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 10, old[1]))
        try:
            with pytest.raises(LocalIOError, match="can't be written: File too large"):
                opened.write("made", kind="snapshot")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        assert (state_dir / KEY / "journal").stat().st_size == size_bytes
        opened.write("mine")
        assert whats(opened.entries()) == ["begin", "mine"]
    assert whats(read(state_dir).entries) == ["begin", "mine"]


def test_state_directory_that_cannot_be_made_is_an_error(tmp_path, attempt):
    with pytest.raises(CannotCreateError, match="No such file"), journal.open_journal(tmp_path / "no" / "state", KEY):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreateError), journal.open_journal(tmp_path / "file", KEY):
        pass


def test_many_threads_write_whole_lines(state_dir, attempt):
    with attempt() as opened:
        threads = [threading.Thread(target=lambda: [opened.write("mine") for _ in range(20)]) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert whats(read(state_dir).entries) == ["begin", *["mine"] * 100]


def test_journal_that_was_pruned_begins_anew(state_dir, attempt, tmp_path):
    """An attempt that waits for the lock of a journal that goes makes a new one."""
    end(attempt, KEY, journal.AttemptOutcome.FAILED)
    path = state_dir / KEY / "journal"
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with concurrent.futures.ThreadPoolExecutor(1) as threads:

            def go():
                with attempt() as opened:
                    return whats(opened.entries()), path.exists()

            going = threads.submit(go)
            path.parent.rename(tmp_path / "gone")  # in one step: the thread may not wait yet, and make a file there
            fcntl.flock(held, fcntl.LOCK_UN)
            assert going.result() == (["begin"], True)


def test_end_that_can_not_be_tidied_up_is_no_error(state_dir, attempt, monkeypatch):
    """The image is delivered; a disk that does not let target data be removed changes nothing in that."""
    with attempt(b"{}") as opened:
        monkeypatch.setattr(os, "unlink", fail)
        opened.end(journal.AttemptOutcome.SUCCEEDED)
        monkeypatch.undo()
    assert not read(state_dir).state.is_open
    assert read(state_dir).targetdata() == b"{}"
    assert journal.prune(state_dir, before=math.inf, kept_jobs=set()) == [KEY]


def fail(*_arguments, **_options):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_the_journal_to_the_owner_of_the_spool(tmp_path, attempt, let_all_enter):
    let_all_enter(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    with attempt() as opened:
        paths = [tmp_path / "journal", *(tmp_path / "journal").rglob("*")]
        assert {path.name: path.stat().st_uid for path in paths} == dict.fromkeys((path.name for path in paths), 65534)
        assert opened.directory in paths
