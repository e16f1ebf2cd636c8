"""What every worker of a spool does, however its jobs are started: recover, end and clean up after uploads.

One thread that sleeps until something happens: a record changes (inotify), a byte comes in OBS's fifo, a process ends
(pidfds), a request comes (WorkerControl), or a time is reached. All that it knows is in the spool: a worker that was
killed is replaced by one that reads the same.
"""

import abc
import contextlib
import dataclasses
import math
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from clouduploader.errors import ClouduploaderError, LockedError, NoSuchJobError
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.store.config import Config
from clouduploader.util import inotify, processes
from clouduploader.worker import cleanup, events, lock, outcome, queue, settings, tracked
from clouduploader.worker.control import WorkerControl
from clouduploader.worker.events import UploadEnd, WorkerEvent, WorkerEventKind
from clouduploader.worker.settings import WorkerSettings

LOCK_SECONDS = 1.0  # a job whose lock takes longer is tried again later, so that the others need not wait for it
RETRY_SECONDS = 5.0  # until a job is tried again that could not be started or ended, or whose start came to nothing
RESCAN_SECONDS = 60.0  # between looks at all records, whatever inotify reported: network file systems report nothing
PING_SECONDS = 1.0  # the same after a byte in the fifo: with thousands of records a look takes its time
FIFO_BYTES = 65_536  # what a pipe holds (pipe(7))


