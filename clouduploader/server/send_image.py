"""Send an image, or a range of it, in constant memory and without copying it.

The kernel moves the bytes from the file to the connection (sendfile), asked by a few threads: the file may have to be
read from the disk, which would hold the event loop. A client that takes nothing occupies no thread. By TLS the bytes
are read in these threads, and go out through asyncio's transport.
"""

import asyncio
import concurrent.futures
import os
import re
import select
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import BinaryIO, TypeVar

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.server.network import connections, waiting
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.util.frozen import frozen

THREADS = 4  # ours, as for images that come in
TURN_BYTES = 64 << 20  # a fast client leaves its thread to others after so much,
TURN_SECONDS = 0.5  # and any client after so long
LINGER_MS = 5  # a thread waits so long for a client to take more before it turns to another;
LONG_LINGER_MS = 250  # and so long if none waits for a thread: the way back through the event loop costs much more CPU
TLS_BYTES = 1 << 20  # read at once; measured: a quarter of it costs a third more CPU, four times as much gains nothing
CHECK_SECONDS = 1.0  # how often to check whether the client is there, takes something, and may have it
CONTENT_TYPE = "application/octet-stream"
HEADERS = {"Accept-Ranges": "bytes", "Cache-Control": "no-store", "Content-Type": CONTENT_TYPE}
_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.IGNORECASE)
T = TypeVar("T")


@frozen()
class SentPart:
    """The bytes of an image that an answer has.

    Attributes:
        start: The first.
        end: The one behind the last.
        is_range: Whether the client asked for a range.
    """

    start: int
    end: int
    is_range: bool


class ImageSender:
    """Sends images; its methods are for the event loop's thread.

    Args:
        source: The settings of the server.
    """

    def __init__(self, source: SettingsSource) -> None:
        self._source = source
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "send")
        self._count = 0  # of images that are sent now

    async def answer(
        self, request: web.BaseRequest, image: BinaryIO, *, sha256: str, check: Callable[[], None]
    ) -> web.StreamResponse:
        """Answer a GET or HEAD with an image, or with the range of it that the request names.

        Args:
            request: The request.
            image: Unbuffered; closed by the caller.
            sha256: Of all of it, in hex.
            check: Called every CHECK_SECONDS; raises a ClouduploaderError once the client may have no more.

        Raises:
            RefusalError: The image has none of the range's bytes.
            ConnectionError: The client went away, or took nothing for too long, or may have no more; or the image has
                become shorter.
        """
        size, etag = os.fstat(image.fileno()).st_size, f'"{sha256}"'
        part = _part(request, size, etag)
        answer = web.StreamResponse(status=HTTPStatus.PARTIAL_CONTENT if part.is_range else HTTPStatus.OK)
        answer.headers.update({**HEADERS, "ETag": etag})
        if part.is_range:
            answer.headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
        answer.content_length = part.end - part.start
        answer.force_close()
        await answer.prepare(request)
        if request.method != "HEAD":
            sending = _Sending(request, answer, image, part, self._threads, linger_ms=self._linger_ms)
            self._count += 1
            try:
                await sending.run(check, self._source)
            finally:
                self._count -= 1
        await answer.write_eof()
        return answer

    def _linger_ms(self) -> int:
        return LONG_LINGER_MS if self._count <= THREADS else LINGER_MS

    def close(self) -> None:
        """End the threads; nothing may be sent any more."""
        self._threads.shutdown()


class _Sending:
    """The sending of one answer's bytes.

    Args:
        request: The request.
        answer: Prepared.
        image: The image.
        part: What of it is sent.
        threads: Where that is done.
        linger_ms: Returns how long one of them waits for the client to take more, in ms.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        answer: web.StreamResponse,
        image: BinaryIO,
        part: SentPart,
        threads: concurrent.futures.Executor,
        *,
        linger_ms: Callable[[], int],
    ) -> None:
        self._request, self._answer, self._threads = request, answer, threads
        self._linger_ms = linger_ms
        self._descriptor = image.fileno()
        self._position, self._end = part.start, part.end

    async def run(self, check: Callable[[], None], source: SettingsSource) -> None:
        """Send all; see `ImageSender.answer`."""
        task = asyncio.create_task(self._send())
        seen, moved_at = self._position, time.monotonic()
        try:
            while not (await asyncio.wait([task], timeout=CHECK_SECONDS))[0]:
                check()
                if self._position != seen:
                    seen, moved_at = self._position, time.monotonic()
                elif time.monotonic() - moved_at >= source.current.idle_seconds:
                    raise ConnectionError("the client took nothing for too long")
                if self._request.transport is None:
                    raise ConnectionError("the connection is closed")
            task.result()
        except ClouduploaderError as exc:
            raise ConnectionError(exc.message) from exc  # an answer has begun, and can't become another
        finally:
            task.cancel()
            await asyncio.wait([task])
            if self._position < self._end and self._request.transport:
                self._request.transport.abort()  # closed in order, it would wait for a client that takes nothing

    async def _send(self) -> None:
        transport = self._request.transport
        if transport is None:
            raise ConnectionError("the connection is closed")
        if transport.get_extra_info("sslcontext"):
            await self._copy()
            return
        writer = self._request.writer
        writer.send_headers()
        transport.set_write_buffer_limits(0)  # so that `drain` waits until all of the head is on its way
        await writer.drain()
        with transport.get_extra_info("socket").dup() as sock:
            sock.setblocking(False)
            while self._position < self._end:
                if not await self._in_thread(self._turn, sock):
                    await waiting.until_writable(sock)

    async def _copy(self) -> None:
        """Read the bytes, and write them to the transport."""
        connection = connections.connection_of(self._request)
        while self._position < self._end:
            count = min(TLS_BYTES, self._end - self._position)
            block = await self._in_thread(os.pread, self._descriptor, count, self._position)
            if not block:
                raise ConnectionError("the image has become shorter")
            await connection.send(self._answer, block)
            self._position += len(block)

    def _turn(self, sock: socket.socket) -> bool:
        """In a thread: send what the client takes at once; return False if it has enough for now.

        Raises:
            ConnectionError: The client is gone, or the image has become shorter.
        """
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        end, ends_at = min(self._end, self._position + TURN_BYTES), time.monotonic() + TURN_SECONDS
        while self._position < end and time.monotonic() < ends_at:
            try:
                count = os.sendfile(sock.fileno(), self._descriptor, self._position, end - self._position)
            except BlockingIOError:
                if not poll.poll(self._linger_ms()):
                    return False
                continue
            if not count:
                raise ConnectionError("the image has become shorter")
            self._position += count
        return True

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await waiting.until_done(asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments))


def _part(request: web.BaseRequest, size: int, etag: str) -> SentPart:
    """Return what of an image a request asks for (RFC 9110, 14.2): all of it, where it may leave a range out.

    A range is left out that is none, or of several parts, or that is wanted of another image only.

    Raises:
        RefusalError: The image has none of those bytes.
    """
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if not found or request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return SentPart(0, size, is_range=False)
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return SentPart(0, size, is_range=False)
    if start >= end:
        raise RefusalError(
            f"the image has {size} bytes, and none of those",
            status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return SentPart(start, end, is_range=True)
