"""Kill jobs as OBS does, but only processes that are the job's; wait for their clean-up, or do it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import (
    ClouduploaderError,
    NoSuchJobError,
    NotOwnerError,
    PlatformReplyError,
    TransientError,
)
from clouduploader.jobs import cleanup, resume
from clouduploader.jobs import log as jobs_log
from clouduploader.model.job import Details, Job, JobState
from clouduploader.plugin import CleanUpReport, CloudObject, Leftover, Platform
from clouduploader.store import job_log, journal, spool, target_data, workspace
from clouduploader.store.config import Config
from clouduploader.store.spool import leases
from clouduploader.store.spool.process_match import process_match
from clouduploader.uploads import registry
from clouduploader.uploads.journaling import JournalWriter
from clouduploader.util import processes
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client import JobServer

POLL_SECONDS = 0.2  # between looks whether a host has ended its upload
KILL_SECONDS = 10.0  # more than a process that got a SIGKILL needs, unless it hangs in the kernel


@frozen(kw_only=True)
class KillOptions:
    """How jobs are killed.

    Attributes:
        is_waiting: Wait until the uploader has cleaned up and ended.
        is_forced: After that wait, send SIGKILL to what is left, and clean up ourselves.
        timeout_seconds: How long to wait, for all jobs together.
    """

    is_waiting: bool = False
    is_forced: bool = False
    timeout_seconds: float


@frozen(kw_only=True)
class KillResult:
    """What became of one job.

    Attributes:
        name: The job.
        state: Its state now; None if it is not known.
        is_finished_before: It was over already, and nothing was changed.
        ownership: How its pid stood to it; None without one, and for a job of a server.
        was_forced: Whether a process had to be ended by SIGKILL.
        remaining_pids: Its processes that still run; they may be cleaning up. None for a job of a server.
        clean_up: What became of its objects in the cloud; None if its end was not waited for or seen.
        error: Why it could not be killed or, when it was, cleaned up.
    """

    name: str
    state: JobState | None = None
    is_finished_before: bool = False
    ownership: processes.Ownership | None = None
    was_forced: bool = False
    remaining_pids: tuple[int, ...] | None = ()
    clean_up: CleanUpReport | None = None
    error: ClouduploaderError | None = None


@frozen()
class _KillContext:
    """What killing needs, see `kill_jobs`."""

    jobs: spool.Spool
    options: KillOptions
    config: Config
    sinks: Sequence[job_log.Sink]
    load_platform: Callable[[str, Config], Platform]


@frozen()
class _Stopped:
    """A job that was archived, while its processes may still clean up.

    `objects` are those of the cloud that there were when that began, `host` is the one of a cluster that has the job.
    """

    job: Job
    ownership: processes.Ownership | None
    held: processes.PidfdSet
    targetdata: bytes | ClouduploaderError = dataclasses.field(repr=False)
    objects: tuple[CloudObject, ...]
    host: str | None


def kill_jobs(
    jobs: spool.Spool,
    names: Sequence[str],
    *,
    options: KillOptions,
    config: Config,
    sinks: Sequence[job_log.Sink] = (),
    load_platform: Callable[[str, Config], Platform] = registry.load,
) -> Iterator[KillResult]:
    """Kill jobs: SIGTERM to their processes, failed, archived; then wait for what they do about it.

    All are killed before the first is waited for. What was created, is received or scheduled has
    no processes that would have to be told. A host of a cluster is told by the server.

    Args:
        jobs: The spool.
        names: The jobs; one that is named twice is killed once.
        options: How they are killed.
        config: For our own clean-up.
        sinks: Where our own clean-up writes its log, beside the job's.
        load_platform: Gives the platform that cleans up.

    Yields:
        What became of each, errors included, in the order of their names as given.
    """
    context = _KillContext(jobs, options, config, sinks, load_platform)
    with contextlib.ExitStack() as stack:
        outcomes: list[_Stopped | KillResult] = []
        for name in dict.fromkeys(names):
            held = stack.enter_context(processes.PidfdSet())
            try:
                outcomes.append(_stop(context, name, held))
            except ClouduploaderError as exc:
                outcomes.append(KillResult(name=name, error=exc))
        jobs.ping_worker()
        deadline = time.monotonic() + options.timeout_seconds
        for outcome in outcomes:
            yield outcome if isinstance(outcome, KillResult) else _finish(context, outcome, deadline)
        jobs.ping_worker()  # again: the first may have come before OBS's helper of the job had ended


def kill_at_server(server: "JobServer", names: Sequence[str]) -> Iterator[KillResult]:
    """Have a server kill jobs. It tells nothing of their processes, which may clean up for some time.

    Yields:
        What became of each, errors included, in the order of their names as given.
    """
    for name in dict.fromkeys(names):
        try:
            job = server.read(name)
            is_finished = job.state.is_final
            if not is_finished:
                server.kill(name)
                job = server.read(name)
                is_finished = job.state.is_final and job.details != Details.KILLED  # it ended before the kill came
                if not job.state.is_final:
                    raise PlatformReplyError(f"the server {server.url} killed the job {name}, but it is {job.state}")
            yield KillResult(name=name, state=job.state, is_finished_before=is_finished, remaining_pids=None)
        except ClouduploaderError as exc:
            yield KillResult(name=name, remaining_pids=None, error=exc)


def _stop(context: _KillContext, name: str, held: processes.PidfdSet) -> _Stopped | KillResult:
    """Send SIGTERM and archive, under the job's lock, so that no other process writes its end."""
    jobs = context.jobs
    try:
        with jobs.lock(name) as locked:
            job = locked.job
            if job.state.is_final:
                return KillResult(name=name, state=job.state, is_finished_before=True)
            data = _targetdata(jobs, name) if context.options.is_forced else b""
            objects = _objects(context, job) if context.options.is_waiting else ()  # before the uploader removes them
            host = leases.with_host(jobs, job).host
            ownership = _terminate(jobs, job, held) if job.state is JobState.UPLOADING and not host else None
            locked.archive(job.ended(JobState.FAILED, Details.KILLED))
    except NoSuchJobError:
        job, _ = jobs.read(name)
        return KillResult(name=name, state=job.state, is_finished_before=True)
    return _Stopped(job, ownership, held, data, objects, host)