class SpoolWorker(abc.ABC):
    """The worker of one spool; a subclass says how jobs are started.

    Args:
        config: See Config.
        read_settings: Reads the settings; called at the start, and again when asked to.
        control: See WorkerControl.
        on_event: Called with each event.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: A program is not there.
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
        self._load()
        self._queue = queue.JobQueue(self._jobs, self._tell_trouble)
        self._uploads: dict[str, tracked.TrackedUpload] = {}
        self._cleanups = cleanup.Cleanups(
            self._jobs,
            self._own_program,
            environment=lambda: self._environment,
            tell=self._tell_cleaned,
            complain=self._tell_trouble,
        )
        self._reported_troubles: dict[str | None, str] = {}
        self._retry_at: dict[str, float] = {}
        self._gone: set[str] = set()
        self._rescanned = -math.inf  # when all records were looked at, and when they will be again
        self._rescan = time.monotonic() + RESCAN_SECONDS

    def run(self) -> None:
        """Work until `control` asks to leave. Blocks.

        Raises:
            LockedError: Another worker works on the spool.
            MissingFileError: There is no spool, or it was removed.
            CannotCreateError, LocalIOError: It can't be worked on.
        """
        with (
            lock.acquire(self._jobs, self._settings.obs_lock) as worker_lock,
            contextlib.closing(inotify.DirectoryWatch(self._jobs.directory)) as changes,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(self._close)
            self._queue.refresh(None)
            self._find_orphans()
            self._begin()
            self._find_pending_cleanups()
            self._tell(WorkerEventKind.READY, None, f"at {self._jobs.directory}, uploads by {self._uploaders()}")
            while True:
                self._act()
                if self._control.is_leaving or (self._control.is_draining and not self._running()):
                    break
                self._sleep(changes, worker_lock)
            names = ", ".join(sorted(self._running(), key=int))
            self._tell(WorkerEventKind.LEFT, None, f"these uploads go on: {names}" if names else "no upload runs")

    @abc.abstractmethod
    def _uploaders(self) -> str:
        """Return what does the uploads, for the log."""

    @abc.abstractmethod
    def _start_jobs(self) -> None:
        """Start what may be started, as much as the limits allow."""

    @abc.abstractmethod
    def _take(self, found: WorkerSettings, environment: Mapping[str, str]) -> None:
        """Take new settings.

        Args:
            found: The settings.
            environment: Of uploads.

        Raises:
            ClouduploaderError: They can't be used; the old ones stay.
        """

    @abc.abstractmethod
    def _begin(self) -> None:
        """Find the leases of hosts of a cluster that an earlier server gave."""

    @abc.abstractmethod
    def _is_elsewhere(self, name: str) -> bool:
        """Return whether a host of a cluster may work on a job, so that there is nothing to clean up yet."""

    def _is_leased(self, name: str) -> bool:
        """Return whether a lease decides what becomes of a job, so that there is nothing to recover."""
        return self._is_elsewhere(name)

    def _running(self) -> list[str]:
        """Return the jobs that are being uploaded."""
        return list(self._uploads)

    def _descriptors(self) -> Iterator[int]:
        """Yield the descriptors that can be read once something has happened."""
        yield self._control.fileno()
        for upload in self._uploads.values():
            yield from upload.pidfds.descriptors()
        yield from self._cleanups.descriptors()

    def _sleep(self, changes: inotify.DirectoryWatch, worker_lock: lock.WorkerLock) -> None:
        """Wait until something happens, and refresh the queue."""
        poll = select.poll()
        fifos = () if worker_lock.fifo is None else (worker_lock.fifo,)
        for descriptor in (changes.fileno(), *fifos, *self._descriptors()):
            poll.register(descriptor, select.POLLIN)
        has_one_ended = any(upload.has_ended() for upload in self._uploads.values())  # before it was registered
        wait = 0.0 if has_one_ended else min(self._times()) - time.monotonic()
        poll.poll(math.ceil(1000 * max(0.0, wait)))
        if self._control.take_reload():
            self._reload()
        names = changes.changed()
        now = time.monotonic()
        if _is_pinged(worker_lock.fifo):
            self._rescan = min(self._rescan, self._rescanned + PING_SECONDS)
        if now >= self._rescan:
            worker_lock.check()
            self._rescanned, self._rescan = now, now + RESCAN_SECONDS
            names = None  # all of them
        self._refresh(names)

    def _refresh(self, names: Iterable[str] | None) -> None:
        """Take note of files of the spool that changed; None if any may have."""
        self._queue.refresh(names)

    def _times(self) -> Iterator[float]:
        """Yield when there is something to do even if nothing happens, by the monotonic clock."""
        yield self._rescan
        yield from self._retry_at.values()
        yield from self._cleanups.times()
        for upload in self._uploads.values():
            if upload.escalation is not None and not upload.was_forced:
                yield upload.escalation
        now = time.monotonic()
        yield from (due for record in self._queue.waiting() if (due := record.due(self._settings)) > now)

    def _act(self) -> None:
        """Do all that can be done now."""
        now = time.monotonic()
        self._retry_at = {name: due for name, due in self._retry_at.items() if due > now}
        self._handle_ends()
        self._handle_kills()
        self._gone |= self._queue.take_gone()
        self._attempt_all(self._gone, self._see_to_gone)
        self._cleanups.start_due()
        for name in self._queue.uploading():
            if name not in self._uploads and name not in self._retry_at and not self._is_leased(name):
                self._attempt(name, self._recover)
        if not (self._control.is_draining or self._control.is_leaving):
            self._start_jobs()

    def _attempt_all(self, names: set[str], act: Callable[[str], None]) -> None:
        """Do something to some jobs; those to which it can't be done now stay in the set."""
        for name in names - self._retry_at.keys():
            names.discard(name)  # first: another thread may put it in again
            if not self._attempt(name, act):
                names.add(name)

    def _attempt(self, name: str, act: Callable[[str], None]) -> bool:
        """Do something to a job; return False if it can't be done now, but may be after RETRY_SECONDS."""
        try:
            act(name)
        except NoSuchJobError:
            pass  # archived meanwhile
        except ClouduploaderError as exc:
            self._retry_at[name] = time.monotonic() + RETRY_SECONDS
            self._tell_trouble(name, exc.message)
            return False
        self._reported_troubles.pop(name, None)
        self._queue.refresh([name])
        return True

    def _recover(self, name: str) -> None:
        """Adopt an upload that an earlier worker has started, or end one whose processes are gone."""
        with self._jobs.lock(name) as locked:
            job = locked.job
            if job.state is not JobState.UPLOADING:
                return
            is_by_hand = self._jobs.file_path(name).is_symlink()
            if is_by_hand and not outcome.has_ended(self._jobs, job, self._config.state.value):
                return  # its user can `resume` it
            upload = tracked.track_adopted(self._jobs, job)
            if upload:
                self._uploads[name] = upload
                self._tell(WorkerEventKind.ADOPTED, name, f"user {job.user}, target {job.target}, process {job.pid}")
            elif processes.is_locked(self._jobs.log_path(name)):  # hidepid of proc(5)
                raise LockedError(f"a process that can't be seen holds the log of the job {name}")
            elif self._jobs.prepared_dir(name).exists():
                locked.replace(dataclasses.replace(job, state=JobState.SCHEDULED, details=None, pid=None))
                self._retry_at[name] = time.monotonic() + RETRY_SECONDS  # what killed its supervisor may do so again
                self._tell(WorkerEventKind.RESCHEDULED, name, "its upload had not begun")
            else:
                job = outcome.record_interrupted(self._jobs, locked, self._config.state.value)
                self._tell(events.end_kind(job), name, job.details or "", UploadEnd(exit_code=None, seconds=None))
                self._clean_up(job)

    def _handle_ends(self) -> None:
        for name in [name for name, upload in self._uploads.items() if upload.has_ended()]:
            self._attempt(name, self._handle_end)
        self._cleanups.handle_ends()

    def _handle_end(self, name: str) -> None:
        """Report how an upload ended: as its supervisor, or the process that killed it, has recorded."""
        upload = self._uploads.pop(name)
        upload.close()
        job, is_archived = self._jobs.read(name)
        if job.state is JobState.UPLOADING and not is_archived:
            return  # its supervisor did not get to that; `_recover` does
        self._tell(events.end_kind(job), name, job.details or "", upload.end())
        self._clean_up(job)

    def _handle_kills(self) -> None:
        """Kill what is left of killed jobs: their processes got SIGTERM, and have some time to clean up."""
        now = time.monotonic()
        uploading = set(self._queue.uploading())
        for name, upload in self._uploads.items():
            if name in uploading:
                continue
            if upload.escalation is None:
                if self._jobs.is_archived(name):  # else its record can't be read now, or the spool is gone
                    upload.escalation = now + self._settings.kill_grace_seconds
            elif upload.escalation <= now and not upload.was_forced:
                self._jobs.mark_cleanup_pending(name)
                try:
                    tracked.force(self._jobs, upload)
                except ClouduploaderError as exc:
                    upload.escalation = now + RETRY_SECONDS
                    self._tell_trouble(name, exc.message)
                else:
                    self._tell(WorkerEventKind.FORCED, name, "its processes were still there when their time was over")

    def _see_to_gone(self, name: str) -> None:
        """Clean up after a job that was killed while it waited for another try, or another host."""
        job, is_archived = self._jobs.read(name)
        if is_archived and name not in self._uploads and not self._is_elsewhere(name):
            outcome.mark_leftovers(self._jobs, name, self._config.state.value)
            self._clean_up(job)

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
                    self._uploads[name] = tracked.track_orphaned(job, found)
                    self._tell(WorkerEventKind.ADOPTED, name, f"was killed, but process {pid} is still there")

    def _find_pending_cleanups(self) -> None:
        """Find clean-ups that an earlier worker did not start, or that left something."""
        for name in self._jobs.pending_cleanups():
            try:
                job, is_archived = self._jobs.read(name)
            except NoSuchJobError:
                self._jobs.clear_cleanup_pending(name)  # its record was pruned
            except ClouduploaderError as exc:
                self._tell_trouble(name, exc.message)
                self._gone.add(name)
            else:
                if is_archived and name not in self._uploads and not self._is_elsewhere(name):
                    self._clean_up(job)

    def _clean_up(self, job: Job) -> None:
        """Queue the clean-up after an upload if one is pending: without its image it can't be resumed."""
        if self._jobs.is_cleanup_pending(job.name):
            self._cleanups.add(job)

    def _load(self) -> None:
        found = self._read_settings()
        environment = settings.upload_environment(self._config, found)
        self._take(found, environment)
        self._settings, self._environment = found, environment

    def _reload(self) -> None:
        try:
            self._load()
        except ClouduploaderError as exc:
            self._tell(WorkerEventKind.SETTINGS, None, f"the old ones stay: {exc.message}")
        else:
            self._tell(WorkerEventKind.SETTINGS, None, "were read again")

    def _tell(self, kind: WorkerEventKind, name: str | None, text: str, end: UploadEnd | None = None) -> None:
        self._on_event(WorkerEvent(kind, name, text, end))

    def _tell_trouble(self, name: str | None, text: str) -> None:
        if self._reported_troubles.get(name) != text:
            self._reported_troubles[name] = text
            self._tell(WorkerEventKind.TROUBLE, name, text)

    def _tell_cleaned(self, name: str, code: int) -> None:
        self._tell(WorkerEventKind.CLEANED, name, f"the clean-up in the cloud ended with {code}")

    def _close(self) -> None:
        """Close all descriptors; uploads and clean-ups go on."""
        for upload in self._uploads.values():
            upload.close()
        self._cleanups.close()


def _is_pinged(fifo: int | None) -> bool:
    """Empty OBS's fifo; return whether something was in it."""
    if fifo is None:
        return False
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(fifo, FIFO_BYTES))
    return False
