"""Leases: which host has which job, as long as its beats arrive. All that decides it is here, and in the spool.

Each publication of a job is an attempt with a number of its own. A host claims an attempt with an id that it has made
up for that; from then on all that it sends of the job must have the number and the id of the newest claim. What comes
from an older one is refused, and its host ends its uploader. So two hosts may work on one job for some seconds, but
what one of them does counts for nothing.

Times are measured by a clock of this machine that is never set; hosts' clocks don't matter. A new server gives each
lease that it finds its full time once more.
"""

import contextlib
import dataclasses
import hashlib
import hmac
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from clouduploader.cluster import protocol
from clouduploader.cluster.dispatch import intake
from clouduploader.cluster.dispatch.digests import ImageDigest
from clouduploader.cluster.dispatch.hosts import check_name
from clouduploader.cluster.dispatch.intake import Intake
from clouduploader.cluster.dispatch.job_states import JobStates
from clouduploader.cluster.settings import DEFAULT_QUEUE, ClusterSettings
from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    JobFileError,
    JobStateError,
    LocalIOError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
    TransientError,
)
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import JsonValue
from clouduploader.store import job_log, spool, target_data
from clouduploader.store.config import Config
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState
from clouduploader.uploads import target
from clouduploader.uploads.prepare import targetdata_to_keep
from clouduploader.uploads.target import OpenedTarget
from clouduploader.uploads.task import UploadTask
from clouduploader.util import files, privileges, processes
from clouduploader.util.frozen import frozen
from clouduploader.worker import events, launcher, queue
from clouduploader.worker.events import UploadEnd, WorkerEvent, WorkerEventKind
from clouduploader.worker.settings import WorkerSettings

BUSY_SECONDS = 1.0  # by how much a lease is longer whose end comes while a request of its host is being answered
RELEASE_SECONDS = (
    5.0  # until a job is published again that a host gave back: what that one lacks, the next may lack too
)
REFUSED_SECONDS = 1.0  # the same for one that a host may not have, which takes messages until it greets again
LOST_CODE = -9  # as that of an uploader that SIGKILL has ended, which is what its host does
MAX_REASON_CHARS = 500  # of why a host gave a job back
MAX_PAST = 8  # attempts of a job whose hosts may still send lines of their logs


class StaleError(JobStateError):
    """A host has no lease for the attempt that it speaks of."""


@frozen(kw_only=True)
class Claim:
    """What a host claims.

    Attributes:
        attempt: The number of the attempt.
        id: Made up by the host for this claim, and not to be guessed.
        host: Its name.
        protocol: Which version of it the host speaks.
    """

    attempt: int
    id: str = dataclasses.field(repr=False)
    host: str
    protocol: int


@frozen(kw_only=True)
class ClaimAnswer:
    """What a host gets for a claim.

    Attributes:
        job: Its record.
        values: The target data, decrypted.
        secrets: What must not be shown of it.
        image_bytes: How large the image is.
        sha256: Of the image, in hexadecimal digits.
        lease_seconds: How long the host has the job after each beat.
        beat_seconds: How long the answer to a beat may take.
        key: Of the journal.
        files: How large the files of the journal are, by their names.
    """

    job: Job
    values: Mapping[str, JsonValue] = dataclasses.field(repr=False)
    secrets: tuple[str, ...] = dataclasses.field(repr=False)
    image_bytes: int
    sha256: str
    lease_seconds: int
    beat_seconds: int
    key: str
    files: Mapping[str, int]


@frozen(kw_only=True)
class Beating:
    """A beat that waits for its answer.

    Attributes:
        is_stopping: Returns whether the host is to stop; raises StaleError without a lease.
        seconds: How long it may wait, as its host was told.
    """

    is_stopping: Callable[[], bool]
    seconds: int


@frozen(kw_only=True)
class LeaseView:
    """A lease as others see it.

    Attributes:
        job: The job's name.
        user: Whose it is.
        attempt: See `LeaseRecord`, like `state`, `queue`, `host`, `since` and `takeovers`.
        state: See `LeaseRecord`.
        queue: See `LeaseRecord`.
        host: See `LeaseRecord`.
        since: See `LeaseRecord`.
        takeovers: See `LeaseRecord`.
        until: When it is over unless a beat comes, in s since the epoch; of a free one, when the job may be published.
    """

    job: str
    user: str | None
    attempt: int
    state: LeaseState
    queue: str
    host: str | None
    since: float
    takeovers: int
    until: float


