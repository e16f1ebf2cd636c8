import errno
import os
import resource
import select
import signal

import pytest

from clouduploader.cluster.host.uploader import DATA_PATH, Uploader
from clouduploader.errors import LocalIOError
from clouduploader.util import files
from clouduploader.util.arrival import FD_VARIABLE, ArrivalWriter
from tests.fakes import forked
from tests.fakes.waiting import wait_for


@pytest.fixture
def arrival():
    with ArrivalWriter() as made:
        yield made


@pytest.fixture
def make(tmp_path, arrival):
    def make(program):
        (tmp_path / "dir").mkdir(exist_ok=True)
        return Uploader(
            program,
            [b"tom", DATA_PATH.encode()],
            environment={"PATH": os.defpath},
            directory=tmp_path / "dir",
            log=tmp_path / "log",
            data=b'{"key": "made-up-secret"}',
            arrival=arrival,
        )

    return make


def test_uploader_has_what_it_was_given_and_nothing_else(make, program, tmp_path):
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)  # as a careless library leaves one
    uploader = make(
        program(
            "print(sorted(os.listdir('/proc/self/fd')), os.getcwd(), sorted(os.environ), operands)\n"
            "print(os.pread(4, 100, 0), os.getsid(0) == os.getpid(), open('/proc/self/cmdline').read())"
        )
    )
    uploader.start()
    assert uploader.wait() == 0
    uploader.close()
    os.close(secret)
    text = (tmp_path / "log").read_text()
    descriptors, _, rest = text.partition("] ")
    assert set(descriptors) <= set("['0123456, ")  # the last is that of the look itself
    assert rest.startswith(f"{tmp_path / 'dir'} ['CLOUDUPLOADER_IMAGE_FD', 'CLOUDUPLOADER_JOURNAL_FD', ")
    assert "['tom', '/proc/self/fd/4']" in text
    assert "made-up-secret" in text  # in the data, and nowhere else
    assert text.count("made-up-secret") == 1
    assert " True " in text


def test_uploader_knows_how_much_of_its_image_is_there(make, program, arrival, tmp_path):
    uploader = make(program(f"print(os.pread(int(os.environ['{FD_VARIABLE}']), 99, 0))"))
    arrival.have(7)  # after the fork
    uploader.start()
    assert uploader.wait() == 0
    uploader.close()
    assert (tmp_path / "log").read_text() == f"{os.pread(arrival.descriptor, 99, 0)}\n"


def test_uploader_that_may_not_begin_does_nothing(make, program, tmp_path):
    uploader = make(program("print('began')"))
    uploader.close()
    assert (tmp_path / "log").read_bytes() == b""
    uploader = make(program("print('began')"))
    uploader.kill()
    uploader.start()
    assert uploader.wait() == -signal.SIGKILL
    uploader.close()


def test_uploader_that_is_killed_before_it_is_held_has_ended(make, program, monkeypatch):
    hold = os.pidfd_open

    def late(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return hold(pid)

    monkeypatch.setattr(os, "pidfd_open", late)
    uploader = make(program(""))
    assert uploader.wait() == -signal.SIGKILL
    uploader.close()


def test_uploader_that_can_not_be_held_is_no_zombie(make, program, monkeypatch):
    pids = []

    def none_free(pid):
        pids.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", none_free)
    with pytest.raises(LocalIOError):
        make(program(""))
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)


def test_uploader_waits_for_its_witness(make, program, tmp_path):
    uploader = make(program("print(ask() == b'k', flush=True); sys.exit(7 if ask() == b'' else 0)"))
    uploader.start()
    assert uploader.is_asking()
    assert (tmp_path / "log").read_bytes() == b""
    uploader.confirm()
    assert uploader.is_asking()
    uploader.witness.close()
    assert uploader.wait() == 7
    uploader.close()


def test_stop_lets_it_clean_up_and_kill_does_not(make, program, tmp_path):
    text = (
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'cleaned\\n'), sys.exit(3)))\n"
        "os.write(1, b'began\\n'); time.sleep(600)"
    )
    for end, code, said in ((Uploader.stop, 3, "began\ncleaned\n"), (Uploader.kill, -signal.SIGKILL, "began\n")):
        (tmp_path / "log").unlink(missing_ok=True)
        uploader = make(program(text))
        uploader.start()
        wait_for(lambda: (tmp_path / "log").read_text().startswith("began"))
        end(uploader)
        assert uploader.wait() == code
        uploader.close()
        assert (tmp_path / "log").read_text() == said


def test_what_it_has_started_is_ended_before_it_could_clean_up(make, program, tmp_path, is_running):
    uploader = make(
        program(
            "if not os.fork():\n"
            "    os.setsid()\n"
            "    import ctypes; ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
            "    signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'cleaned\\n'), sys.exit(3)))\n"
            "    os.write(1, b'%d\\n' % os.getpid())\n"
            "time.sleep(600)"
        )
    )
    uploader.start()
    wait_for(lambda: (tmp_path / "log").read_bytes().endswith(b"\n"))
    uploader.kill()
    uploader.close()
    wait_for(lambda: not is_running(int((tmp_path / "log").read_text())))


def test_uploader_is_killed_though_no_descriptor_is_free(make, program):
    uploader = make(program("time.sleep(600)"))
    uploader.start()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        uploader.kill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    ended, _, _ = select.select([uploader.pidfd], [], [], 5)
    assert ended
    uploader.close()


def test_uploader_ends_with_its_host(make, program, tmp_path, is_running):
    uploading = program("print(os.getpid(), flush=True); time.sleep(600)")

    def host():
        make(uploading).start()
        wait_for(lambda: (tmp_path / "log").stat().st_size)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked.run(host).returncode == -signal.SIGKILL
    pid = int((tmp_path / "log").read_text())
    wait_for(lambda: not is_running(pid))


def test_uploader_that_is_not_there_is_told(make, tmp_path):
    uploader = make(tmp_path / "none")
    uploader.start()
    assert uploader.wait() == 2
    uploader.close()
    assert "none: No such file" in (tmp_path / "log").read_text()


def test_log_of_another_uploader_is_left(make, program, tmp_path):
    with files.open_locked(tmp_path / "log"), pytest.raises(LocalIOError, match="another process"):
        make(program(""))
