"""Copy the bodies of requests that bring images, or pieces of them, in constant memory.

A body of known length is read from the socket past aiohttp, which takes half as much CPU time again for it, and five
times as much in the small pieces that it may read at once (bench/README.rst): its transport stops reading, and a few
threads copy what the kernel has from the socket to the file, each through one buffer of its own. A client that sends
nothing occupies no thread. What comes by TLS, and a body in chunks, goes through aiohttp's parser.
"""

import asyncio
import concurrent.futures
import contextlib
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from aiohttp import web

from clouduploader.server.network import body, connections, waiting
from clouduploader.server.settings import SettingsSource

THREADS = 4  # ours: a few of each kind, so that one that waits for the disk delays no other
BUFFER_BYTES = 1 << 20  # of each; measured: a quarter of it costs a third more CPU, four times twice as much
TURN_BYTES = 64 << 20  # a fast sender leaves its thread to others after so much,
TURN_SECONDS = 0.5  # and any sender after so long
LINGER_MS = 5  # a thread waits so long for more before it takes another client's bytes
SMALL_BYTES = 65_536  # after a turn with less, wait a little: it was not worth a thread
PAUSES = (0.0, 0.01, 0.05, 0.25)  # seconds, after none, one, two, more such turns: 1000 slow clients are no load
SMALL_PIECE_BYTES = 1024  # so of a piece in chunks, of which no more than READ_BYTES of `connections` come at once
CHECK_SECONDS = 1.0  # how often to check whether an image is still wanted

T = TypeVar("T")
Write = Callable[[bytes | memoryview], object]


