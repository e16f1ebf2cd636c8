"""What the server has while it runs."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

from aiohttp import web

from clouduploader import spool
from clouduploader.config import Config
from clouduploader.server import status
from clouduploader.server.intake import Intake
from clouduploader.server.listing import Listing
from clouduploader.server.logs import Logs
from clouduploader.server.settings import Settings
from clouduploader.server.status import InFlight


class State:
    """One server on one spool. Made inside the event loop.

    Attributes:
        config: The settings of all.
        settings: Those of the server.
        jobs: The spool.
        intake: Images on their way in.
        logs: Logs that are followed.
        listing: Makes lists of jobs; under `listing_lock`.
        creating: The lock of who makes a job.
        started: When it was, in seconds since the epoch.
    """

    def __init__(self, config: Config, settings: Settings, jobs: spool.Spool) -> None:
        self.config = config
        self.settings = settings
        self.jobs = jobs
        self.intake = Intake(
            jobs,
            keep_free_bytes=settings.keep_free_bytes,
            max_transfers=settings.max_transfers,
            idle_seconds=settings.idle_seconds,
        )
        self.logs = Logs(jobs)
        self.listing = Listing(jobs)
        self.listing_lock = asyncio.Lock()
        self.creating = asyncio.Lock()
        self.started = status.now()
        self._numbers = itertools.count(1)
        self._in_flight: dict[int, tuple[web.BaseRequest, int]] = {}

    @contextlib.contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """Know of a request while it is answered."""
        number = next(self._numbers)
        self._in_flight[number] = (request, status.now())
        try:
            yield
        finally:
            del self._in_flight[number]

    def in_flight(self) -> list[InFlight]:
        """The requests that are being answered."""
        return [_described(number, request, began) for number, (request, began) in self._in_flight.items()]


def _described(number: int, request: web.BaseRequest, began: int) -> InFlight:
    client = f"{request.method} ({request.remote})"
    sock = request.transport and request.transport.get_extra_info("socket")
    target = request.raw_path if "?" in request.raw_path else f"{request.raw_path}?"
    return InFlight(
        number=number,
        line=f"{client:<22} {target}",
        began=began,
        descriptor=sock.fileno() if sock else -1,
        is_following=request.path.endswith("/_log"),
    )