def _targetdata(jobs: spool.Spool, name: str) -> bytes | ClouduploaderError:
    """Return the target data, before they go; or why there are none, which is no reason not to kill."""
    try:
        return target_data.read_file(jobs.data_path(name), is_of_spool=True)
    except ClouduploaderError as exc:
        return exc


def _terminate(jobs: spool.Spool, job: Job, held: processes.PidfdSet) -> processes.Ownership | None:
    found = processes.job_processes(job.pid, process_match(jobs, job))
    if found.ownership is processes.Ownership.UNKNOWN:
        raise NotOwnerError(
            f"it can't be seen whether the process group {job.pid} works on the job {job.name}",
            hint="Run it as root, or as the user of OBS's cloud uploader.",
        )
    held.add((*found.workers, *found.descendants))
    if found.ownership is processes.Ownership.WORKING and job.pid:
        held.terminate_group(job.pid)
    else:
        held.terminate(found.workers)
    return found.ownership


def _finish(context: _KillContext, stopped: _Stopped, deadline: float) -> KillResult:
    """Wait for the end of a job's processes, and see to what they leave."""
    options, held = context.options, stopped.held
    was_forced, report, error = False, None, None
    try:
        if options.is_waiting and not held.wait(max(0.0, deadline - time.monotonic())) and options.is_forced:
            held.kill()
            was_forced = True
            held.wait(KILL_SECONDS)
        if options.is_waiting and stopped.host:
            _wait_for_host(context.jobs, stopped.job.name, stopped.host, deadline)
        if options.is_waiting and not held.living():
            report, error = _see_to_objects(context, stopped)
    except ClouduploaderError as exc:
        error = exc
    return KillResult(
        name=stopped.job.name,
        state=JobState.FAILED,
        ownership=stopped.ownership,
        was_forced=was_forced,
        remaining_pids=tuple(sorted(member.pid for member in held.living())),
        clean_up=report,
        error=error,
    )


