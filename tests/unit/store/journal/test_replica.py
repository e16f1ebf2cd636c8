import os
import resource
import shutil
import signal
import sys
import threading

import pytest
from fakes import forked
from samples.journals import BEGINNING, KEY, SNAPSHOT, read

from clouduploader.errors import DataError, LocalIOError, LockedError, UsageError
from clouduploader.plugin import ObjectCreated
from clouduploader.plugin.transfer import ConfirmedChunks
from clouduploader.store import journal
from clouduploader.store.journal import replica, writer

LINE = b'{"what": "begin", "job": "42"}\n'


@pytest.fixture
def copy(state_dir):
    with journal.JournalReplica(state_dir, KEY) as made:
        yield made


def test_what_the_host_appends_is_a_journal(state_dir, copy):
    assert copy.files() == {"journal": 0}
    assert copy.append("platform/snap-1.confirmed", 0, b"abc") == 3
    assert copy.append("journal", 0, LINE) == len(LINE)
    assert copy.append("journal", len(LINE), b'{"what": "mine"}\n') == len(LINE) + 17
    assert [entry["what"] for entry in read(state_dir).entries] == ["begin", "mine"]
    assert copy.files() == {"journal": len(LINE) + 17, "platform/snap-1.confirmed": 3}
    assert copy.read("journal", len(LINE)) == b'{"what": "mine"}\n'
    assert copy.read("platform/snap-1.confirmed", 1, 1) == b"b"
    assert copy.read("platform/snap-1.confirmed", 3) == b""
    assert copy.read("platform/none", 0) == b""


def test_files_are_private(state_dir, copy):
    copy.append("platform/a", 0, b"x")
    copy.replace("platform/b", b"x")
    copy.keep_targetdata(b"{}")
    modes = {path.name: path.stat().st_mode & 0o777 for path in state_dir.rglob("*")}
    assert modes == {KEY: 0o700, "platform": 0o700, "journal": 0o600, "targetdata": 0o600, "a": 0o600, "b": 0o600}


@pytest.mark.parametrize(
    ("offset", "data", "size", "content"),
    [
        (3, b"def", 6, b"abcdef"), (1, b"bcdef", 6, b"abcdef"), (0, b"ab", 3, b"abc"), (0, b"abc", 3, b"abc"),
        (4, b"x", 3, b"abc"), (1 << 62, b"x", 3, b"abc"), (3, b"", 3, b"abc"),
    ],
)  # fmt: skip
def test_only_bytes_that_follow_are_added(copy, offset, data, size, content):
    copy.append("platform/a", 0, b"abc")
    assert copy.append("platform/a", offset, data) == size
    assert copy.read("platform/a", 0) == content


def test_file_is_replaced_and_removed(copy):
    copy.append("platform/session", 0, b"long content")
    assert copy.replace("platform/session", b"new") == 3
    assert copy.read("platform/session", 0) == b"new"
    copy.remove("platform/session")
    copy.remove("platform/session")
    assert copy.files() == {"journal": 0}


@pytest.mark.parametrize(
    "name",
    [
        "", "platform", "platform/", "platform/.", "platform/..", "platform/.x", "platform/../journal", "platform/a/b",
        "/etc/passwd", "targetdata", "../x", "platform/a\0", "platform/a\n", "platform/caf\xe9",
        f"platform/{'a' * 201}", "journal/", "Journal",
    ],
)  # fmt: skip
def test_name_that_no_journal_has_is_refused(state_dir, copy, name):
    for call in (
        lambda: copy.append(name, 0, b"x"), lambda: copy.replace(name, b"x"), lambda: copy.remove(name),
        lambda: copy.read(name, 0),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            call()
    assert sorted(path.name for path in state_dir.rglob("*")) == sorted([KEY, "journal", "platform"])


def test_journal_itself_only_grows(copy):
    copy.append("journal", 0, LINE)
    for call in (lambda: copy.replace("journal", b""), lambda: copy.remove("journal")):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError, match="-1 is no offset"):
        copy.append("journal", -1, b"x")
    assert copy.files() == {"journal": len(LINE)}


def test_host_can_not_fill_the_disk(copy, monkeypatch):
    monkeypatch.setattr(replica, "MAX_BYTES", 100)
    monkeypatch.setattr(replica, "MAX_JOURNAL_BYTES", 50)
    monkeypatch.setattr(replica, "MAX_FILES", 3)
    copy.append("platform/a", 0, b"x" * 60)
    for call in (
        lambda: copy.append("platform/a", 60, b"x" * 41), lambda: copy.append("platform/b", 0, b"x" * 41),
        lambda: copy.replace("platform/b", b"x" * 41), lambda: copy.append("journal", 0, b"x" * 51),
    ):  # fmt: skip
        with pytest.raises(DataError, match="more of a journal than an upload has"):
            call()
    copy.append("platform/b", 0, b"")
    for call in (lambda: copy.append("platform/c", 0, b""), lambda: copy.replace("platform/c", b"")):
        with pytest.raises(DataError, match="more of a journal than an upload has"):
            call()
    assert copy.files() == {"journal": 0, "platform/a": 60, "platform/b": 0}
    assert copy.append("platform/a", 60, b"x" * 40) == 100


