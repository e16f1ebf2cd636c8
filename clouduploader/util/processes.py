"""Find the processes that work on a job, and stop them.

A pid in a job file is only a number: after a reboot, or just later, another process has it. So it
is believed only when a process of that group, of the spool's owner, of root or of this user, shows by its open
files or its current directory that it works on the job; what stands on a command line shows nothing,
as an editor has the same words there. All of that comes from /proc; where /proc does not
tell (it tells root everything, others only about their own processes), the answer is that it is
not known. A process that was looked at is held by a pidfd, so that a signal never
reaches another that got its pid.
"""

import contextlib
import dataclasses
import enum
import fcntl
import os
import re
import select
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from clouduploader.errors import LocalIOError, NotOwnerError
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

PROC = Path("/proc")
POLL_SECONDS = 0.2  # between two looks at what a process started meanwhile
KILL_ROUNDS = 5  # a child that was being started at the first may be seen at the second
DEAD_STATES = frozenset("ZXx")  # proc(5): zombie and dead; a zombie only waits to be counted


class Ownership(enum.StrEnum):
    """How a job's pid stands to the job."""

    WORKING = "working"  # a process of this group works on the job
    FOREIGN = "foreign"  # the number is in use by processes that have nothing to do with the job
    GONE = "gone"  # there is no such process
    UNKNOWN = "unknown"  # there is one, but /proc does not let us see what it does


@frozen()
class Process:
    """A process as /proc/PID/stat has it; two are equal if they are one process.

    Attributes:
        pid: Its number.
        parent_pid: The process that started it, or that took it over when that one ended.
        group: Its process group.
        is_alive: Whether it still runs; otherwise only its parent has not noticed yet.
        start_ticks: When it began, in clock ticks since boot; with the pid it names one process.
    """

    pid: int
    parent_pid: int = dataclasses.field(compare=False)
    group: int = dataclasses.field(compare=False)
    is_alive: bool = dataclasses.field(compare=False)
    start_ticks: int

    @property
    def began(self) -> float:
        """When it did, in seconds since boot."""
        return self.start_ticks / os.sysconf("SC_CLK_TCK")


@frozen()
class ProcessMatch:
    """What a process that works on a job can be known by.

    Attributes:
        work_dir: Its current directory; need not exist. Its owner is that of what it lies in, or root, or us.
        written_paths: Files that it has open for writing, such as the log.
    """

    work_dir: Path
    written_paths: Sequence[Path]


@frozen()
class JobProcesses:
    """The processes that work on a job.

    Attributes:
        ownership: How the group named in the job file stands to it; None if none is named.
        workers: The living members of that group if it works on the job; else those that write the
            job's log all the same.
        descendants: What those have started, in whatever session.
    """

    ownership: Ownership | None
    workers: tuple[Process, ...]
    descendants: tuple[Process, ...]


