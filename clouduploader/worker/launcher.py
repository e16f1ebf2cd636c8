"""Start one upload, in an order that survives a crash of the worker at every step.

1. Under the job's lock: `.N.dir`, the log, the supervisor, which waits; the record says `uploading`, with its pid.
2. A byte to the supervisor. It renames `.N.dir` to `N.dir`, and executes the uploader.

Where a record says `uploading`, no process works on the job, and `.N.dir` is there, no upload has begun: the job is
scheduled again. Without `.N.dir` one may have begun, and it is not started a second time.
"""

import contextlib
import dataclasses
import errno
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ClouduploaderError, LocalIOError, NoSuchJobError
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen
from clouduploader.worker import outcome, queue, supervisor
from clouduploader.worker.settings import WorkerSettings

DEFAULT_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
"""Signals that have their default action in an upload, whatever the worker inherited."""


@frozen(kw_only=True)
class LaunchConfig:
    """What every start needs.

    Attributes:
        jobs: The spool.
        settings: See WorkerSettings.
        program: The uploader.
        environment: Of the uploader.
        descriptor_limits: Soft and hard, of the uploader: the server raises its own, which many programs do not expect.
    """

    jobs: spool.Spool
    settings: WorkerSettings
    program: Path
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    descriptor_limits: tuple[int, int]


def start(launch: LaunchConfig, name: str) -> Job | None:
    """Start the upload of a job.

    Args:
        launch: See LaunchConfig.
        name: The job.

    Returns:
        Its record: uploading, with the pid of its supervisor, a child of this process; or failed, if the job can't be
        uploaded; None if there is nothing to start any more.

    Raises:
        JobFileError: Its record is damaged.
        LockedError: Another process has the lock.
        CannotCreateError, LocalIOError: The disk is full, or there can't be another process; the job stays.
    """
    jobs = launch.jobs
    with contextlib.suppress(NoSuchJobError), contextlib.ExitStack() as stack:
        locked = stack.enter_context(jobs.lock(name))
        job = locked.job
        if job.state not in queue.STARTABLE:
            return None
        found = fault(jobs, job)
        if found:
            return outcome.fail(locked, found)
        try:
            pid, barrier = _prepare(launch, job)
        except OSError as exc:
            if exc.errno == errno.E2BIG:
                return outcome.fail(locked, "user, target and filename are too long to start an upload with")
            raise LocalIOError(f"the upload of the job {name} can't be started: {exc.strerror}") from exc
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, launch.descriptor_limits)
        job = dataclasses.replace(job, state=JobState.UPLOADING, details=None, progress=None, pid=pid)
        try:
            locked.replace(job)
        except ClouduploaderError:
            os.close(barrier)
            os.waitpid(pid, 0)  # it ends at once, without having executed anything
            raise
        with contextlib.suppress(BrokenPipeError):  # the supervisor was killed: its end is seen as that of any other
            os.write(barrier, b"\n")
        os.close(barrier)
        return job
    return None


def fault(jobs: spool.Spool, job: Job) -> str | None:
    """Return why a job can never be uploaded, or None; OBS's worker leaves such jobs scheduled for ever."""
    if not job.user:
        return "the job has no user"
    if not job.target:
        return "the job has no target"
    if not jobs.data_path(job.name).exists():
        return "the job has no target data"
    return None


def _prepare(launch: LaunchConfig, job: Job) -> tuple[int, int]:
    """Create what an upload needs on disk, and start its supervisor.

    Returns:
        Its pid, and a pipe to it.

    Raises:
        OSError: Something can't be created, or started.
        CannotCreateError: The log can't be created.
    """
    jobs, name = launch.jobs, job.name
    with privileges.as_owner(jobs.directory):
        _make_directory(jobs, name)
        jobs.result_path(name).unlink(missing_ok=True)  # of an earlier try
    with jobs.open_log(name) as log:
        reading, barrier = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [*map(os.fsencode, (sys.executable, "-I", "-S", supervisor.__file__)), *_arguments(launch, job)],
                launch.environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reading, 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULT_SIGNALS,
            )
        except OSError:
            os.close(barrier)
            raise
        finally:
            os.close(reading)
    return pid, barrier


def _make_directory(jobs: spool.Spool, name: str) -> None:
    """Create `.N.dir`, and remove `N.dir` of an earlier try; as OBS does, rename what can't be removed."""
    work_dir, prepared_dir = jobs.work_dir(name), jobs.prepared_dir(name)
    for path in (work_dir, prepared_dir):
        files.remove_tree(path)
        if path.exists():
            path.rename(work_dir.with_name(f"{work_dir.name}.gone{os.getpid()}"))
    files.make_directory(prepared_dir, mode=files.GROUP_DIRECTORY_MODE)


def _arguments(launch: LaunchConfig, job: Job) -> list[bytes]:
    """Return the arguments of `supervisor`; those from the record in UTF-8, as it is there, whatever the locale."""
    jobs, settings, name = launch.jobs, launch.settings, job.name
    return [
        os.fsencode(jobs.directory),
        os.fsencode(name),
        b"%d" % settings.tries,
        b"%d" % settings.pause_seconds((job.try_ or 1) + 1),
        os.fsencode(launch.program),
        (job.user or "").encode(),
        (job.target or "").encode(),
        os.fsencode(jobs.file_path(name)),
        os.fsencode(jobs.data_path(name)),
        (job.filename or "").encode(),
        os.fsencode(jobs.result_path(name)),
    ]