class _Lease:
    """A lease in memory. What is not under the lock of `Leases` is under `work`, which is held while files change."""

    def __init__(self, record: LeaseRecord, until: float, user: str | None) -> None:
        self.work = threading.Lock()
        self.record = record
        self.until = until
        self.user = user
        self.intake: Intake | None = None
        self.began: float | None = None  # by the clock; None if another process gave the lease
        self.progress: int | None = None
        self.is_stopping = False
        self.is_lost = False  # its time is over, though the record may not say so yet
        self.is_over = False
        self.watchers: set[Callable[[], None]] = set()
        self.past: dict[str, tuple[LeaseRecord, int]] = {}  # by their claims, with how much of their logs still fits

    def is_held(self, attempt: int, digest: str) -> bool:
        """Return whether the host has it that claimed an attempt by the claim with this digest."""
        record = self.record
        is_same = hmac.compare_digest(record.claim or "", digest) and record.attempt == attempt
        return is_same and record.state is LeaseState.CLAIMED and not self.is_lost


class Leases:
    """The leases of one spool. Any thread may call the methods.

    All may block but `view`, `held`, `seconds_left`, and those that say so.

    Args:
        jobs: The spool.
        config: For targets and journals.
        cluster: Returns the settings of the cluster.
        worker: Returns those of the worker.
        on_event: Called with each event, in any thread.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        jobs: spool.Spool,
        config: Config,
        *,
        cluster: Callable[[], ClusterSettings],
        worker: Callable[[], WorkerSettings],
        on_event: Callable[[WorkerEvent], None],
        clock: Callable[[], float] = processes.seconds_since_boot,
    ) -> None:
        self._jobs = jobs
        self._config = config
        self._cluster = cluster
        self._states = JobStates(jobs, config.state.value, worker)
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, _Lease] = {}
        self._is_closing = False

    # --- for the dispatcher

    def load(self) -> None:
        """Find the leases that an earlier server gave, before the first request is answered.

        What can't be written of one is told, and done once its time is over.
        """
        for name in self._jobs.leased_names():
            try:
                self._load(name)
            except ClouduploaderError as exc:
                self._tell(WorkerEventKind.TROUBLE, name, exc.message)

    def _load(self, name: str) -> None:
        now, settings = self._clock(), self._cluster()
        user, is_archived = None, False
        try:
            job, is_archived = self._jobs.read(name)
            user = job.user
        except LocalIOError as exc:
            self._tell(WorkerEventKind.TROUBLE, name, exc.message)
        except NoSuchJobError:
            leases.remove(self._jobs, name)
            return
        except JobFileError:
            leases.remove(self._jobs, name)
            raise
        try:
            record = leases.read(self._jobs, name)
        except (JobFileError, LocalIOError) as exc:
            self._tell(WorkerEventKind.TROUBLE, name, exc.message)
            record = dataclasses.replace(_first(DEFAULT_QUEUE), state=LeaseState.PUBLISHED)
            seconds = settings.lease_seconds  # a host may work on it, which is refused; the next attempt is the first
        else:
            if record is None:
                return
            seconds = settings.publish_seconds if record.state is LeaseState.PUBLISHED else record.seconds
        if is_archived and record.state is not LeaseState.CLAIMED:
            self._states.mark_leftovers(name)
            leases.remove(self._jobs, name)
            return
        lease = self._leases[name] = _Lease(record, now + seconds, user)
        if record.state is LeaseState.CLAIMED:
            lease.is_stopping = is_archived
            self._adopt(name, lease)
        elif record.state is LeaseState.FREE:  # an earlier server may have died while it recorded that no host has it
            lease.record, lease.until = dataclasses.replace(record, state=LeaseState.PUBLISHED), now
            self._states.reschedule(name)
            lease.record = record

    def close(self) -> None:
        """Let all beats be answered, and release the logs and journals; hosts go on, and find the next server."""
        with self._lock:
            self._is_closing = True
            held = list(self._leases.values())
            for lease in held:
                _wake(lease)
        for lease in held:
            with lease.work:
                _release(lease)

    def view(self, name: str) -> LeaseView | None:
        """Return the lease of a job; None if it never had one, or is over."""
        with self._lock:
            lease = self._leases.get(name)
            return None if lease is None else self._viewed(name, lease)

    def held(self) -> list[LeaseView]:
        """Return all leases, by their jobs' numbers."""
        with self._lock:
            return [self._viewed(name, self._leases[name]) for name in sorted(self._leases, key=int)]

    def seconds_left(self) -> float:
        """Return how many seconds there are until the next lease is over, or a free job may be published."""
        with self._lock:
            now = self._clock()
            return min((lease.until - now for lease in self._leases.values() if lease.until > now), default=math.inf)

    def publish(self, name: str, queue_name: str, image: ImageDigest | None = None) -> int:
        """Begin an attempt, whose message the caller sends then; the job is scheduled.

        Args:
            name: The job.
            queue_name: To which it is published.
            image: The digest of its image; None for what is known of it.

        Returns:
            The number of the attempt.

        Raises:
            NoSuchJobError: The job is over.
            JobStateError: It does not wait to be started, or a host has it.
            ClouduploaderError: A file can't be written; all is as it was.
        """
        with self._lock:
            lease = self._leases.get(name) or _Lease(_first(queue_name), 0.0, None)
        with lease.work, self._jobs.lock(name) as locked:
            job, old = locked.job, lease.record
            if job.state not in queue.STARTABLE or old.state is LeaseState.CLAIMED:
                raise JobStateError(f"the job {name} is {job.state}, or a host has it")
            record = dataclasses.replace(
                _without_host(old, LeaseState.PUBLISHED),
                attempt=old.attempt + 1,
                queue=queue_name,
                takeovers=0 if job.state is JobState.WAITING else old.takeovers,
            )
            if image:
                record = dataclasses.replace(record, sha256=image.sha256, identity=image.identity)
            leases.write(self._jobs, name, record)
            if job.state is JobState.WAITING:
                locked.replace(dataclasses.replace(job, state=JobState.SCHEDULED, details=None))
            with self._lock:
                self._leases[name] = lease
                lease.record, lease.user = record, job.user
                lease.until = self._clock() + self._cluster().publish_seconds
        return record.attempt

    def withdraw(self, name: str, attempt: int) -> None:
        """Take back an attempt, since none is to begin any more; one that was claimed meanwhile goes on.

        Raises:
            ClouduploaderError: A file can't be written; the attempt ends with its time.
        """
        with contextlib.suppress(StaleError), self._working(name) as lease:
            if lease.record.state is LeaseState.PUBLISHED and lease.record.attempt == attempt:
                self._take_back(name, lease, self._clock())

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 of a job's image, if it is known of the file that is there."""
        with self._lock:
            lease = self._leases.get(name)
            record = lease.record if lease else None
        if record is None or record.sha256 is None:
            return None
        try:
            is_same = leases.identity_of(self._jobs.file_path(name).stat()) == record.identity
        except OSError:
            return None
        return record.sha256 if is_same else None

    def look(self, names: Iterable[str] | None) -> None:
        """See which jobs were killed: their hosts are told at once.

        Args:
            names: Of files in the spool that changed, jobs or not; None for all.
        """
        with self._lock:
            known = [name for name in (self._leases if names is None else names) if name in self._leases]
        for name in known:
            if self._jobs.job_path(name).exists():
                continue
            with self._lock:
                lease = self._leases.get(name)
                if lease is None:
                    continue
                if is_claimed := lease.record.state is LeaseState.CLAIMED:
                    lease.is_stopping = True
                    _wake(lease)
            if not is_claimed and lease.work.acquire(blocking=False):  # else its claim finds out
                try:
                    if lease.record.state is not LeaseState.CLAIMED and not lease.is_over:
                        self._drop(name, lease)
                except ClouduploaderError as exc:
                    self._tell(WorkerEventKind.TROUBLE, name, exc.message)
                finally:
                    lease.work.release()

    def expire(self) -> None:
        """End the leases whose time is over; their jobs are free then, or have failed.

        What can't be written is tried again after BUSY_SECONDS.
        """
        now = self._clock()
        with self._lock:
            over = [name for name, lease in self._leases.items() if lease.until <= now]
        for name in over:
            lease = self._leases.get(name)
            if lease is None or lease.record.state is LeaseState.FREE:
                continue
            if not lease.work.acquire(blocking=False):
                self._extend(lease, BUSY_SECONDS)
                continue
            try:
                with self._lock:  # a beat comes before that, or is refused
                    is_overdue = lease.until <= now and not lease.is_over
                    lease.is_lost = lease.is_lost or (is_overdue and lease.record.state is LeaseState.CLAIMED)
                if is_overdue:
                    self._end_overdue(name, lease)
            except ClouduploaderError as exc:
                self._extend(lease, BUSY_SECONDS)
                self._tell(WorkerEventKind.TROUBLE, name, exc.message)
            finally:
                lease.work.release()

    # --- for the hosts

    def claim(self, name: str, claim: Claim, *, is_draining: bool = False) -> ClaimAnswer:
        """Give a job to a host, or the same answer again to one that did not get it.

        A job that can't be uploaded fails as if its uploader had begun.

        Args:
            name: The job.
            claim: What the host claims.
            is_draining: Whether it is to take no more jobs; it may not know that yet.

        Raises:
            StaleError: The attempt is not the newest, or another host has it, or the job is over now, or not for it.
            DataError: That is no name of a host.
            ClouduploaderError: It can't be done now; the claim may be sent again.
        """
        check_name(claim.host)
        with self._working(name) as lease:
            record, digest = lease.record, _digest(claim.id)
            is_again = lease.is_held(claim.attempt, digest)
            if not is_again and (record.state is not LeaseState.PUBLISHED or record.attempt != claim.attempt):
                raise _stale(name, claim.attempt)
            refusal = None if is_again else _refusal(claim, is_draining=is_draining)
            if refusal:
                self._take_back(name, lease, self._clock() + REFUSED_SECONDS)
                raise StaleError(refusal)
            self._extend(lease, self._cluster().lease_seconds)
            job = self._job_to_claim(name, lease)
            sha256 = self.sha256(name)
            if sha256 is None:  # without it the host could not tell what it gets
                _release(lease)
                self._take_back(name, lease, self._clock())
                raise StaleError(f"the image of the job {name} has changed since its digest was made")
            task, opened = self._opened(name, lease, job)
            if not is_again:
                self._begin(name, lease, job, task, claim, opened)
            if not self._states.mark_uploading(name):
                with self._lock:
                    lease.is_stopping = True
            self._extend(lease, lease.record.seconds)
            return ClaimAnswer(
                job=job,
                values=opened.data.values,
                secrets=opened.data.secrets,
                image_bytes=self._image_bytes(name),
                sha256=sha256,
                lease_seconds=lease.record.seconds,
                beat_seconds=lease.record.beat_seconds,
                key=opened.key,
                files=_intake(lease).journal.files(),
            )

    @contextlib.contextmanager
    def beating(self, name: str, attempt: int, claim_id: str, wake: Callable[[], None]) -> Iterator[Beating]:
        """Renew a lease by a beat, and watch it while that waits for its answer. Does not block.

        The answer renews nothing: a host that is gone gets it too, as far as can be seen from here, and it counts its
        lease from when it sends a beat.

        Args:
            name: The job.
            attempt: The number of the attempt.
            claim_id: See `Claim`.
            wake: Called, in any thread, once the answer should not wait any longer.

        Raises:
            StaleError: The host has no lease.
        """

        def is_stopping() -> bool:
            with self._lock:
                return self._lease_of(name, attempt, claim_id).is_stopping

        with self._lock:
            lease = self._lease_of(name, attempt, claim_id)
            lease.until = max(lease.until, self._clock() + lease.record.seconds)
            lease.watchers.add(wake)
            if self._is_closing:
                wake()
        try:
            yield Beating(is_stopping=is_stopping, seconds=lease.record.beat_seconds)
        finally:
            with self._lock:
                if watched := self._leases.get(name):
                    watched.watchers.discard(wake)

    def is_news(self, name: str, percent: int) -> bool:
        """Return whether the progress of an upload is another one than was written last. Does not block."""
        with self._lock:
            lease = self._leases.get(name)
            return lease is not None and lease.progress != percent

    def note_progress(self, name: str, attempt: int, claim_id: str, percent: int) -> None:
        """Write the progress of an upload into the job's record if it has changed; as far as that can be done.

        Raises:
            StaleError: The host has no lease.
        """
        with self._claimed(name, attempt, claim_id) as lease:
            if lease.progress == percent:
                return
            if self._states.write_progress(name, percent):
                lease.progress = percent

    def append_log(self, name: str, attempt: int, claim_id: str, offset: int, data: bytes) -> int:
        """Append to a job's log; see `Intake.append_log`. Of an attempt that is over some lines are taken too.

        Raises:
            StaleError: The host has no lease.
        """
        try:
            with self._claimed(name, attempt, claim_id) as lease:
                return _intake(lease).append_log(offset, data)
        except StaleError:
            self._append_stale(name, attempt, claim_id, data)
            raise

    @contextlib.contextmanager
    def working(self, name: str, attempt: int, claim_id: str) -> Iterator[Intake]:
        """Give the log and journal of a job to a request of its host, inside the block.

        Raises:
            StaleError: The host has no lease.
        """
        with self._claimed(name, attempt, claim_id) as lease:
            yield _intake(lease)

    def check(self, name: str, attempt: int, claim_id: str) -> None:
        """Check that a host has the lease of a job. Does not block.

        Raises:
            StaleError: It has not.
        """
        with self._lock:
            self._lease_of(name, attempt, claim_id)

    def done(self, name: str, attempt: int, claim_id: str, code: int, result: str | None) -> None:
        """Record how an upload ended, as a worker does, and end the lease.

        An uploader that SIGKILL has ended though its job was not killed is lost as with its host: by the machine's lack
        of memory, for example. The next attempt goes on with what there is.

        Args:
            name: The job.
            attempt: The number of the attempt.
            claim_id: See `Claim`.
            code: The exit code of the uploader; below 0 the signal that ended it.
            result: What it wrote; None if it wrote nothing.

        Raises:
            StaleError: The host has no lease.
            ClouduploaderError: A file can't be written; the host may send it again.
        """
        with self._claimed(name, attempt, claim_id) as lease:
            if code == LOST_CODE and not lease.is_stopping:
                record = lease.record
                self._lose(
                    name, lease, f"the uploader of the host {record.host} was killed in attempt {record.attempt}"
                )
                return
            if lease.intake:
                with contextlib.suppress(LocalIOError):  # what stays is removed with the journal
                    lease.intake.journal.tidy()
            _release(lease)  # else the journal's upload would not be over
            if result is not None:
                self._states.write_result(name, result)
            self._record_end(name, lease, code)

    def release(self, name: str, attempt: int, claim_id: str, reason: str) -> None:
        """Take a job back from a host that has not begun with it.

        Raises:
            StaleError: The host has no lease.
            ClouduploaderError: A file can't be written; the host may send it again.
        """
        with self._claimed(name, attempt, claim_id) as lease:
            said = f"the host {lease.record.host} gave it back: {job_log.one_line(reason[:MAX_REASON_CHARS])}"
            _release(lease)
            if self._take_back(name, lease, self._clock() + RELEASE_SECONDS, details=said):
                self._tell(WorkerEventKind.RESCHEDULED, name, said)
            else:
                self._tell(WorkerEventKind.KILLED, name, said, UploadEnd(None, None))

    # --- inside

    @contextlib.contextmanager
    def _working(self, name: str) -> Iterator[_Lease]:
        """Have the lease of a job for this thread alone, inside the block.

        Raises:
            StaleError: It has none.
            TransientError: The server ends, or can't write a file.
        """
        with self._lock:
            lease = self._leases.get(name)
        if lease is None:
            raise StaleError(f"the job {name} has no lease")
        with lease.work:
            if lease.is_over:
                raise StaleError(f"the job {name} has no lease any more")
            if self._is_closing:  # no refusal: its host goes on
                raise TransientError("the server ends; the next one takes it")
            try:
                yield lease
            except (CannotCreateError, MissingFileError) as exc:  # nor is a fault of the server's own
                raise TransientError(exc.message) from exc

    @contextlib.contextmanager
    def _claimed(self, name: str, attempt: int, claim_id: str) -> Iterator[_Lease]:
        """As `_working`, for a host that has it.

        Raises:
            StaleError: It has not.
        """
        # What is refused does not wait, and takes no thread from those that are not.
        self.check(name, attempt, claim_id)
        with self._working(name) as lease:
            if not lease.is_held(attempt, _digest(claim_id)):
                raise _stale(name, attempt)
            yield lease

    def _lease_of(self, name: str, attempt: int, claim_id: str) -> _Lease:
        """Return the lease that a host has, for a thread that holds the lock of all.

        Raises:
            StaleError: It has none.
        """
        lease = self._leases.get(name)
        if lease is None or not lease.is_held(attempt, _digest(claim_id)):
            raise _stale(name, attempt)
        return lease

    def _viewed(self, name: str, lease: _Lease) -> LeaseView:
        record = lease.record
        return LeaseView(
            job=name,
            user=lease.user,
            attempt=record.attempt,
            state=record.state,
            queue=record.queue,
            host=record.host,
            since=record.since,
            takeovers=record.takeovers,
            until=time.time() + lease.until - self._clock(),
        )

    def _tell(self, kind: WorkerEventKind, name: str, text: str, end: UploadEnd | None = None) -> None:
        self._on_event(WorkerEvent(kind, name, text, end))

    def _extend(self, lease: _Lease, seconds: float) -> None:
        with self._lock:
            lease.until = max(lease.until, self._clock() + seconds)

    def _write(self, name: str, lease: _Lease, record: LeaseRecord) -> None:
        leases.write(self._jobs, name, record)
        with self._lock:
            lease.record = record

    def _adopt(self, name: str, lease: _Lease) -> None:
        """Open log and journal again of a job that a host has; if that can't be done the host has lost it.

        The job is free only when its lease is over: till then its host may not know that it is refused.
        """
        record = lease.record
        try:
            lease.intake, _ = intake.open_intake(
                self._jobs,
                name,
                state_dir=self._config.state.value,
                key=str(record.journal),
                log_start=record.log_start,
            )
        except ClouduploaderError as exc:
            self._tell(WorkerEventKind.TROUBLE, name, exc.message)
            lease.is_lost = True

    def _job_to_claim(self, name: str, lease: _Lease) -> Job:
        """Return the job that is claimed.

        Raises:
            StaleError: It is over.
        """
        try:
            job, is_archived = self._jobs.read(name)
            fault = None if is_archived else launcher.fault(self._jobs, job)
            if fault:
                self._states.fail(name, fault)
                is_archived = True
                self._tell(WorkerEventKind.FAILED, name, fault)
        except NoSuchJobError:
            is_archived = True
        if is_archived:
            if lease.record.state is LeaseState.PUBLISHED:
                self._drop(name, lease)
            raise StaleError(f"the job {name} is over")
        return job

    def _task(self, job: Job) -> UploadTask:
        return UploadTask(
            user=job.user or "",
            target=job.target or "",
            image_path=self._jobs.file_path(job.name),
            targetdata=target_data.read_file(self._jobs.data_path(job.name), is_of_spool=True),
            filename=job.filename,
            job=job,
            is_by_hand=False,
        )

    def _opened(self, name: str, lease: _Lease, job: Job) -> tuple[UploadTask, OpenedTarget]:
        """Open the target of a job; a job of which that fails has failed.

        Raises:
            StaleError: It has.
            ClouduploaderError: Its end can't be recorded.
        """
        try:
            task = self._task(job)
            return task, target.open_target(task, self._config)
        except ClouduploaderError as exc:
            self._fail(name, lease, job, exc)
            raise StaleError(f"the job {name} can't be uploaded; its log tells why") from None

    def _begin(self, name: str, lease: _Lease, job: Job, task: UploadTask, claim: Claim, opened: OpenedTarget) -> None:
        """Open log and journal, and write down that a host has the job.

        Raises:
            StaleError: The same upload is under way, and the job waits or has failed.
            ClouduploaderError: A file can't be written; the job is still published.
        """
        try:
            found, log_start = intake.open_intake(
                self._jobs, name, state_dir=self._config.state.value, key=opened.key, log_start=None
            )
        except LockedError as exc:
            self._fail(name, lease, job, exc)
            raise StaleError(f"the job {name} can't be uploaded now; its log tells why") from None
        with contextlib.ExitStack() as undo:
            undo.callback(found.close)
            kept = targetdata_to_keep(task.targetdata, opened.platform, config=self._config)
            found.journal.keep_targetdata(kept)
            with privileges.as_owner(self._jobs.directory):
                files.discard(self._jobs.result_path(name))  # of an earlier try
            settings = self._cluster()
            record = dataclasses.replace(
                _without_host(lease.record, LeaseState.CLAIMED),
                host=claim.host,
                seconds=settings.lease_seconds,
                beat_seconds=settings.beat_seconds,
                claim=_digest(claim.id),
                journal=opened.key,
                log_start=log_start,
            )
            self._write(name, lease, record)
            undo.pop_all()
        lease.intake, lease.began, lease.progress, lease.is_stopping = found, self._clock(), None, False
        with self._lock:
            lease.until = self._clock() + record.seconds
        text = f"user {task.user}, target {task.target}, host {claim.host}, attempt {claim.attempt}"
        self._tell(WorkerEventKind.STARTED, name, text + (f", try {job.try_}" if job.try_ else ""))

    def _image_bytes(self, name: str) -> int:
        try:
            return self._jobs.file_path(name).stat().st_size
        except OSError:
            return 0  # the host finds that out when it asks for it

    def _fail(self, name: str, lease: _Lease, job: Job, error: ClouduploaderError) -> None:
        """Record why a job can't be uploaded, as its uploader would.

        Raises:
            ClouduploaderError: A file can't be written.
        """
        _release(lease)
        self._states.tell_failure(job, error)
        self._states.mark_uploading(name)
        self._record_end(name, lease, int(error.exit_code))

    def _record_end(self, name: str, lease: _Lease, code: int) -> None:
        """Record the end of an attempt, and end its lease; that of a job whose record is gone or damaged just ends.

        Raises:
            ClouduploaderError: It can't be recorded; the lease lives.
        """
        try:
            ended = self._states.record_exit(name, code)
        except (JobFileError, NoSuchJobError) as exc:
            self._forget(name, lease)
            self._tell(WorkerEventKind.TROUBLE, name, exc.message)
            return
        seconds = None if lease.began is None else self._clock() - lease.began
        if ended.state.is_final:
            self._forget(name, lease)
        else:
            self._free(name, lease, self._clock())
        end = UploadEnd(code if code >= 0 else 128 - code, seconds)
        self._tell(events.end_kind(ended), name, ended.details or "", end)

    def _end_overdue(self, name: str, lease: _Lease) -> None:
        """End a lease whose time is over.

        Raises:
            ClouduploaderError: A file can't be written; the lease lives.
        """
        record = lease.record
        if record.state is LeaseState.PUBLISHED:
            self._take_back(name, lease, self._clock())
        else:
            self._lose(name, lease, f"the host {record.host} was lost with attempt {record.attempt}")

    def _lose(self, name: str, lease: _Lease, loss: str) -> None:
        """End an attempt without an end of its upload, which the next one goes on with.

        Args:
            name: The job.
            lease: Its lease.
            loss: What was lost.

        Raises:
            ClouduploaderError: A file can't be written; the lease lives.
        """
        record = lease.record
        _release(lease)
        if self._states.record_success(name):
            self._record_end(name, lease, 0)
            return
        too_many = f"{record.takeovers + 1} hosts were lost with it, the last one was {record.host}"
        if record.takeovers >= self._cluster().takeovers and self._states.give_up(name, too_many):
            self._tell(WorkerEventKind.FAILED, name, too_many, UploadEnd(None, None))
            self._forget(name, lease)
            return
        state = self._states.reschedule(name)
        if state is None:
            self._states.tell_loss(name, f"{loss}.")
            self._record_end(name, lease, LOST_CODE)
            return
        self._remember(lease)
        is_lost = state is JobState.UPLOADING
        self._free(name, lease, self._clock(), takeovers=record.takeovers + is_lost)
        if is_lost:
            self._states.tell_loss(name, f"{loss}; another one goes on.")
            self._tell(WorkerEventKind.LOST, name, loss)

    def _take_back(self, name: str, lease: _Lease, until: float, *, details: str | None = None) -> bool:
        """Let a job that no host has begun with wait for its next attempt; return False if it is over.

        Args:
            name: The job.
            lease: Its lease.
            until: When it may be published again.
            details: What its user is told as long as it waits.

        Raises:
            ClouduploaderError: A file can't be written; the lease lives.
        """
        if self._states.reschedule(name, details) is None:
            self._drop(name, lease)
            return False
        self._free(name, lease, until)
        return True

    def _free(self, name: str, lease: _Lease, until: float, *, takeovers: int | None = None) -> None:
        """Let a job wait for its next attempt."""
        record = _without_host(lease.record, LeaseState.FREE)
        if takeovers is not None:
            record = dataclasses.replace(record, takeovers=takeovers)
        leases.write(self._jobs, name, record)
        with self._lock:
            lease.record, lease.until, lease.began = record, until, None
            lease.is_lost = lease.is_stopping = False
            _wake(lease)

    def _drop(self, name: str, lease: _Lease) -> None:
        """End the lease of a job that was killed while no host worked on it; what an earlier one left is cleaned up."""
        _release(lease)
        self._states.mark_leftovers(name)  # with the lease it would be forgotten
        self._forget(name, lease)

    def _forget(self, name: str, lease: _Lease) -> None:
        """End the lease of a job that is over."""
        leases.remove(self._jobs, name)
        _release(lease)
        with self._lock:
            lease.is_over = True
            self._leases.pop(name, None)
            _wake(lease)

    def _remember(self, lease: _Lease) -> None:
        """Let the host that was lost with a job still send some lines of its log."""
        while len(lease.past) >= MAX_PAST:
            del lease.past[next(iter(lease.past))]
        lease.past[str(lease.record.claim)] = (lease.record, intake.STALE_BYTES)

    def _append_stale(self, name: str, attempt: int, claim_id: str, data: bytes) -> None:
        with self._lock:
            known = self._leases.get(name)
        if known is None or _digest(claim_id) not in known.past:
            return
        with contextlib.suppress(StaleError), self._working(name) as lease:
            record, left = lease.past.get(_digest(claim_id), (None, 0))
            if record is None or record.attempt != attempt or not left:
                return
            lines = intake.marked(f"attempt {attempt}, {record.host}, after its lease", data, left)
            lease.past[_digest(claim_id)] = (record, left - len(lines))
            if lease.record.state is LeaseState.CLAIMED:  # first: from there the next server counts what is there
                start = lease.record.log_start + len(lines)
                self._write(name, lease, dataclasses.replace(lease.record, log_start=start))
            intake.append_lines(self._jobs, name, lines)


