"""Receive pieces of images that come over several requests, so that one that breaks off loses next to nothing.

A request for an image ends the one before it that sends some of it: its client is gone, or has lost the connection
and comes again by another one, long before the server can notice that.
"""

import asyncio
import base64
import binascii
import concurrent.futures
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.server import body, connections, image_receiver
from clouduploader.server.places import Place, Places
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.store.images import ImageStore, OpenImage

THREADS = 4  # ours: disks make them wait, and nothing else is to wait with them
ALGORITHMS = ("sha256", "sha1")  # of checksums; tus wants the second
SYNC_BYTES = 64 << 20  # what comes is written to the disk each time there is so much of it,
SYNC_SECONDS = 5.0  # or after so long: what a crash may lose
CHECK_SECONDS = 1.0  # how often to look whether the disk still has room
OVERTAKEN = "another request goes on with this image"

T = TypeVar("T")


class PieceReceiver:
    """Receives pieces of images; its methods are for the event loop's thread.

    Args:
        images: Where they go.
        source: The settings of the server.
        places: Has one for each image.
        free_bytes: Says how many are free on the disk.

    Attributes:
        received_bytes: How many bytes of images have been received since the start.
    """

    def __init__(
        self, images: ImageStore, source: SettingsSource, *, places: Places, free_bytes: Callable[[], int]
    ) -> None:
        self._images = images
        self._source = source
        self._places = places
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "piece")
        self._free_bytes = free_bytes
        self.received_bytes = 0
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._overtaken: set[asyncio.Task[int]] = set()

    @property
    def count(self) -> int:
        """How many images are coming in."""
        return len(self._tasks)

    async def end(self, name: str) -> None:
        """End the request that sends some of an image, if there is one; what came by it is on the disk then."""
        while task := self._tasks.get(name):
            self._overtaken.add(task)
            task.cancel()
            await asyncio.wait([task])
            self._forget(name, task)

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
        place.cancel = task.cancel
        self._tasks[name] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if task in self._overtaken:
                raise RefusalError(OVERTAKEN, status=409) from None
            if place.refusal:
                raise place.refusal from None
            raise
        finally:
            self._places.leave(place)
            self._overtaken.discard(task)
            self._forget(name, task)

    async def stop(self) -> None:
        """Stop receiving: what came is on the disk afterwards, and there are no threads."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._threads.shutdown()

    def _forget(self, name: str, task: asyncio.Task[int]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _receive(
        self, name: str, place: Place, request: web.BaseRequest, offset_bytes: int, digest: "_Digest | None"
    ) -> int:
        with contextlib.ExitStack() as stack:
            # Entered in the thread: if this task is cancelled meanwhile, it is closed.
            image = await self._in_thread(lambda: stack.enter_context(self._images.open(name)))
            if image.offset_bytes != offset_bytes:
                raise RefusalError(f"the next byte is {image.offset_bytes}, not {offset_bytes}", status=409)
            self._check_length(request.content_length or 0, image)
            # Never all of it: a place that is lost costs nothing, as what came stays.
            place.begin(lambda: (image.offset_bytes - offset_bytes, image.image.size_bytes - offset_bytes + 1))
            try:
                await self._read(image, request, digest)
            except (asyncio.CancelledError, ClouduploaderError):
                if digest is None:
                    with contextlib.suppress(ClouduploaderError):  # the one that ends the request is told
                        await self._in_thread(image.sync)
                raise
            if digest is not None and not digest.is_right():
                raise RefusalError("what came has another checksum", status=460)
            await self._in_thread(image.sync)
            return image.offset_bytes

    async def _read(self, image: OpenImage, request: web.BaseRequest, digest: "_Digest | None") -> None:
        """Append the body of a request to an image."""
        synced, synced_bytes = time.monotonic(), image.offset_bytes
        room = self._room()
        await body.ask_for(request)
        while piece := await body.next_piece(request, self._source.current.idle_seconds):
            next(room)
            self._check_length(len(piece), image)

            def take(piece: bytes = piece) -> None:
                image.write(piece)
                if digest is not None:
                    digest.update(piece)

            await self._in_thread(take)
            self.received_bytes += len(piece)
            connections.connection_of(request).release()
            now = time.monotonic()
            is_due = image.offset_bytes - synced_bytes >= SYNC_BYTES or now - synced >= SYNC_SECONDS
            if digest is None and is_due:
                await self._in_thread(image.sync)
                synced, synced_bytes = time.monotonic(), image.offset_bytes

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run a function in a thread, and wait for it in any case: it uses files of the task."""
        return await image_receiver.finished(asyncio.get_running_loop().run_in_executor(self._threads, function))

    def _check_length(self, count: int, image: OpenImage) -> None:
        if count > image.image.size_bytes - image.offset_bytes:
            raise RefusalError(f"the image has {image.image.size_bytes} bytes, and more are sent", status=413)

    def _room(self) -> Iterator[None]:
        """Look at each step whether the disk has room, unless that was done CHECK_SECONDS ago.

        Raises:
            RefusalError: It has not.
        """
        while True:
            free, kept = self._free_bytes(), self._source.current.keep_free_bytes
            if free < kept:
                raise RefusalError(f"No space left on device: {free} bytes are free, {kept} are kept free")
            checked = time.monotonic()
            yield
            while time.monotonic() - checked < CHECK_SECONDS:
                yield


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

    def update(self, data: bytes) -> None:
        """Take bytes of the piece."""
        self._found.update(data)

    def is_right(self) -> bool:
        """Return whether the bytes were those that were sent."""
        return self._found.digest() == self._wanted
