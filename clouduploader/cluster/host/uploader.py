"""The process of one uploader: a child that waits until it may begin, and that does not outlive this one.

It is forked while this process has one thread, so that it can wait, and become the uploader, by Python's own means;
threads are started afterwards. The kernel sends it SIGKILL when its parent ends, whatever ends that. Of this process's
descriptors it has only what it was given, and of its environment nothing that is the host's own.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import ClouduploaderError, LocalIOError
from clouduploader.store.journal import witness
from clouduploader.util import arrival as image_arrival
from clouduploader.util import files, processes
from clouduploader.util.arrival import ArrivalWriter

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; when the thread dies that forked, prctl(2): the main thread
WITNESS_FD, DATA_FD, ARRIVAL_FD = 3, 4, 5
READY = b"r"  # what comes on the same socket before it may begin
FREE_FD = 10  # above all that the uploader gets
DATA_PATH = f"/proc/self/fd/{DATA_FD}"  # of the target data, which lie in memory alone
_PRCTL = ctypes.CDLL(None).prctl
_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it if that is gone already.

    Args:
        parent_pid: The parent that it must be the child of.
    """
    _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


class Uploader:
    """An uploader that has not begun. Made by the main thread, while there is no other; killed by any.

    Args:
        program: The uploader.
        arguments: Behind its name.
        environment: All of it.
        directory: Where it starts.
        log: Its standard output and error.
        data: Its target data; it reads them at DATA_PATH.
        arrival: Tells it how much of its image is there.

    Attributes:
        pid: Also of its session and group.
        witness: The host's end of the socket on which it asks whether it may go on.
        pidfd: Can be read once it has ended.

    Raises:
        LocalIOError: There can't be another process, or no descriptor is free.
    """

    def __init__(
        self,
        program: Path,
        arguments: Sequence[bytes],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        data: bytes,
        arrival: ArrivalWriter,
    ) -> None:
        self._lock = threading.Lock()
        self._held = processes.PidfdSet()
        self._exit_code: int | None = None
        with contextlib.ExitStack() as undo, _local_errors():
            self.witness, other = socket.socketpair()
            undo.callback(self.witness.close)
            reading, self._barrier = os.pipe()
            undo.callback(os.close, self._barrier)
            with contextlib.ExitStack() as child_only:
                child_only.callback(os.close, reading)
                child_only.callback(other.close)
                memory = os.memfd_create("targetdata", os.MFD_CLOEXEC)
                child_only.callback(os.close, memory)
                files.write_all(memory, data)
                output = files.open_locked(log)
                if output is None:
                    raise LocalIOError(f"another process has the log {log}")
                child_only.enter_context(output)
                host_pid = os.getpid()
                self.pid = os.fork()
                if self.pid == 0:
                    _become(
                        [os.fsencode(program), *arguments],
                        {
                            **environment,
                            witness.FD_VARIABLE: str(WITNESS_FD),
                            image_arrival.FD_VARIABLE: str(ARRIVAL_FD),
                        },
                        directory=directory,
                        host_pid=host_pid,
                        descriptors=(reading, output.fileno(), other.fileno(), memory, arrival.descriptor),
                    )
                undo.callback(_end_child, self.pid)
            self.witness.recv(1)  # it leads its session now, so that a signal reaches it
            self.pidfd = self._held.add_child(self.pid)
            undo.pop_all()

    def start(self) -> None:
        """Let it begin; nothing happens if it was killed before."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._barrier, b"\n")

    def is_asking(self) -> bool:
        """Read from the witness's socket; return False if the uploader has closed its end."""
        try:
            return self.witness.recv(1) == witness.ASKED
        except ConnectionResetError:
            return False

    def confirm(self) -> None:
        """Tell the uploader that its journal is at the server: it goes on."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.witness.send(witness.CONFIRMED)

    def stop(self) -> None:
        """Ask it, and all of its group, to clean up and end."""
        with self._lock, contextlib.suppress(ClouduploaderError):
            self._held.terminate_group(self.pid)

    def kill(self) -> None:
        """End it, and all that it has started, at once: it changes nothing in the cloud any more.

        Its group is frozen first, and what has left that is killed before it: some programs clean up when it dies.
        """
        with self._lock, contextlib.suppress(ClouduploaderError):
            try:
                if living := self._held.living():
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self.pid, signal.SIGSTOP)
                    started = processes.descendants(living)
                    self._held.add(started)
                    self._held.kill_each(started)
            finally:
                self._held.kill(self.pid)  # also where what it has started can't be looked up

    def wait(self) -> int:
        """Wait for its end; return its exit code, or the number of a signal as a negative one."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            if self._exit_code is None:
                _, status = os.waitpid(self.pid, 0)
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code

    def close(self) -> None:
        """Kill it if it lives, with all that it has started, and let go of it."""
        self.kill()
        if self._exit_code is None:
            self.wait()
        os.close(self._barrier)
        self.witness.close()
        self._held.close()


def _end_child(pid: int) -> None:
    """End a child that was not waited for yet."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _become(
    words: Sequence[bytes],
    environment: Mapping[str, str],
    *,
    directory: Path,
    host_pid: int,
    descriptors: tuple[int, int, int, int, int],
) -> None:
    """In the child: wait until it may begin, and execute the uploader. Does not return.

    Args:
        words: Its command line.
        environment: All of it.
        directory: Where it starts.
        host_pid: The parent.
        descriptors: What it waits at, its output, its end of the witness's socket, its target data, and how much of its
            image is there.
    """
    try:
        end_with_parent(host_pid)
        os.setsid()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as OBS's worker leaves it
        reading, output, witness, memory, arrival = (
            fcntl.fcntl(number, fcntl.F_DUPFD, FREE_FD) for number in descriptors
        )
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(witness, WITNESS_FD)
        os.dup2(memory, DATA_FD)
        os.dup2(arrival, ARRIVAL_FD)
        os.dup2(reading, 0)
        os.closerange(ARRIVAL_FD + 1, os.sysconf("SC_OPEN_MAX"))
        os.write(WITNESS_FD, READY)
        if not os.read(0, 1):
            os._exit(1)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        os.chdir(directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(words[0], [words[0].rpartition(b"/")[2], *words[1:]], environment)  # noqa: S606 there is no shell
    except OSError as exc:
        os.write(2, os.fsencode(f"{os.fsdecode(words[0])}: {exc.strerror}\n"))
        os._exit(exc.errno or 1)  # as the embedded worker's supervisor does
    finally:
        os._exit(1)


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"the uploader can't be started: {exc.strerror}") from exc
