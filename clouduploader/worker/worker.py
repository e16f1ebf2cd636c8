"""The worker: starts uploads, sees their ends, and looks after those that nobody else does.

One thread that sleeps until something happens: a record changes (inotify), a byte comes in OBS's fifo, a process ends
(pidfds), somebody asks for something (Control), or a time has come. It keeps nothing that the spool does not hold: a
worker that was killed is replaced by one that reads the same.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import resource
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator

from clouduploader.errors import ClouduploaderError, ExitCode, LockedError, NoSuchJobError
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store import spool
from clouduploader.store.config import Config
from clouduploader.util import inotify, privileges, processes
from clouduploader.worker import cleanup, launcher, lock, outcome, queue, settings, tracked
from clouduploader.worker.control import WorkerControl
from clouduploader.worker.events import UploadEnd, WorkerEvent, WorkerEventKind
from clouduploader.worker.settings import WorkerSettings

LOCK_SECONDS = 1.0  # a job whose lock takes longer is come back to; the others need not wait for it
AGAIN_SECONDS = 5.0  # until a job is come back to that could not be started or ended, or whose start came to nothing
RESCAN_SECONDS = 60.0  # all records are looked at, whatever inotify told: network file systems tell nothing
PING_SECONDS = 1.0  # they are at a byte in the fifo, but no more often: with thousands that takes its time
FIFO_BYTES = 65_536  # what a pipe holds (pipe(7))
END_KINDS = {
    JobState.WAITING: WorkerEventKind.WAITING,
    JobState.SUCCEEDED: WorkerEventKind.SUCCEEDED,
    JobState.FAILED: WorkerEventKind.FAILED,
}


class Worker:
    """The worker of one spool.

    Args:
        config: See Config.
        read_settings: Reads the settings; called at the start, and again when asked to.
        control: See Control.
        on_event: Told what happens, in the thread of `run`.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: There is no uploader.
    """

    def __init__(
        self,
        config: Config,
        *,
        read_settings: Callable[[], WorkerSettings],
        control: WorkerControl,
        on_event: Callable[[WorkerEvent], None],
    ) -> None:
        self._config = config
        self._jobs = spool.Spool(config.spool.value, lock_timeout_seconds=LOCK_SECONDS)
        self._read_settings = read_settings
        self._control = control
        self._on_event = on_event
        self._own_program = settings.find_program(settings.PROGRAM, config.environment)
        self._descriptor_limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._means = self._read_means()
        self._queue = queue.JobQueue(self._jobs, self._tell_trouble)
        self._uploads: dict[str, tracked.TrackedUpload] = {}
        self._cleanings: list[cleanup.CleanupRunner] = []
        self._debts: dict[str, cleanup.PendingCleanup] = {}  # clean-ups that do not run yet
        self._troubles: dict[str, str] = {}
        self._again: dict[str, float] = {}
        self._rescanned = -math.inf  # when all records were looked at, and when they will be again
        self._rescan = time.monotonic() + RESCAN_SECONDS

    def run(self) -> None:
        """Work, until Control says that it is enough.

        Raises:
            LockedError: Another worker works on the spool.
            MissingFileError: There is no spool, or it was removed.
            CannotCreateError, LocalIOError: It can't be worked on.
        """
        obs_lock = self._means.settings.obs_lock
        with (
            lock.held(self._jobs, obs_lock) as hold,
            contextlib.closing(inotify.DirectoryWatch(self._jobs.directory)) as changes,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(self._close)
            self._queue.refresh(None)
            self._find_orphans()
            self._find_debts()
            self._tell(WorkerEventKind.READY, None, f"at {self._jobs.directory}, {self._means.program} at its service")
            while True:
                self._look_after()
                if self._control.is_leaving or (self._control.is_draining and not self._uploads):
                    break
                self._sleep(changes, hold)
            names = ", ".join(sorted(self._uploads, key=int))
            self._tell(WorkerEventKind.LEFT, None, f"these uploads go on: {names}" if names else "no upload runs")

    def _sleep(self, changes: inotify.DirectoryWatch, hold: lock.WorkerLock) -> None:
        """Wait until something happens, and take note of it."""
        poll = select.poll()
        living = [upload.held.descriptors() for upload in self._uploads.values()]
        for descriptor in (
            changes.fileno(),
            self._control.fileno(),
            *(() if hold.fifo is None else (hold.fifo,)),
            *itertools.chain.from_iterable(living),
            *(item.descriptor for item in self._cleanings),
        ):
            poll.register(descriptor, select.POLLIN)
        wait = min(self._times()) - time.monotonic() if all(living) else 0.0  # or one has just ended
        poll.poll(math.ceil(1000 * max(0.0, wait)))
        if self._control.take():
            self._reload()
        names = changes.changed()
        now = time.monotonic()
        if _is_pinged(hold.fifo):
            self._rescan = min(self._rescan, self._rescanned + PING_SECONDS)
        if now >= self._rescan:
            hold.check()
            self._rescanned, self._rescan = now, now + RESCAN_SECONDS
            names = None  # all of them
        self._queue.refresh(names)

    def _times(self) -> Iterator[float]:
        """When there is something to do even if nothing happens, by the monotonic clock."""
        yield self._rescan
        yield from self._again.values()
        if len(self._cleanings) < cleanup.MAX_AT_ONCE:
            yield from (debt.due for debt in self._debts.values())
        for upload in self._uploads.values():
            if upload.escalation is not None and not upload.was_forced:
                yield upload.escalation
        now = time.monotonic()
        yield from (due for record in self._queue.waiting() if (due := record.due(self._means.settings)) > now)

    def _look_after(self) -> None:
        now = time.monotonic()
        self._again = {name: due for name, due in self._again.items() if due > now}
        self._see_ends()
        self._see_kills()
        self._start_clean_ups()
        for name in self._queue.uploading():
            if name not in self._uploads and name not in self._again:
                self._attempt(name, self._recover)
        if not (self._control.is_draining or self._control.is_leaving):
            self._start_all()

    def _start_all(self) -> None:
        """Start what may be started: the oldest first, as many as there is room for."""
        limits, now = self._means.settings, time.monotonic()
        if len(self._uploads) >= limits.max_jobs:
            return  # without a look at the queue
        users = Counter(upload.job.user for upload in self._uploads.values())
        for record in self._queue.startable(lambda user: users[user] >= limits.max_jobs_per_user):
            if len(self._uploads) >= limits.max_jobs:
                break
            name = record.job.name
            if name not in self._uploads and name not in self._again and record.due(limits) <= now:
                self._attempt(name, self._start)
                users[record.job.user] += name in self._uploads

    def _attempt(self, name: str, act: Callable[[str], None]) -> None:
        """Do something to a job; if it can't be done now, come back to it."""
        try:
            act(name)
        except NoSuchJobError:
            pass  # archived meanwhile
        except ClouduploaderError as exc:
            self._again[name] = time.monotonic() + AGAIN_SECONDS
            self._tell_trouble(name, exc.message)
            return
        self._troubles.pop(name, None)
        self._queue.refresh([name])

    def _start(self, name: str) -> None:
        job = launcher.start(self._means, name)
        if job is None:
            return
        if job.state is JobState.UPLOADING:
            self._uploads[name] = tracked.started(job)
            tried = f", try {job.try_}" if job.try_ else ""
            self._tell(WorkerEventKind.STARTED, name, f"user {job.user}, target {job.target}, process {job.pid}{tried}")
        else:
            self._tell(WorkerEventKind.FAILED, name, job.details or "")

    def _recover(self, name: str) -> None:
        """See to a job that somebody works on, but not for us: an upload of an earlier worker, or of nobody."""
        with self._jobs.lock(name) as locked:
            job = locked.job
            if job.state is not JobState.UPLOADING:
                return
            is_by_hand = self._jobs.file_path(name).is_symlink()
            if is_by_hand and not outcome.has_ended(self._jobs, job, self._config.state.value):
                return  # who uploads it can `resume` it
            upload = tracked.adopted(self._jobs, job)
            if upload:
                self._uploads[name] = upload
                self._tell(WorkerEventKind.ADOPTED, name, f"user {job.user}, target {job.target}, process {job.pid}")
            elif processes.is_locked(self._jobs.log_path(name)):  # hidepid of proc(5)
                raise LockedError(f"somebody who can't be seen holds the log of the job {name}")
            elif self._jobs.prepared_dir(name).exists():
                locked.replace(dataclasses.replace(job, state=JobState.SCHEDULED, details=None, pid=None))
                self._again[name] = time.monotonic() + AGAIN_SECONDS  # what ended its supervisor may end the next one
                self._tell(WorkerEventKind.RESCHEDULED, name, "its upload had not begun")
            else:
                job = outcome.record_interrupted(self._jobs, locked, self._config.state.value)
                self._tell(END_KINDS[job.state], name, job.details or "", UploadEnd(exit_code=None, seconds=None))
                self._clean_up(job)

    def _see_ends(self) -> None:
        for name in [name for name, upload in self._uploads.items() if upload.has_ended()]:
            self._attempt(name, self._see_end)
        for done in list(self._cleanings):
            code = done.exit_code()
            if code is not None:
                name = done.debt.job.name
                self._cleanings.remove(done)
                if code == ExitCode.OK:
                    self._jobs.clear_cleanup_pending(name)
                else:  # something is left
                    done.debt.put_off(time.monotonic())
                    self._debts[name] = done.debt
                self._tell(WorkerEventKind.CLEANED, name, f"the clean-up in the cloud ended with {code}")

    def _see_end(self, name: str) -> None:
        """Tell how an upload ended: as its supervisor, or whoever killed it, has written."""
        upload = self._uploads.pop(name)
        upload.close()
        job, is_archived = self._jobs.read(name)
        if job.state is JobState.UPLOADING and not is_archived:
            return  # its supervisor did not get to that; `_recover` does
        kind = (
            WorkerEventKind.KILLED
            if job.details == Details.KILLED
            else END_KINDS.get(job.state, WorkerEventKind.RESCHEDULED)
        )
        self._tell(kind, name, job.details or "", upload.end())
        self._clean_up(job)

    def _see_kills(self) -> None:
        """Who killed a job has told its processes, and archived it; they may clean up, but not for ever."""
        now = time.monotonic()
        uploading = set(self._queue.uploading())
        for name, upload in self._uploads.items():
            if name in uploading:
                continue
            if upload.escalation is None:
                if self._jobs.is_archived(name):  # else its record can't be read now, or the spool is gone
                    upload.escalation = now + self._means.settings.kill_grace_seconds
            elif upload.escalation <= now and not upload.was_forced:
                self._jobs.mark_cleanup_pending(name)
                try:
                    tracked.force(self._jobs, upload)
                except ClouduploaderError as exc:
                    upload.escalation = now + AGAIN_SECONDS
                    self._tell_trouble(name, exc.message)
                else:
                    self._tell(WorkerEventKind.FORCED, name, "its processes were still there when their time was over")

    def _find_orphans(self) -> None:
        """Find uploads that were killed while there was no worker, and have not ended."""
        there = set(self._queue.uploading())
        for name, pid in tracked.supervisors(self._jobs).items():
            found = processes.find(pid)
            if name in there or found is None:
                continue
            with contextlib.suppress(ClouduploaderError):
                job, is_archived = self._jobs.read(name)
                if is_archived:
                    self._uploads[name] = tracked.orphaned(job, found)
                    self._tell(WorkerEventKind.ADOPTED, name, f"was killed, but process {pid} is still there")

    def _find_debts(self) -> None:
        """Clean up where an earlier worker did not get to that, or could not remove everything."""
        for name in self._jobs.pending_cleanups():
            try:
                job, is_archived = self._jobs.read(name)
            except NoSuchJobError:
                self._jobs.clear_cleanup_pending(name)  # too old by now
            except ClouduploaderError as exc:
                self._tell_trouble(name, exc.message)
            else:
                if is_archived and name not in self._uploads:
                    self._clean_up(job)

    def _clean_up(self, job: Job) -> None:
        """If that is due, remove what a dead upload left in the cloud: without its image, nobody can go on with it."""
        if self._jobs.is_cleanup_pending(job.name):
            self._debts[job.name] = cleanup.PendingCleanup(job, time.monotonic())

    def _start_clean_ups(self) -> None:
        """Start those that are due, the oldest first, as many as may run at once."""
        now = time.monotonic()
        for debt in sorted(self._debts.values(), key=lambda debt: debt.due):
            if debt.due > now or len(self._cleanings) >= cleanup.MAX_AT_ONCE:
                break
            name = debt.job.name
            try:
                started = cleanup.start(
                    self._jobs, debt, program=self._own_program, environment=self._means.environment
                )
            except ClouduploaderError as exc:
                debt.put_off(now)
                self._tell_trouble(name, exc.message)
            else:
                self._cleanings.append(started)
                del self._debts[name]

    def _read_means(self) -> launcher.LaunchConfig:
        found = self._read_settings()
        environment = settings.environment_of(self._config, found)
        if found.program != settings.PROGRAM:
            privileges.check_program(self._config.path, found.program)
        program = settings.find_program(found.program, self._config.environment)
        return launcher.LaunchConfig(
            jobs=self._jobs,
            settings=found,
            program=program,
            environment=environment,
            descriptor_limits=self._descriptor_limits,
        )

    def _reload(self) -> None:
        try:
            self._means = self._read_means()
        except ClouduploaderError as exc:
            self._tell(WorkerEventKind.SETTINGS, None, f"the old ones stay: {exc.message}")
        else:
            self._tell(WorkerEventKind.SETTINGS, None, "were read again")

    def _tell(self, kind: WorkerEventKind, name: str | None, text: str, end: UploadEnd | None = None) -> None:
        self._on_event(WorkerEvent(kind, name, text, end))

    def _tell_trouble(self, name: str, text: str) -> None:
        if self._troubles.get(name) != text:
            self._troubles[name] = text
            self._tell(WorkerEventKind.TROUBLE, name, text)

    def _close(self) -> None:
        """Let go of all; uploads and clean-ups go on."""
        for upload in self._uploads.values():
            upload.close()
        for item in self._cleanings:
            item.close()


def _is_pinged(fifo: int | None) -> bool:
    """Whether somebody has written to OBS's fifo; empties it."""
    if fifo is None:
        return False
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(fifo, FIFO_BYTES))
    return False
