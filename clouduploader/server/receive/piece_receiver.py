"""Receive pieces of images that come over several requests, so that one that breaks off loses next to nothing.

A request for an image ends the one before it that sends some of it: its client is gone, or has lost the connection
and comes again by another one, long before the server can notice that.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Callable

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.server.network import connections
from clouduploader.server.receive.image_body import BodyCopier, PeriodicCheck, paused_reading
from clouduploader.server.receive.places import Place, Places
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.store.images import ImageStore, OpenImage

ALGORITHMS = ("sha256", "sha1")  # of checksums; tus wants the second
SYNC_BYTES = 64 << 20  # what comes is written to the disk each time there is so much of it,
SYNC_SECONDS = 5.0  # or after so long: what a crash may lose
OVERTAKEN = "another request goes on with this image"
STOPPED = "the server is stopped"


class PieceReceiver:
    """Receives pieces of images; its methods are for the event loop's thread.

    Args:
        images: Where they go.
        source: The settings of the server.
        places: Has one for each image.
        copier: Copies them; closed by the caller.
        free_bytes: Says how many are free on the disk.

    Attributes:
        received_bytes: How many bytes of images have been received since the start.
    """

    def __init__(
        self,
        images: ImageStore,
        source: SettingsSource,
        *,
        places: Places,
        copier: BodyCopier,
        free_bytes: Callable[[], int],
    ) -> None:
        self._images = images
        self._source = source
        self._places = places
        self._copier = copier
        self._free_bytes = free_bytes
        self.received_bytes = 0
        self._tasks: dict[str, tuple[asyncio.Task[int], Place]] = {}

    @property
    def count(self) -> int:
        """How many images are coming in."""
        return len(self._tasks)

    async def end(self, name: str) -> None:
        """End the request that sends some of an image, if there is one; what came by it is on the disk then."""
        await self._end(name, RefusalError(OVERTAKEN, status=409))

    async def stop(self) -> None:
        """End all requests; what came by them is on the disk then."""
        await asyncio.gather(*(self._end(name, RefusalError(STOPPED, status=503)) for name in self._tasks))

    async def _end(self, name: str, refusal: RefusalError) -> None:
        while known := self._tasks.get(name):
            task, place = known
            place.refusal = place.refusal or refusal
            task.cancel()
            await asyncio.wait([task])
            self._forget(name, place)

    async def receive(self, name: str, request: web.BaseRequest, *, offset_bytes: int, checksum: str | None) -> int:
        """Receive a piece.

        Args:
            name: The image's id.
            request: Has the piece as its body.
            offset_bytes: Where its sender thinks that it begins.
            checksum: What it must be: an algorithm and a digest in Base64; None if that is not known.

        Returns:
            How much of the image is on the disk now.

        Raises:
            RefusalError: It does not fit; or broke off, and what came of it stays, unless it has a checksum.
            ClouduploaderError: It can't be written.
        """
        digest = None if checksum is None else _Digest(checksum)
        await self.end(name)
        place = self._places.take(connections.connection_of(request).client)
        task = asyncio.create_task(self._receive(name, place, request, offset_bytes, digest))
        self._tasks[name] = task, place
        try:
            return await self._places.hold(place, task)
        finally:
            self._forget(name, place)

    def _forget(self, name: str, place: Place) -> None:
        if name in self._tasks and self._tasks[name][1] is place:
            del self._tasks[name]

    async def _receive(
        self, name: str, place: Place, request: web.BaseRequest, offset_bytes: int, digest: "_Digest | None"
    ) -> int:
        with contextlib.ExitStack() as stack, paused_reading(request):
            # Entered in the thread: if this task is cancelled meanwhile, it is closed.
            image = await self._copier.settle(lambda: stack.enter_context(self._images.open(name)))
            if image.offset_bytes != offset_bytes:
                raise RefusalError(f"the next byte is {image.offset_bytes}, not {offset_bytes}", status=409)
            _check_length(request.content_length or 0, image)
            self._check_room()
            # Never all of it: a place that is lost costs nothing, as what came stays.
            place.begin(lambda: (image.offset_bytes - offset_bytes, image.image.size_bytes - offset_bytes + 1))
            try:
                await self._append(image, request, digest)
            except (asyncio.CancelledError, ClouduploaderError):
                if digest is None:
                    with contextlib.suppress(ClouduploaderError):  # the one that ends the request is told
                        await self._copier.settle(image.sync)
                raise
            if digest is not None and not digest.is_right():
                raise RefusalError("what came has another checksum", status=460)
            await self._copier.settle(image.sync)
            return image.offset_bytes

    async def _append(self, image: OpenImage, request: web.BaseRequest, digest: "_Digest | None") -> None:
        """Append the body of a request to an image."""
        room = PeriodicCheck(self._check_room)
        counted_bytes, synced = image.offset_bytes, time.monotonic()

        def write(data: bytes | memoryview) -> None:
            _check_length(len(data), image)
            image.write(data)
            if digest is not None:
                digest.update(data)

        async def after_turn() -> None:
            nonlocal counted_bytes, synced
            self.received_bytes += image.offset_bytes - counted_bytes
            counted_bytes = image.offset_bytes
            room.check_if_due()
            unsynced_bytes = image.offset_bytes - image.image.offset_bytes
            is_due = unsynced_bytes >= SYNC_BYTES or time.monotonic() - synced >= SYNC_SECONDS
            if digest is None and is_due:
                await self._copier.settle(image.sync)
                synced = time.monotonic()

        await self._copier.copy(request, write, after_turn=after_turn)

    def _check_room(self) -> None:
        """Check whether the disk has room.

        Raises:
            RefusalError: It has not.
        """
        free, kept = self._free_bytes(), self._source.current.keep_free_bytes
        if free < kept:
            raise RefusalError(f"No space left on device: {free} bytes are free, {kept} are kept free")


class _Digest:
    """The checksum that a piece should have, and what it has.

    Args:
        text: As the client sends it.

    Raises:
        RefusalError: It is none that can be checked.
    """

    def __init__(self, text: str) -> None:
        algorithm, _, encoded = text.partition(" ")
        if algorithm not in ALGORITHMS:
            raise RefusalError(f"the algorithm of a checksum must be one of {', '.join(ALGORITHMS)}")
        try:
            self._wanted = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise RefusalError("a checksum must be in Base64") from None
        self._found = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take bytes of the piece."""
        self._found.update(data)

    def is_right(self) -> bool:
        """Return whether the bytes were those that were sent."""
        return self._found.digest() == self._wanted


def _check_length(count: int, image: OpenImage) -> None:
    """Check whether so many bytes more belong to an image.

    Raises:
        RefusalError: They don't.
    """
    if count > image.image.size_bytes - image.offset_bytes:
        raise RefusalError(f"the image has {image.image.size_bytes} bytes, and more are sent", status=413)