@pytest.mark.parametrize("lay", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname"), os.mkdir])
def test_what_is_laid_in_the_place_of_a_file_is_not_used(state_dir, copy, lay):
    lay(state_dir / KEY / "platform" / "a")
    assert copy.files() == {"journal": 0}
    for call in (lambda: copy.append("platform/a", 0, b"x"), lambda: copy.read("platform/a", 0)):
        with pytest.raises(LocalIOError):
            call()


@pytest.mark.parametrize("name", ["journal", "platform/a"])
def test_full_disk_is_told_and_leaves_nothing_torn(state_dir, name):
    """The limit of file sizes stands for the disk: the kernel writes as much as there is room for."""

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with journal.JournalReplica(state_dir, KEY) as copy:
            copy.append(name, 0, b"x" * 900)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            try:
                copy.append(name, 900, b"y" * 200)
            except LocalIOError as exc:
                sys.stdout.write(exc.message)
            return copy.append(name, 900, b"z" * 50) - 950

    ended = forked.run(fill)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(f"{name} can't be read or written: File too large")
    assert (state_dir / KEY / name).read_bytes() == b"x" * 900 + b"z" * 50


def test_journal_is_locked_as_long_as_the_replica_is_open(state_dir, copy, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.1)
    copy.append("journal", 0, LINE)
    assert read(state_dir).is_live
    with pytest.raises(LockedError, match="the job 42"):
        journal.JournalReplica(state_dir, KEY)
    copy.close()
    copy.close()
    assert not read(state_dir).is_live
    for call in (lambda: copy.append("journal", 0, b""), copy.files, copy.tidy, lambda: copy.read("journal", 0)):
        with pytest.raises(LocalIOError, match="is closed"):
            call()


def test_line_that_a_crash_of_the_server_tore_is_cut_off(state_dir):
    (state_dir / KEY).mkdir(parents=True)
    (state_dir / KEY / "journal").write_bytes(LINE + b'{"what": "as')
    with journal.JournalReplica(state_dir, KEY) as copy:
        assert copy.files() == {"journal": len(LINE)}
        assert copy.append("journal", len(LINE) + 12, b'ked"}\n') == len(LINE)  # its host goes back there


def test_target_data_and_files_stay_as_long_as_something_may_be_left(state_dir, copy, tmp_path):
    with journal.open_journal(tmp_path / "host", KEY) as there:
        there.begin(BEGINNING, None)
        there.take(ObjectCreated(SNAPSHOT))
        copy.append("platform/a", 0, b"x")
        copy.append("journal", 0, (tmp_path / "host" / KEY / "journal").read_bytes())
        copy.keep_targetdata(b'{"a": 1}')
        copy.tidy()
        assert read(state_dir).targetdata() == b'{"a": 1}'
        assert copy.files()["platform/a"] == 1
        there.end(journal.AttemptOutcome.CLEANED)
    copy.append("journal", 0, (tmp_path / "host" / KEY / "journal").read_bytes())
    copy.tidy()
    assert [path.name for path in (state_dir / KEY).iterdir()] == ["journal"]


def test_threads_may_share_it(copy):
    def write(name):
        for number in range(50):
            copy.append(f"platform/{name}", number, b"x")
            copy.append("journal", copy.files()["journal"], b"")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert copy.files() == {"journal": 0, **{f"platform/{name}": 50 for name in "abcd"}}


def test_chunks_that_were_confirmed_are_known_to_the_next_host(state_dir, copy, tmp_path):
    path = tmp_path / "host" / "snap-1.confirmed"
    path.parent.mkdir()
    with ConfirmedChunks(path, 512) as confirmed:
        confirmed.confirm([(number, bytes([number]) * 32) for number in range(10)])
        copy.append("platform/snap-1.confirmed", 0, path.read_bytes()[:-7])  # caught in the middle of a record
    copy.append("journal", 0, LINE)
    copy.close()
    shutil.copytree(state_dir / KEY, tmp_path / "other")
    with ConfirmedChunks(tmp_path / "other" / "platform" / "snap-1.confirmed", 512) as confirmed:
        assert confirmed.count == 9