class BodyCopier:
    """Copies bodies in threads that all of them share; its methods are for the event loop's thread.

    Args:
        source: The settings of the server.
    """

    def __init__(self, source: SettingsSource) -> None:
        self._source = source
        self._copy_threads = concurrent.futures.ThreadPoolExecutor(THREADS, "receive")
        self._settle_threads = concurrent.futures.ThreadPoolExecutor(THREADS, "settle")  # they wait for disk and locks
        self._buffers = threading.local()

    async def copy(self, request: web.BaseRequest, write: Write, *, after_turn: Callable[[], Awaitable[None]]) -> None:
        """Ask for the body of a request, and copy it; under `paused_reading`.

        Args:
            request: The request.
            write: Called in a thread with the next bytes. It refuses too many of a body whose length is not known.
            after_turn: Awaited when a thread has copied some bytes, and every CHECK_SECONDS while nothing comes.

        Raises:
            TruncatedError: The client sent less than it said, or nothing for too long.
            Exception: What `write` and `after_turn` raise.
        """
        await body.ask_for(request)
        if _is_copied(request):
            await self._copy_socket(request, write, after_turn)
        else:
            await self._copy_parsed(request, write, after_turn)

    async def settle(self, function: Callable[[], T]) -> T:
        """Do in a thread what waits for the disk or a lock."""
        return await waiting.until_done(asyncio.get_running_loop().run_in_executor(self._settle_threads, function))

    def close(self) -> None:
        """End the threads; nothing may be copied any more."""
        self._copy_threads.shutdown()
        self._settle_threads.shutdown()

    async def _copy_parsed(
        self, request: web.BaseRequest, write: Write, after_turn: Callable[[], Awaitable[None]]
    ) -> None:
        """Copy what aiohttp's parser gives."""
        small_turns = 0
        while piece := await self._next_piece(request, after_turn):
            await self._in_thread(write, piece)
            connections.connection_of(request).release()
            await after_turn()
            small_turns = min(small_turns + 1, len(PAUSES) - 1) if len(piece) < SMALL_PIECE_BYTES else 0
            if small_turns:
                await asyncio.sleep(PAUSES[small_turns])

    async def _next_piece(self, request: web.BaseRequest, after_turn: Callable[[], Awaitable[None]]) -> bytes:
        """Return the next bytes, none at the end."""
        task = asyncio.create_task(body.next_piece(request, self._source.current.idle_seconds))
        try:
            while not (await asyncio.wait([task], timeout=CHECK_SECONDS))[0]:
                await after_turn()
            return task.result()
        finally:
            task.cancel()

    async def _copy_socket(
        self, request: web.BaseRequest, write: Write, after_turn: Callable[[], Awaitable[None]]
    ) -> None:
        """Copy what the socket has, without aiohttp."""
        transport, left_bytes = request.transport, request.content_length or 0
        if transport is None:
            raise body.TruncatedError
        while True:
            piece = _buffered(request)
            transport.pause_reading()  # again each time: taking from the buffer may resume it
            if not piece:
                break
            await self._in_thread(write, piece)
            left_bytes -= len(piece)
            connections.connection_of(request).release()
            await after_turn()
        with transport.get_extra_info("socket").dup() as sock:
            sock.setblocking(False)
            is_whole = await self._pump(sock, left_bytes, write, after_turn)
        # aiohttp need not wait for what was read past it. Nor may it read on, which it does then: it would close the
        # connection at the client's end of data, and a client that has only closed its half would get no answer.
        request.content.feed_eof()
        transport.pause_reading()
        if not is_whole:
            raise body.TruncatedError

    async def _pump(
        self, sock: socket.socket, left_bytes: int, write: Write, after_turn: Callable[[], Awaitable[None]]
    ) -> bool:
        """Copy all bytes that come.

        Returns:
            Whether these were all; else the client sends no more, or sent nothing for too long.
        """
        small_turns, idle_since = 0, time.monotonic()
        while left_bytes:
            moved, is_over = await self._in_thread(self._turn, sock, left_bytes, write)
            left_bytes -= moved
            await after_turn()
            if is_over:
                break
            now = time.monotonic()
            if moved:
                idle_since = now
            elif now - idle_since >= self._source.current.idle_seconds:
                break
            if moved < SMALL_BYTES and left_bytes:
                await asyncio.sleep(PAUSES[min(small_turns, len(PAUSES) - 1)])
                small_turns = min(small_turns + 1, len(PAUSES))
                await waiting.until_readable(sock, CHECK_SECONDS)
            else:
                small_turns = 0
        return not left_bytes

    def _turn(self, sock: socket.socket, left_bytes: int, write: Write) -> tuple[int, bool]:
        """In a thread: copy what there is, and what comes at once after it.

        Returns:
            How many bytes, and whether the client sends no more.
        """
        if not hasattr(self._buffers, "buffer"):
            self._buffers.buffer = memoryview(bytearray(BUFFER_BYTES))
        buffer: memoryview = self._buffers.buffer
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        moved, most_bytes, ends = 0, min(left_bytes, TURN_BYTES), time.monotonic() + TURN_SECONDS
        while moved < most_bytes and time.monotonic() < ends:
            try:
                count = sock.recv_into(buffer, min(most_bytes - moved, BUFFER_BYTES))
            except BlockingIOError:
                if moved < SMALL_BYTES or not poll.poll(LINGER_MS):
                    break
                continue
            except OSError:
                return moved, True
            if not count:
                return moved, True
            write(buffer[:count])
            moved += count
        return moved, False

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await waiting.until_done(
            asyncio.get_running_loop().run_in_executor(self._copy_threads, function, *arguments)
        )


class PeriodicCheck:
    """A check that is made no more often than every CHECK_SECONDS.

    Args:
        check: Makes it.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._due = time.monotonic() + CHECK_SECONDS

    def check_if_due(self) -> None:
        """Make the check, if it is time."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + CHECK_SECONDS
            self._check()


@contextlib.contextmanager
def paused_reading(request: web.BaseRequest) -> Iterator[None]:
    """Pause aiohttp's reading of a body that is copied; on an error it reads on, and throws away what comes."""
    transport = request.transport
    if transport is None or not _is_copied(request):
        yield
        return
    transport.pause_reading()
    try:
        yield
    finally:
        if not request.content.is_eof():
            transport.resume_reading()  # a client that is still sending does not listen yet


def _is_copied(request: web.BaseRequest) -> bool:
    """Return whether a body is copied from the socket past aiohttp: of known length, and as it is, without TLS."""
    has_tls = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
    return request.content_length is not None and not has_tls


def _buffered(request: web.BaseRequest) -> bytes:
    """Return what aiohttp has read of a body already.

    Raises:
        TruncatedError: The client is gone.
    """
    try:
        return request.content.read_nowait()
    except (web.RequestPayloadError, ConnectionError) as exc:
        raise body.TruncatedError from exc