def seconds_since_boot() -> float:
    """Return the time of the clock that processes' beginnings are told by, which goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def all_processes() -> dict[int, Process]:
    """Return all processes that can be seen, by pid.

    Raises:
        LocalIOError: They can't be looked up: no descriptor is free, or worse.
    """
    with _faults():
        numbers = [int(path.name) for path in PROC.iterdir() if path.name.isdecimal()]
    found = (find(number) for number in numbers)
    return {process.pid: process for process in found if process is not None}


def job_processes(group: int | None, match: ProcessMatch) -> JobProcesses:
    """Find the processes that work on a job.

    Args:
        group: The process group of the job file, which may be another's by now; None if there is none,
            and neither 0 nor 1 is one: OBS leaves these alone too.
        match: What the job's processes are known by.

    Raises:
        LocalIOError: They can't be looked up.
    """
    there = all_processes()
    found, ownership = [], None
    with _faults():
        if group is not None and group > 1:
            found = [member for member in there.values() if group in (member.group, member.pid) and member.is_alive]
            ownership = _ownership(group, found, there, match)
        if ownership is not Ownership.WORKING:
            found = [member for member in there.values() if _is_writer(member, match)]
    return JobProcesses(ownership, tuple(found), tuple(_descendants(found, there)))


def descendants(processes: Iterable[Process]) -> list[Process]:
    """Return the living processes that these started, and those started in turn; in whatever session.

    To be called before those end: the children of an ended process can't be told from others'.
    """
    return _descendants(processes, all_processes())


def is_locked(path: Path) -> bool:
    """Tell whether a process holds an exclusive lock on a file; False if it is not there.

    On a job's log that is a process that works on the job. Takes a shared lock on the file for an instant.
    """
    try:
        with privileges.as_owner(path.parent):
            descriptor = files.open_regular(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not files.try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


class PidfdSet:
    """Processes that are held by pidfds: a signal to one reaches that one or none.

    A context manager; leaving it lets go of them.
    """

    def __init__(self) -> None:
        self._held: dict[Process, int] = {}

    def __enter__(self) -> "PidfdSet":
        """Begin with none."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go."""
        self.close()

    def close(self) -> None:
        """Let go of all."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def add(self, processes: Iterable[Process]) -> None:
        """Hold these too; those that ended meanwhile are left out.

        Raises:
            LocalIOError: No descriptor is free, or worse.
        """
        for process in processes:
            if process in self._held or process.pid == os.getpid():
                continue
            with _faults():
                try:
                    descriptor = os.pidfd_open(process.pid)
                except ProcessLookupError:
                    continue
            now = find(process.pid)
            if now == process:
                self._held[process] = descriptor
            else:
                os.close(descriptor)

    def add_child(self, pid: int) -> int:
        """Hold a child that leads a session and was not waited for yet, so that its number can be no other's.

        /proc is not asked: where it hides what we may not look at (hidepid), the child of a process that hides its
        memory shows only once the kernel is done with its exec.

        Returns:
            Its pidfd; see `descriptors`.

        Raises:
            LocalIOError: No descriptor is free, or worse.
        """
        ticks = int(seconds_since_boot() * os.sysconf("SC_CLK_TCK"))
        child = Process(pid=pid, parent_pid=os.getpid(), group=pid, is_alive=True, start_ticks=ticks)
        with _faults():
            self._held[child] = os.pidfd_open(pid)
        return self._held[child]

    def living(self) -> list[Process]:
        """Return those that still run."""
        return [process for process, descriptor in self._held.items() if not _has_ended(descriptor)]

    def descriptors(self) -> list[int]:
        """Return the pidfds of those that still run: each can be read once its process has ended."""
        return [descriptor for descriptor in self._held.values() if not _has_ended(descriptor)]

    def terminate_group(self, group: int) -> None:
        """Send SIGTERM to all of a group at once, as OBS does; or to the process of that number alone.

        The group is this one only as long as we hold one of it that lives; with none, no process gets it.

        Raises:
            NotOwnerError: They belong to another user.
        """
        with _refusals():
            if any(process.group == group for process in self.living()):
                os.killpg(group, signal.SIGTERM)
            else:
                self._send(signal.SIGTERM, [process for process in self._held if process.pid == group])

    def terminate(self, processes: Iterable[Process]) -> None:
        """Send SIGTERM to each of these that is held.

        Raises:
            NotOwnerError: They belong to another user.
        """
        with _refusals():
            self._send(signal.SIGTERM, [process for process in processes if process in self._held])

    def kill_each(self, processes: Iterable[Process]) -> None:
        """Send SIGKILL to each of these that is held.

        Raises:
            NotOwnerError: They belong to another user.
        """
        with _refusals():
            self._send(signal.SIGKILL, [process for process in processes if process in self._held])

    def kill(self, group: int | None = None) -> None:
        """Send SIGKILL to each, and to what they started up to then.

        Args:
            group: A process group, to all of which it goes if one that is held leads it: not all of them may be seen.

        Raises:
            NotOwnerError: They belong to another user.
        """
        with _refusals():
            if group is not None and any(process.pid == process.group == group for process in self.living()):
                os.killpg(group, signal.SIGKILL)
            for _ in range(KILL_ROUNDS):
                self.add(descendants(self.living()))
                if not self.living():
                    break
                self._send(signal.SIGKILL, self._held)

    def _send(self, number: signal.Signals, processes: Iterable[Process]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._held[process], number)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all have ended, and what they started meanwhile too.

        Returns:
            Whether they have; otherwise the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            living = self.living()
            self.add(descendants(living))
            living = self.living()
            left = deadline - time.monotonic()
            if not living or left <= 0:
                return not living
            poll = select.poll()
            for process in living:
                poll.register(self._held[process], select.POLLIN)
            poll.poll(1000 * min(left, POLL_SECONDS))


def find(pid: int) -> Process | None:
    """Return the process of that number, even if it only waits to be counted; None if there is none.

    Raises:
        LocalIOError: It can't be looked up: no descriptor is free, or worse.
    """
    with _faults():
        try:
            text = (PROC / str(pid) / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last with hidepid of proc(5)
            return None
    # The name in parentheses may itself hold blanks and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        parent_pid=int(fields[1]),
        group=int(fields[2]),
        is_alive=fields[0].decode() not in DEAD_STATES,
        start_ticks=int(fields[19]),  # field 22 of proc(5), of which the first two are cut off
    )


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Turn what keeps this process from looking at others into an error of ours: it is no sign that they are gone."""
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"processes can't be looked at: {exc.strerror}") from exc


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn the refusal of a signal into an error of ours."""
    try:
        yield
    except ProcessLookupError:
        pass  # all gone meanwhile
    except PermissionError as exc:
        raise NotOwnerError(
            "the job's processes belong to another user, and may not be stopped by this one",
            hint="Run it as root, or as the user of OBS's cloud uploader.",
        ) from exc


def _ownership(group: int, living: list[Process], there: Mapping[int, Process], match: ProcessMatch) -> Ownership:
    if not living:
        is_hidden = all(group != process.group for process in there.values()) and _has_members(group)
        return Ownership.UNKNOWN if is_hidden else Ownership.GONE  # hidepid of proc(5)
    answers = [_is_working(process.pid, match) for process in living]
    if True in answers:
        return Ownership.WORKING
    return Ownership.UNKNOWN if None in answers else Ownership.FOREIGN


def _descendants(processes: Iterable[Process], there: Mapping[int, Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in there.values():
        children.setdefault(process.parent_pid, []).append(process)
    waiting = [process.pid for process in processes]
    seen = set(waiting)
    found = []
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                waiting.append(child.pid)
                found.append(child)
    return [process for process in found if process.is_alive]


def _has_members(group: int) -> bool:
    """Tell whether a process group has a member, seen or not."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_working(pid: int, match: ProcessMatch) -> bool | None:
    """Tell whether a process works on a job; None if that can't be seen."""
    try:
        if owner(pid) not in trusted_owners(match.work_dir.parent):
            return False
        directory = _inode(match.work_dir)
        if directory and _inode(PROC / str(pid) / "cwd") == directory:
            return True
        return _writes(pid, _inodes(match.written_paths))
    except PermissionError:
        return None


