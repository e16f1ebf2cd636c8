import datetime
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from samples.journals import KEY, SNAPSHOT, end, read, whats

from clouduploader.errors import CannotCreateError
from clouduploader.plugin import (
    CloudObject,
    ObjectCreated,
)
from clouduploader.store import journal


def test_reader_does_not_keep_an_upload_from_starting(state_dir, attempt):
    with attempt():
        pass
    is_over = threading.Event()

    def look():
        while not is_over.is_set():
            journal.read(state_dir, KEY)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            with attempt():
                pass
    finally:
        is_over.set()
        for reader in readers:
            reader.join()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"null", b"7", b'"begin"', b"{}", b'{"what": 7}', b'{"what": null}', b"\xff\xfe", b"\0" * 9,
        b"[" * 100_000, b'{"what": ' + b"9" * 5000 + b"}", b'{"what": "a", "what": 1}',
    ],
)  # fmt: skip
def test_line_that_is_no_entry_is_passed_over(state_dir, attempt, line):
    with attempt() as opened:
        opened.take(ObjectCreated(SNAPSHOT))
    path = state_dir / KEY / "journal"
    path.write_bytes(path.read_bytes() + line + b'\n{"what": "made", "kind": "image", "id": "ami-1"}\n')
    found = read(state_dir)
    assert whats(found.entries) == ["begin", "made", "made"]
    assert list(found.state.objects) == [SNAPSHOT, CloudObject("image", "ami-1", "")]
    with attempt() as opened:
        assert whats(opened.entries()) == ["begin", "made", "made", "begin"]


def test_all_journals_are_read_and_nothing_else(state_dir, attempt):
    with attempt(), attempt(key="f" * 32):
        pass
    (state_dir / "a-file").touch()
    (state_dir / ("e" * 32)).mkdir()
    (state_dir / ("d" * 32)).touch()
    (state_dir / ("c" * 32)).mkdir()
    (state_dir / ("c" * 32) / "journal").mkdir()
    (state_dir / "x").mkdir()
    (state_dir / "x" / "journal").touch()
    assert [found.key for found in journal.read_all(state_dir)] == [KEY, "f" * 32]
    assert list(journal.read_all(state_dir / "none")) == []


def test_target_data_are_those_of_the_last_try(state_dir, attempt):
    with attempt(b"one"):
        pass
    (state_dir / KEY / ".targetdata").write_bytes(b"torn")  # of a try that was killed here
    with attempt(b"two"):
        pass
    assert read(state_dir).targetdata() == b"two"


def test_age_is_that_of_the_last_entry(state_dir, attempt):
    with attempt():
        pass
    age = datetime.datetime.now(datetime.UTC) - read(state_dir).changed
    assert datetime.timedelta() <= age < datetime.timedelta(minutes=5)


KEYS = {name: f"{number:032x}" for number, name in enumerate(("over", "failed", "owing", "dead", "live", "young"))}


@pytest.fixture
def many(state_dir, attempt):
    """Journals of every kind; the one of `live` is in use."""
    end(attempt, KEYS["over"], journal.AttemptOutcome.SUCCEEDED)
    end(attempt, KEYS["failed"], journal.AttemptOutcome.FAILED)
    end(attempt, KEYS["owing"], journal.AttemptOutcome.FAILED, things=[SNAPSHOT])
    end(attempt, KEYS["dead"], None)
    end(attempt, KEYS["live"], journal.AttemptOutcome.FAILED)
    with attempt(key=KEYS["young"]) as opened:
        opened.end(journal.AttemptOutcome.SUCCEEDED)
    (state_dir / "notes").write_text("mine")
    (state_dir / ("f" * 32)).mkdir()
    with (state_dir / KEYS["live"] / "journal").open() as live:
        fcntl.flock(live, fcntl.LOCK_SH)
        yield state_dir


def test_prune_removes_only_old_journals_that_owe_nothing(many):
    removed = journal.prune(many, before=time.time() - 60, kept_jobs=set())
    assert removed == [KEYS["over"], KEYS["failed"]]
    kept = {KEYS[name] for name in ("owing", "dead", "live", "young")} | {"notes", "f" * 32}
    assert {path.name for path in many.iterdir()} == kept


def test_prune_keeps_the_journal_of_a_job_that_is_kept(many):
    assert journal.prune(many, before=time.time(), kept_jobs={"42"}) == []


def test_what_is_kept_for_another_try_is_forgotten_when_it_is_old(state_dir, attempt):
    for key, things in ((KEYS["failed"], []), (KEYS["owing"], [SNAPSHOT])):
        with attempt(b"sesame", key=key, is_by_hand=True) as opened:
            for thing in things:
                opened.take(ObjectCreated(thing))
            opened.end(journal.AttemptOutcome.FAILED)
    journal.forget(state_dir, before=time.time() - 60)
    assert [found.targetdata() for found in journal.read_all(state_dir)] == [b"sesame"] * 2
    with attempt(b"sesame", key=KEYS["live"]):
        journal.forget(state_dir, before=time.time() + 60)
        assert journal.read(state_dir, KEYS["live"]).targetdata() == b"sesame"
    assert journal.read(state_dir, KEYS["failed"]).targetdata() is None
    assert journal.read(state_dir, KEYS["failed"]).state.end["outcome"] == "failed"
    assert journal.read(state_dir, KEYS["owing"]).targetdata() == b"sesame"


def test_open_journals_are_found_without_reading_the_others(many):
    for name in ("over", "failed"):
        path = many / KEYS[name] / "journal"
        path.unlink()
        os.mkfifo(path)  # whoever reads it all the same gets nothing
    assert [found.key for found in journal.read_open(many)] == [KEYS["owing"], KEYS["dead"]]


@pytest.mark.parametrize("lay", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname"), Path.mkdir])
def test_what_is_laid_in_place_of_a_journal_is_not_used(state_dir, lay):
    (state_dir / KEY).mkdir(parents=True)
    lay(state_dir / KEY / "journal")
    assert journal.read(state_dir, KEY) is None
    with pytest.raises(CannotCreateError), journal.open_journal(state_dir, KEY):
        pytest.fail("it was opened")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_away_nothing_by_a_journal_that_was_laid_for_it(tmp_path, state_dir, let_all_enter):
    """Its owner links what root writes to a file of root's, on any level."""
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "journal").write_text("root:SECRET")
    theirs = state_dir.parent / "spool"
    theirs.mkdir()
    let_all_enter(theirs)
    for level in (theirs / "file" / KEY / "journal", theirs / "directory" / KEY, theirs / "all"):
        level.parent.mkdir(parents=True, exist_ok=True)
        level.symlink_to({"journal": secret / "journal"}.get(level.name, secret))
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for name in ("file", "directory", "all"):
        with pytest.raises(CannotCreateError), journal.open_journal(theirs / name, KEY):
            pytest.fail("it was opened")
        assert journal.read(theirs / name, KEY) is None
    assert (secret / "journal").read_text() == "root:SECRET"
    assert {path.stat().st_uid for path in (secret, secret / "journal")} == {0}
    assert [path.name for path in secret.iterdir()] == ["journal"]