def _first(queue_name: str) -> LeaseRecord:
    return LeaseRecord(attempt=0, state=LeaseState.FREE, queue=queue_name, since=time.time())


def _without_host(record: LeaseRecord, state: LeaseState) -> LeaseRecord:
    """Return a lease in another state from now on, of no host."""
    return dataclasses.replace(record, state=state, since=time.time(), host=None, claim=None, journal=None, log_start=0)


def _digest(claim_id: str) -> str:
    return hashlib.sha256(claim_id.encode("utf-8", "surrogatepass")).hexdigest()


def _stale(name: str, attempt: int) -> StaleError:
    return StaleError(f"attempt {attempt} of the job {name} is not the newest, or is another host's")


def _refusal(claim: Claim, *, is_draining: bool) -> str | None:
    """Return why a host may not have a job; None if it may."""
    if claim.protocol not in protocol.KNOWN:
        return f"this server does not know version {claim.protocol} of what its hosts speak"
    return f"the host {claim.host} is to take no more jobs" if is_draining else None


def _intake(lease: _Lease) -> Intake:
    if lease.intake is None:
        raise StaleError("the log and the journal of the job are not open")
    return lease.intake


def _release(lease: _Lease) -> None:
    """Release the log and the journal of a job."""
    if lease.intake:
        lease.intake.close()
        lease.intake = None


def _wake(lease: _Lease) -> None:
    for wake in lease.watchers:
        wake()
