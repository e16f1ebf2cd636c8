"""The directory of one attempt at its host: a spool with one job. Target data are not in it.

    SPOOL/attempts/N.A/   0700; N is the job, A the attempt
        lock              locked as long as the attempt lives
        N, N.file, N.log, N.dir/, N.result, journal/KEY/     as in any spool

The uploader's TMPDIR does not lie there, for it has temporary keys: it is a private directory in the host's TMPDIR,
which may be in memory.

A host that was killed leaves its directories, and perhaps programs that its uploaders had started. The next attempt,
or the next start of the host, ends these and removes the directories.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError
from clouduploader.model import job_xml
from clouduploader.model.job import Job
from clouduploader.store import workspace
from clouduploader.store.config import STATE_NAME
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util import files, processes

NAME = "attempts"
LOCK_NAME = "lock"
KILL_SECONDS = 5.0  # until what got SIGKILL is gone; else the directory stays until the next look
_ATTEMPT = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")


class AttemptDirectory(SpoolPaths):
    """The paths of an attempt.

    Args:
        directory: See the module.
        name: The job.
        temporary_dir: See Attributes.

    Attributes:
        state_dir: Of the journal.
        temporary_dir: Of the uploader.
    """

    def __init__(self, directory: Path, name: str, temporary_dir: Path) -> None:
        super().__init__(directory)
        self.state_dir = directory / STATE_NAME
        self.temporary_dir = temporary_dir
        self._name = name

    def write_record(self, job: Job) -> None:
        """Write the record of the job, which names the uploader's process group."""
        with self._errors():
            files.write_file(self.job_path(self._name), job_xml.serialize(job), mode=files.GROUP_MODE)

    def make_inside(self) -> None:
        """Make what an uploader finds."""
        with self._errors():
            self.work_dir(self._name).mkdir(mode=files.PRIVATE_DIRECTORY_MODE)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise CannotCreateError(f"the attempt {self.directory} can't be made: {exc.strerror}") from exc


@contextlib.contextmanager
def made(spool: Path, name: str, attempt: int) -> Iterator[AttemptDirectory]:
    """Make the directory of an attempt, locked; it is removed when the block ends.

    Args:
        spool: Of the host.
        name: The job.
        attempt: Its number.

    Raises:
        CannotCreateError: It can't be made, or this attempt lives already.
    """
    path = spool / NAME / f"{name}.{attempt}"
    with contextlib.ExitStack() as stack:
        directory = AttemptDirectory(path, name, stack.enter_context(workspace.private_directory()))
        with directory._errors():
            path.parent.mkdir(mode=files.PRIVATE_DIRECTORY_MODE, exist_ok=True)
            if path.exists():
                _remove_dead(path)
            with _alone(path.parent):
                path.mkdir(mode=files.PRIVATE_DIRECTORY_MODE)
                stack.callback(files.remove_tree, path)
                lock = files.open_locked(path / LOCK_NAME)
            if lock:
                stack.enter_context(lock)
            directory.make_inside()
        yield directory


def remove_dead(spool: Path) -> None:
    """Remove the directories of attempts that no process works on, and end what these have left; nothing else.

    Args:
        spool: Of the host.
    """
    workspace.remove_stale()
    with contextlib.suppress(OSError):
        for path in (spool / NAME).iterdir():
            if _ATTEMPT.fullmatch(path.name) and not path.is_symlink():
                with contextlib.suppress(ClouduploaderError, OSError):
                    _remove_dead(path)


@contextlib.contextmanager
def _alone(attempts: Path) -> Iterator[None]:
    """Keep others from taking a directory for dead that was just made, and has no lock yet."""
    descriptor = os.open(attempts, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_dead(path: Path) -> None:
    """Remove the directory of an attempt, unless a process has its lock."""
    path = path.parent.resolve() / path.name  # by which /proc shows where processes are
    with _alone(path.parent):
        lock = files.open_locked(path / LOCK_NAME)
    if lock is None:
        return
    with lock, processes.PidfdSet() as held:
        found = processes.all_processes()
        held.add(process for pid, process in found.items() if _is_in(pid, path))
        held.kill()
        if held.wait(KILL_SECONDS):
            files.remove_tree(path)


def _is_in(pid: int, path: Path) -> bool:
    """Return whether a process works in a directory: it started there, or its output goes there."""
    if pid == os.getpid():
        return False
    for link in ("cwd", "fd/1"):
        with contextlib.suppress(OSError):
            if (processes.PROC / str(pid) / link).readlink().is_relative_to(path):
                return True
    return False
