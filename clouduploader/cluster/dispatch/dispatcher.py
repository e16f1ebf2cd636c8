"""The dispatcher: publishes the jobs of a spool for the hosts of a cluster, in the place of the worker of this host.

It is a worker as far as all workers do the same: uploads of this host that an earlier one has started are waited for,
and what uploads could not clean up in the cloud is removed here. But it starts none: a job that may start is published
as soon as a host has a slot for it, and from then on its lease decides. A lease whose host is lost ends, and the job
is published again.

A message is sent after its attempt is on the disk, and sent again until the broker has it. What a crash leaves is a
lease without a message at worst, whose time ends like that of one that no host has taken.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.cluster.dispatch.digests import Digests
from clouduploader.cluster.dispatch.hosts import Hosts
from clouduploader.cluster.dispatch.leases import Leases, LeaseView
from clouduploader.cluster.dispatch.order import HostRoom, OrderLimits, Room, choose
from clouduploader.cluster.dispatch.outbox import Message, Outbox, Publisher
from clouduploader.cluster.dispatch.stored_images import StoredImages
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.errors import ClouduploaderError
from clouduploader.model.job import Job
from clouduploader.store import target_data
from clouduploader.store.config import Config
from clouduploader.store.spool.leases import LeaseState
from clouduploader.worker import outcome
from clouduploader.worker.base import SpoolWorker
from clouduploader.worker.control import WorkerControl
from clouduploader.worker.events import WorkerEvent, WorkerEventKind
from clouduploader.worker.queue import QueuedJob
from clouduploader.worker.settings import WorkerSettings

NO_IMAGE = "the job has no image"


class Dispatcher(SpoolWorker):
    """The dispatcher of one spool.

    Args:
        config: See Config.
        read_settings: See SpoolWorker.
        read_cluster: Reads the settings of the cluster; called like `read_settings`.
        publisher: Reaches the broker; used by a thread of its own.
        control: See WorkerControl.
        on_event: Called with each event, in any thread.

    Attributes:
        cluster: For the server's other threads.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: `clouduploader` is not there, which cleans up.
    """

    def __init__(
        self,
        config: Config,
        *,
        read_settings: Callable[[], WorkerSettings],
        read_cluster: Callable[[], ClusterSettings],
        publisher: Publisher,
        control: WorkerControl,
        on_event: Callable[[WorkerEvent], None],
    ) -> None:
        self._read_cluster = read_cluster
        self._routes: dict[str, str] = {}
        self._ended: set[str] = set()
        super().__init__(config, read_settings=read_settings, control=control, on_event=on_event)
        self._hosts = Hosts(self._jobs.directory, lease_seconds=lambda: self._cluster.lease_seconds, wake=control.wake)
        self._leases = Leases(
            self._jobs, config, cluster=lambda: self._cluster, worker=lambda: self._settings, on_event=self._note
        )
        self._digests = Digests(self._jobs, control.wake)
        self._stored = StoredImages(
            self._jobs,
            config.home.value,
            place=lambda: self._cluster.image_store,
            wake=control.wake,
            on_trouble=lambda name, text: self._note(WorkerEvent(WorkerEventKind.TROUBLE, name, text)),
        )
        self._outbox = Outbox(publisher, url=self._cluster.server, queues=self._cluster.queues, wake=control.wake)
        self.cluster = Cluster(
            leases=self._leases,
            hosts=self._hosts,
            cluster_settings=lambda: self._cluster,
            worker_settings=lambda: self._settings,
            lend_image=self._stored.lend,
            waiting=lambda: self._outbox.depths,
            broker_fault=lambda: self._outbox.fault,
        )

    def _uploaders(self) -> str:
        return f"the hosts of {self._cluster.broker}"

    def _take(self, _found: WorkerSettings, _environment: Mapping[str, str]) -> None:
        self._cluster = self._read_cluster()
        self._routes.clear()

    def _begin(self) -> None:
        self._leases.load()
        self._outbox.start()

    def _is_elsewhere(self, name: str) -> bool:
        lease = self._leases.view(name)
        return lease is not None and lease.state is LeaseState.CLAIMED

    def _is_leased(self, name: str) -> bool:  # a published one too: its claim may be recording why it fails
        lease = self._leases.view(name)
        return lease is not None and lease.state is not LeaseState.FREE

    def _running(self) -> list[str]:
        claimed = [lease.job for lease in self._leases.held() if lease.state is LeaseState.CLAIMED]
        return [*super()._running(), *claimed]

    def _times(self) -> Iterator[float]:
        yield from super()._times()
        yield time.monotonic() + self._leases.seconds_left()

    def _refresh(self, names: Iterable[str] | None) -> None:
        super()._refresh(names)
        self._leases.look(names)
        if names is None:
            self._routes.clear()
        else:
            for name in names:
                self._routes.pop(name, None)

    def _act(self) -> None:
        self._leases.expire()
        self._outbox.keep(self._is_published)
        self._attempt_all(self._ended, self._end)
        self._tell_broker_fault()
        for name in self._digests.names():
            if not self._jobs.job_path(name).exists():
                self._digests.discard(name)
        self._stored.sweep()
        super()._act()
        if self._control.is_draining:
            self._withdraw_all()

    def _start_jobs(self) -> None:
        """Publish what may start, as far as hosts have slots for it."""
        leases = {lease.job: lease for lease in self._leases.held()}
        room = self._room(leases.values())
        running = Counter(upload.job.user for upload in self._uploads.values())
        running.update(lease.user for lease in leases.values() if lease.state is not LeaseState.FREE)
        limits = OrderLimits(
            max_jobs=self._cluster.max_jobs,
            max_jobs_per_user=self._settings.max_jobs_per_user,
            priorities=self._cluster.priorities,
        )
        now, wall = time.monotonic(), time.time()

        def has_room(record: QueuedJob) -> bool:
            name = record.job.name
            lease = leases.get(name)
            is_free = lease is None or (lease.state is LeaseState.FREE and lease.until <= wall)
            may_start = is_free and name not in self._retry_at and record.due(self._settings) <= now
            return may_start and room.take(self._queue_of(record.job))

        if self._outbox.fault or not room.has_any:
            return  # spares the look at the queue
        chosen = choose(
            self._queue.by_user(), running, limits, number=lambda record: int(record.job.name), has_room=has_room
        )
        for record in chosen:
            self._attempt(record.job.name, self._publish)
            if not room.has_any:
                break

    def _room(self, leases: Collection[LeaseView]) -> Room:
        """Return the slots that no job has or waits for."""
        taken = Counter(lease.host for lease in leases if lease.state is LeaseState.CLAIMED)
        room = Room(
            HostRoom(queues=frozenset(host.greeting.queues), slots=host.greeting.slots - taken[host.greeting.name])
            for host in self._hosts.hosts()
            if host.is_usable
        )
        for lease in leases:
            if lease.state is LeaseState.PUBLISHED:
                room.take(lease.queue)
        return room

    def _publish(self, name: str) -> None:
        """Publish a job once the digest of its image is there, and the image in the object store if there is one."""
        if not self._jobs.file_path(name).exists():
            with self._jobs.lock(name) as locked:
                outcome.fail(locked, NO_IMAGE)
            self._tell(WorkerEventKind.FAILED, name, NO_IMAGE)
            return
        digest, sha256 = None, self._leases.sha256(name)
        if sha256 is None:
            digest = self._digests.get(name)
            if digest is None:
                return
            sha256 = digest.sha256
        if not self._stored.take(name, sha256):
            return
        job, _ = self._jobs.read(name)
        queue = self._queue_of(job)
        attempt = self._leases.publish(name, queue, digest)
        self._digests.discard(name)
        self._outbox.put(Message(job=name, attempt=attempt, queue=queue))
        self._tell(
            WorkerEventKind.PUBLISHED, name, f"user {job.user}, target {job.target}, queue {queue}, attempt {attempt}"
        )

    def _is_published(self, message: Message) -> bool:
        lease = self._leases.view(message.job)
        return lease is not None and lease.state is LeaseState.PUBLISHED and lease.attempt == message.attempt

    def _queue_of(self, job: Job) -> str:
        """Return the queue that a job goes to."""
        if job.name not in self._routes:
            region = self._region(job.name) if self._cluster.has_regions else ""
            size = job.size or 0
            self._routes[job.name] = self._cluster.queue_of(target=job.target or "", region=region, size_bytes=size)
        return self._routes[job.name]

    def _region(self, name: str) -> str:
        """Return the region of a job, as far as its target data tell it in clear; else ""."""
        try:
            document = target_data.parse(target_data.read_file(self._jobs.data_path(name), is_of_spool=True))
        except ClouduploaderError:
            return ""
        regions = document.get("regions")
        region = document.get("region") or (regions[0] if isinstance(regions, list) and regions else "")
        return region if isinstance(region, str) and not target_data.is_armored(region) else ""

    def _withdraw_all(self) -> None:
        """Take back all that no host has claimed."""
        for lease in self._leases.held():
            if lease.state is LeaseState.PUBLISHED:
                self._attempt(lease.job, functools.partial(self._leases.withdraw, attempt=lease.attempt))

    def _note(self, event: WorkerEvent) -> None:
        """Take note of what happened to a lease, in any thread."""
        self._on_event(event)
        if event.end and event.job:
            self._ended.add(event.job)
        self._control.wake()

    def _end(self, name: str) -> None:
        """Clean up after a job if its host could not."""
        job, is_archived = self._jobs.read(name)
        if is_archived:
            self._clean_up(job)

    def _tell_broker_fault(self) -> None:
        if fault := self._outbox.fault:
            self._tell_trouble(None, fault)
        else:
            self._reported_troubles.pop(None, None)

    def _close(self) -> None:
        super()._close()
        self._digests.close()
        self._stored.close()
        self._outbox.close()
        self._leases.close()