def _wait_for_host(jobs: spool.Spool, name: str, host: str, deadline: float) -> None:
    """Wait until a host has no lease of a job any more.

    Raises:
        TransientError: The time is over. It can't be forced from here.
    """
    while jobs.lease_path(name).exists():
        if time.monotonic() >= deadline:
            raise TransientError(f"the host {host} still cleans up after the job {name}")
        time.sleep(POLL_SECONDS)


def _see_to_objects(context: _KillContext, stopped: _Stopped) -> tuple[CleanUpReport, ClouduploaderError | None]:
    """Say what the uploader removed and left in the cloud; forced, remove that too."""
    left = _objects(context, stopped.job)
    removed = tuple(thing for thing in stopped.objects if thing not in left)
    reading = resume.journal_of(context.jobs, stopped.job, context.config.state.value)
    is_open = reading is not None and reading.state.is_open and not reading.is_live
    if context.options.is_forced and reading and is_open:
        _remove_work_dir(reading)
    if not context.options.is_forced or not (left or is_open):
        reason = "the uploader did not remove it"
        return CleanUpReport(removed, tuple(Leftover(thing, reason) for thing in left)), None
    try:
        ours = _clean_up(context, stopped, left, reading if is_open else None)
    except ClouduploaderError as exc:
        return CleanUpReport(removed, tuple(Leftover(thing, exc.message) for thing in left)), exc
    return CleanUpReport((*removed, *ours.removed), ours.left), None


def _remove_work_dir(reading: journal.JournalContents) -> None:
    """Remove the private directory of an upload that was killed: there are keys in it."""
    path = Path(str((reading.state.began or {}).get("work_dir", "")))
    with contextlib.suppress(OSError):
        workspace.remove_dead(path, owner=reading.directory.stat().st_uid)


def _objects(context: _KillContext, job: Job) -> tuple[CloudObject, ...]:
    """Return what the job's log, and the journal of its upload, say there is in the cloud."""
    log = jobs_log.open_log(context.jobs, job.name)
    if log is None:
        return ()
    with log:
        reading = jobs_log.read_back(log)
    found = journal.read(context.config.state.value, reading.journal_key) if reading.journal_key else None
    return tuple(dict.fromkeys((*reading.objects, *(found.state.objects if found else ()))))


def _clean_up(
    context: _KillContext, stopped: _Stopped, objects: Sequence[CloudObject], reading: journal.JournalContents | None
) -> CleanUpReport:
    """Remove objects as the job's platform does it, and tell of it in the job's log.

    Args:
        context: See _KillContext.
        stopped: The job.
        objects: What is known to be left.
        reading: Its journal, if something more may be left.
    """
    if isinstance(stopped.targetdata, ClouduploaderError):
        raise stopped.targetdata
    job, config = stopped.job, context.config
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(context.jobs.append_archived_log(job.name))
        log = job_log.JobLog([file, *context.sinks], is_verbose=False, has_times=True)
        platform = context.load_platform(job.target or "", config)
        values = cleanup.CleanupContext(config, log).values(stopped.targetdata, platform)
        is_by_hand = reading.state.is_by_hand if reading else context.jobs.file_path(job.name).is_symlink()
        if reading is None:
            return cleanup.remove_things(platform, values, objects, {}, log, key="", is_by_hand=is_by_hand)
        opened = stack.enter_context(journal.open_journal(reading.directory.parent, reading.key))
        stack.enter_context(log.listening(JournalWriter(opened, log).take))
        items = cleanup.examine(platform, values, reading, log, is_complete_too=True, is_by_hand=is_by_hand)
        to_remove = dict.fromkeys((*objects, *(item.object for item in items if item.keep_reason is None)))
        cleanup.adopt(opened, items)
        made = opened.state().objects
        report = cleanup.remove_things(
            platform, values, list(to_remove), made, log, key=reading.key, is_by_hand=is_by_hand
        )
        left = (*report.left, *cleanup.unseen(items))
        if not left:
            opened.end(journal.AttemptOutcome.CLEANED)
        return CleanUpReport(report.removed, left)
