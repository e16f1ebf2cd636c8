"""The state of a running server."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from aiohttp import web

from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.jobs import expire
from clouduploader.server import access, health
from clouduploader.server.access import PRINCIPAL, Gate, Kind, Principal
from clouduploader.server.cloud_threads import CloudThreads
from clouduploader.server.host_threads import HostThreads
from clouduploader.server.job_counter import JobCounter
from clouduploader.server.logs import FollowedLogs
from clouduploader.server.metrics import Metrics
from clouduploader.server.network import body, connections
from clouduploader.server.obs import status
from clouduploader.server.obs.listing import JobLists
from clouduploader.server.obs.status import InFlight
from clouduploader.server.quotas import RequestCounts
from clouduploader.server.receive.image_body import BodyCopier
from clouduploader.server.receive.image_receiver import ImageReceiver
from clouduploader.server.receive.piece_receiver import PieceReceiver
from clouduploader.server.receive.places import Places
from clouduploader.server.replies import RefusalError
from clouduploader.server.send_image import ImageSender
from clouduploader.server.settings import ServerSettings, SettingsSource
from clouduploader.server.signin.openid import Provider
from clouduploader.server.worker_thread import WorkerThread
from clouduploader.store import spool
from clouduploader.store.config import Config
from clouduploader.store.images import ImageStore
from clouduploader.util.service_log import ServiceLog
from clouduploader.worker import lock
from clouduploader.worker import settings as worker_settings
from clouduploader.worker.base import SpoolWorker

MAX_TARGET_CHARS = 200  # of a request, where all of them are shown: some have 128 KiB
SHORT_BYTES = 65_536  # what is no longer is read at once, in a few milliseconds at most; all that OBS sends is shorter
SURE_SECONDS = 1.0  # for so long it is known who sends a body; it may come for minutes
T = TypeVar("T")
JOB = web.RequestKey("job", str)  # the job that a request is about
IS_POLLED = web.RequestKey("is_polled", bool)
MIN_TROUBLE = 400  # the smallest status of an error


class ServerState:
    """The state of one server on one spool. Created inside the event loop.

    Attributes:
        config: All settings.
        source: The settings of the server, which may be read again.
        jobs: The spool.
        images: Images that come in pieces.
        places: Those of images on their way in.
        copier: Copies what comes of them.
        receiver: Receives whole images.
        pieces: Receives pieces of them.
        sender: Sends images to the hosts of a cluster.
        clouds: Asks clouds.
        hosts: Does what hosts of a cluster ask for.
        logs: Logs that are followed.
        listing: Renders lists of jobs; each piece under `listing_lock`.
        searching: The lock of searches.
        creating: The lock under which jobs are created.
        wait_times: How long jobs have waited for their images.
        started: When the server was, in seconds since the epoch.
        log: The log of the service.
        metrics: Rendered under `counting`.
        gate: Tells who asks.
        request_counts: Of users.
        worker: In the same process; None if there is none.
        cluster: Of the server; None if it has none.
        worker_locks: The lock files of the spool's worker, ours or OBS's.
    """

    def __init__(
        self,
        config: Config,
        source: SettingsSource,
        jobs: spool.Spool,
        log: ServiceLog,
        worker: WorkerThread[SpoolWorker] | None,
        cluster: Cluster | None = None,
    ) -> None:
        self.config = config
        self.source = source
        self.jobs = jobs
        self.images = ImageStore(jobs.directory)
        self.places = Places(source)
        self.copier = BodyCopier(source)
        self.receiver = ImageReceiver(jobs, source, log, places=self.places, copier=self.copier)
        self.pieces = PieceReceiver(
            self.images, source, places=self.places, copier=self.copier, free_bytes=jobs.free_bytes
        )
        self.sender = ImageSender(source)
        self.clouds = CloudThreads()
        self.hosts = HostThreads()
        self.log = log
        self.worker = worker
        self.cluster = cluster
        self.worker_locks = lock.lock_paths(jobs, worker_settings.read(config).obs_lock)
        self.metrics = Metrics(
            JobCounter(jobs),
            transfers=lambda: self.receiving,
            free_bytes=jobs.free_bytes,
            cluster=self.cluster.count if self.cluster else None,
        )
        self.counting = asyncio.Lock()
        self.gate = Gate(config, source, log)
        self.request_counts = RequestCounts()
        self.logs = FollowedLogs(jobs)
        self.listing = JobLists(jobs)
        self.listing_lock = asyncio.Lock()
        self.searching = asyncio.Lock()
        self.creating = asyncio.Lock()
        self._parsing = asyncio.Lock()
        self.wait_times = expire.WaitTimes()
        self.started = status.now()
        self._numbers = itertools.count(1)
        self._in_flight: dict[int, tuple[web.BaseRequest, int]] = {}
        self._provider: Provider | None = None

    @property
    def settings(self) -> ServerSettings:
        """The settings of the server, as they are now."""
        return self.source.current

    @property
    def receiving(self) -> int:
        """How many images are coming in, as a whole or in pieces."""
        return len(self.receiver.names) + self.pieces.count

    @property
    def received_bytes(self) -> int:
        """How many bytes of images have come in since the start."""
        return self.receiver.received_bytes + self.pieces.received_bytes

    def provider(self) -> Provider | None:
        """Return the OpenID provider that the settings name, with what is known of it; None without one."""
        wanted = self.settings.sign_in.openid
        if self._provider is None or self._provider.settings != wanted:
            self._provider = Provider(wanted, self.config.home.value) if wanted else None
        return self._provider

    async def read(self, request: web.BaseRequest, *, limit_bytes: int) -> bytes:
        """Read a body that is no image; see `body.read`.

        Raises:
            RefusalError: While it came, its sender's token was revoked, or expired, or the session ended.
        """
        began = time.monotonic()
        data = await body.read(request, limit_bytes=limit_bytes, idle_seconds=self.settings.idle_seconds)
        if time.monotonic() - began > SURE_SECONDS and await self.gate.has_ended(request[PRINCIPAL]):
            text = "the token or the session has ended"
            raise RefusalError(text, status=401, is_coded=True, headers={"WWW-Authenticate": access.CHALLENGE})
        return data

    async def parse(self, size: int, function: Callable[[], T]) -> T:
        """Parse what a client sent. What is long is parsed in a thread, one after the other.

        Args:
            size: How long it is, in bytes of a body.
            function: Parses it.
        """
        if size <= SHORT_BYTES:
            return function()
        async with self._parsing:
            return await asyncio.to_thread(function)

    @contextlib.contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """List a request as in flight, inside the block."""
        number = next(self._numbers)
        self._in_flight[number] = (request, status.now())
        try:
            yield
        finally:
            del self._in_flight[number]

    def record_request(self, request: web.BaseRequest, status_code: int, seconds: float) -> None:
        """Log and count a request that was answered; of routes that a page, a host or no token polls, errors only."""
        self.metrics.count_request(request.method, status_code, seconds)
        principal = request.get(PRINCIPAL) or Principal(Kind.STRANGER)  # refused before it was known
        is_watched = principal.token and not principal.session and principal.kind is not Kind.WORKER
        if request.get(IS_POLLED) and status_code < MIN_TROUBLE and not is_watched:
            return
        self.log.tell(
            "request",
            job=request.get(JOB) or None,
            client=request.remote,
            role=principal.kind,
            user=principal.user,
            token=principal.token,
            session=principal.session.id if principal.session else None,
            method=request.method,
            path=request.path,
            status=status_code,
            seconds=seconds,
        )

    def worker_fault(self) -> str | None:
        """Return why no worker starts uploads; None if one runs, here or elsewhere."""
        if self.worker:
            return self.worker.fault()
        return None if status.is_worker_running(self.worker_locks) else "no worker looks after the spool"

    def check_health(self) -> list[health.HealthFinding]:
        """Check whether all is well; see `health.check`. Blocks."""
        return health.check(
            self.jobs,
            keep_free_bytes=self.settings.keep_free_bytes,
            keep_free_inodes=self.settings.keep_free_inodes,
            worker_fault=self.worker_fault(),
            cluster_faults=self.cluster.faults() if self.cluster else {},
        )

    def requests(self) -> list[web.BaseRequest]:
        """Return the requests that are being answered, as they are."""
        return [request for request, _ in self._in_flight.values()]

    def in_flight(self) -> list[InFlight]:
        """Return the requests that are being answered."""
        return [_described(number, request, began) for number, (request, began) in self._in_flight.items()]


def _described(number: int, request: web.BaseRequest, began: int) -> InFlight:
    client = f"{request.method} ({request.remote})"
    sock = request.transport and request.transport.get_extra_info("socket")
    target = request.raw_path if "?" in request.raw_path else f"{request.raw_path}?"
    if len(target) > MAX_TARGET_CHARS:
        target = f"{target[:MAX_TARGET_CHARS]}..."
    return InFlight(
        number=number,
        line=f"{client:<22} {target}",
        began=began,
        descriptor=sock.fileno() if sock else -1,
        is_following=connections.is_following(request),
    )