def _is_writer(process: Process, match: ProcessMatch) -> bool:
    """Tell whether a process has one of the files open for writing, as far as we may see that."""
    try:
        return (
            process.is_alive
            and owner(process.pid) in trusted_owners(match.work_dir.parent)
            and _writes(process.pid, _inodes(match.written_paths))
        )
    except PermissionError:
        return False


def trusted_owners(directory: Path) -> set[int]:
    """Return the uids of those whose processes may work in a spool: any user may start others that look like these."""
    owners = {0, os.geteuid()}
    with contextlib.suppress(OSError):
        owners.add(directory.stat().st_uid)
    return owners


def locked_output(pid: int) -> Path | None:
    """Return the file that is the standard output of a process, if it has an exclusive lock there; else None."""
    base = PROC / str(pid)
    with contextlib.suppress(OSError):
        if re.search(r"^lock:.* FLOCK .* WRITE ", (base / "fdinfo" / "1").read_text(), re.MULTILINE):
            return (base / "fd" / "1").readlink()
    return None


def is_output(pid: int, path: Path) -> bool:
    """Tell whether a file is the standard output of a process, whatever it is called there."""
    with contextlib.suppress(OSError):
        return path.samefile(PROC / str(pid) / "fd" / "1")
    return False


def owner(pid: int) -> int | None:
    """Return the real uid of a process, which it can't hide as it can hide all else; None if it is gone."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key == "Uid":
                return int(value.split()[0])
    return None


def _writes(pid: int, inodes: Collection[tuple[int, int]]) -> bool:
    """Tell whether a process has one of these files open for writing.

    Raises:
        PermissionError: It may not be looked at.
    """
    base = PROC / str(pid)
    if not inodes:
        return False
    try:
        numbers = [path.name for path in (base / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(_inode(base / "fd" / number) in inodes and _is_written(base / "fdinfo" / number) for number in numbers)


def _is_written(path: Path) -> bool:
    """Tell whether /proc/PID/fdinfo/N is of a file open for writing; a process that only reads a log is no uploader."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "flags":
                return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _inodes(paths: Iterable[Path]) -> set[tuple[int, int]]:
    return {inode for path in paths if (inode := _inode(path))}


def _inode(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, whatever it is called.

    Raises:
        PermissionError: It may not be looked at.
    """
    try:
        status = path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _has_ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
