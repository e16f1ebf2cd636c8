import os
import signal
import socket

import pytest
from fakes import forked
from samples.journals import BEGINNING, KEY

from clouduploader.errors import ConfigError
from clouduploader.plugin import ObjectCreated
from clouduploader.store import journal
from clouduploader.store.journal import witness


@pytest.fixture
def ends():
    """The uploader's end of a socket, and the other one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_wait_returns_when_it_is_confirmed(ends):
    ours, theirs = ends
    found = journal.Witness(ours.fileno())
    for _ in range(2):
        theirs.sendall(witness.CONFIRMED)
        found.wait()
        assert theirs.recv(9) == witness.ASKED


@pytest.mark.parametrize("answer", [b"x", b"j", b""])
def test_process_dies_at_once_where_it_is_not(ends, answer):
    ours, theirs = ends
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)

    def wait():
        try:
            journal.Witness(ours.fileno()).wait()
        finally:
            os.write(1, b"still here")

    ended = forked.run(wait)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")


def test_process_dies_when_its_host_is_gone(ends):
    ours, theirs = ends
    theirs.close()
    assert forked.run(journal.Witness(ours.fileno()).wait).returncode == -signal.SIGKILL


def test_no_program_gets_the_socket(ends):
    ours, _theirs = ends
    ours.set_inheritable(True)
    assert journal.witness_of({witness.FD_VARIABLE: str(ours.fileno())})
    assert not ours.get_inheritable()


def test_there_is_none_without_the_variable():
    assert journal.witness_of({}) is None


@pytest.mark.parametrize("text", ["x", "-1", "987654", "9" * 30, "\N{SUPERSCRIPT TWO}", "0x1"])
def test_what_is_no_socket_is_refused(text):
    with pytest.raises(ConfigError, match="not the number of an open socket"):
        journal.witness_of({witness.FD_VARIABLE: text})


def test_file_is_refused(tmp_path):
    with (tmp_path / "x").open("w") as file, pytest.raises(ConfigError):
        journal.witness_of({witness.FD_VARIABLE: str(file.fileno())})


def test_each_entry_is_on_the_disk_before_the_witness_is_asked(ends, state_dir):
    ours, theirs = ends
    found = journal.Witness(ours.fileno())
    pid = os.fork()
    if pid == 0:  # plays the host, and notes how much of the journal there was
        ours.close()
        while theirs.recv(1):
            with (state_dir / "sizes").open("a") as sizes:
                print((state_dir / KEY / "journal").stat().st_size, file=sizes)
            theirs.sendall(witness.CONFIRMED)
        os._exit(0)
    theirs.close()
    with journal.open_journal(state_dir, KEY, found) as opened:
        assert opened.has_successor
        opened.begin(BEGINNING, None)
        opened.take(ObjectCreated(journal.object_of({"kind": "snapshot", "id": "snap-1"})))
        opened.ensure_ours()
        opened.end(journal.AttemptOutcome.FAILED)
    ours.close()
    os.waitpid(pid, 0)
    lines = (state_dir / KEY / "journal").read_bytes().splitlines(keepends=True)
    ends_of = [sum(map(len, lines[: index + 1])) for index in range(3)]
    assert list(map(int, (state_dir / "sizes").read_text().split())) == [*ends_of[:2], ends_of[1], ends_of[2]]
    assert not (state_dir / KEY / "targetdata").exists()
