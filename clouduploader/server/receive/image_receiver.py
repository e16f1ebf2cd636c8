"""Receive images of jobs, and schedule the jobs."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Iterator, Set

from aiohttp import web

from clouduploader.errors import ClouduploaderError, ImageError, JobFileError, JobStateError, NoSuchJobError
from clouduploader.model.job import Details, JobState
from clouduploader.server import replies
from clouduploader.server.network import body, connections
from clouduploader.server.receive.image_body import BodyCopier, PeriodicCheck, paused_reading
from clouduploader.server.receive.places import Place, Places
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.store import spool
from clouduploader.store.spool.incoming import IncomingImage
from clouduploader.util.service_log import ServiceLog

STOPPED = "the server was stopped while it received the image"


class ImageReceiver:
    """Receives the images of all clients; its methods are for the event loop's thread.

    Args:
        jobs: The spool.
        source: The settings of the server.
        log: Gets what becomes of jobs.
        places: Has one for each image.
        copier: Copies the images; closed by the caller.
    """

    def __init__(
        self, jobs: spool.Spool, source: SettingsSource, log: ServiceLog, *, places: Places, copier: BodyCopier
    ) -> None:
        self._jobs = jobs
        self._source = source
        self._log = log
        self._places = places
        self._copier = copier
        self._is_stopping = False
        self._names: set[str] = set()
        self._open: dict[str, IncomingImage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._received_bytes = 0  # of those that have ended

    @property
    def names(self) -> Set[str]:
        """Names of the jobs whose images are being received, from before their records say so to after; a live set."""
        return self._names

    @property
    def received_bytes(self) -> int:
        """How many bytes of images have been received since the start."""
        return self._received_bytes + sum(incoming.received_bytes for incoming in self._open.values())

    def check_space(self, size_bytes: int, *, name: str | None = None) -> None:
        """Refuse an image that would not fit beside those that are being received.

        Args:
            size_bytes: Of the image.
            name: Its job, if it is being received itself.

        Raises:
            RefusalError: It would not.
        """
        coming = sum((it.job.size or 0) - it.received_bytes for it in self._open.values() if it.job.name != name)
        free = self._jobs.free_bytes() - coming
        kept = self._source.current.keep_free_bytes
        if size_bytes > free - kept:
            raise RefusalError(
                f"No space left on device: the image has {size_bytes} bytes, {max(free, 0)} are free, "
                f"{kept} are kept free"
            )

    def check_inodes(self) -> None:
        """Refuse a job if few inodes are left: the jobs that are there need some to be uploaded and archived.

        Raises:
            RefusalError: Too few are left.
        """
        free, kept = self._jobs.free_inodes(), self._source.current.keep_free_inodes
        if free is not None and free < kept:
            raise RefusalError(f"No space left on device: {free} inodes are free, {kept} are kept free")

    def _check_wanted(self, incoming: IncomingImage) -> None:
        """Check whether an image is still wanted: its job may be killed, and others write to the disk too.

        Raises:
            NoSuchJobError: It was killed.
            RefusalError: Less is free than is to be kept.
        """
        job, _ = self._jobs.read(incoming.job.name)
        if job.state is not JobState.RECEIVING:
            raise NoSuchJobError(f"the job {job.name} is {job.state}")
        free, kept = self._jobs.free_bytes(), self._source.current.keep_free_bytes
        if free < kept:
            raise RefusalError(f"No space left on device: {free} bytes are free, {kept} are kept free")

    async def receive(self, name: str, request: web.BaseRequest) -> None:
        """Receive the image that comes with a request, and schedule its job.

        Raises:
            RefusalError: It was not taken; in OBS's words.
        """
        if not body.has_body(request):
            raise RefusalError("read_file: no content attached")
        place = self._places.take(connections.connection_of(request).client)
        task = asyncio.create_task(self._receive(name, place, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._places.hold(place, task)

    async def stop(self) -> None:
        """Stop receiving: the jobs of all images fail."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _receive(self, name: str, place: Place, request: web.BaseRequest) -> None:
        with _obs_refusals(self._jobs, name):
            if name in self._names:
                raise JobStateError(f"the image of the job {name} is on its way already")
            # Before the job is in state receiving: `expire` must not take it for one that is not received any more.
            self._names.add(name)
            begun: list[IncomingImage] = []
            try:
                with paused_reading(request):
                    await self._copier.settle(lambda: begun.append(self._jobs.receive(name)))
                    incoming = begun[0]
                    place.begin(lambda: (incoming.received_bytes, incoming.job.size or 0))
                    await self._complete(incoming, request)
            except BaseException as exc:
                error = self._job_error(exc, place)
                for incoming in begun:  # none if there is no such job
                    await self._copier.settle(functools.partial(self._abandon, incoming, error))
                raise
            finally:
                self._names.discard(name)

    def _abandon(self, incoming: IncomingImage, error: BaseException) -> None:
        """In a thread: fail a job; if that can't be written now, `expire` does it later."""
        try:
            incoming.abandon(error)
        except ClouduploaderError as exc:
            self._log.tell("trouble", job=incoming.job.name, text=exc.message)
        else:
            self._tell_end(incoming)

    def _tell_end(self, incoming: IncomingImage) -> None:
        """Log how a job ended whose image was not received: as its record says, which a kill may have written."""
        name = incoming.job.name
        try:
            job, _ = self._jobs.read(name)
        except ClouduploaderError as exc:  # removed meanwhile
            self._log.tell("trouble", job=name, text=exc.message)
            return
        if job.state is JobState.FAILED:  # else all of the image was here when the client left
            self._log.tell("failed", job=name, bytes=incoming.received_bytes, details=job.details)

    async def _complete(self, incoming: IncomingImage, request: web.BaseRequest) -> None:
        """Receive an image, and schedule its job."""
        name, began = incoming.job.name, time.monotonic()
        self._open[name] = incoming
        self._log.tell("receiving", job=name, client=request.remote)
        try:
            await self._read(incoming, request)

            def announce() -> None:
                seconds = time.monotonic() - began
                self._log.tell("scheduled", job=name, bytes=incoming.received_bytes, seconds=seconds)

            await self._copier.settle(functools.partial(incoming.finish, announce=announce))
        finally:
            self._received_bytes += incoming.received_bytes
            del self._open[name]

    async def _read(self, incoming: IncomingImage, request: web.BaseRequest) -> None:
        length, size = request.content_length, incoming.job.size or 0
        if length is not None and length != size:
            raise ImageError(f"size mismatch: {length} != {size}")
        self.check_space(size, name=incoming.job.name)
        wanted = PeriodicCheck(functools.partial(self._check_wanted, incoming))

        def write(data: bytes | memoryview) -> None:
            received_bytes = incoming.received_bytes + len(data)
            if received_bytes > size:
                raise ImageError(f"size mismatch: {received_bytes} != {size}")
            incoming.write(data)

        async def after_turn() -> None:
            wanted.check_if_due()

        try:
            await self._copier.copy(request, write, after_turn=after_turn)
        except body.TruncatedError as exc:
            raise ImageError(Details.CUT_OFF) from exc

    def _job_error(self, error: BaseException, place: Place) -> BaseException:
        """Return the error whose message becomes the job's details."""
        if isinstance(error, ClouduploaderError):
            return replies.to_refusal(error)
        if not isinstance(error, asyncio.CancelledError):
            return error
        return ImageError(STOPPED) if self._is_stopping else place.refusal or error


@contextlib.contextmanager
def _obs_refusals(jobs: spool.Spool, name: str) -> Iterator[None]:
    """Raise errors about the job as OBS's server words them."""
    try:
        yield
    except JobStateError as exc:
        raise RefusalError("job is not in created state") from exc
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_file(jobs.job_path(name)) from exc
