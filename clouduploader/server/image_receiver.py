"""Receive images in constant memory, and schedule their jobs.

A body of known length is read from the socket past aiohttp, which takes half as much CPU time again for it
(bench/README.rst): its transport stops reading, and a few threads copy what the kernel has from the socket to
the file, each through one buffer of its own. A client that sends nothing occupies no thread. What comes by TLS, and a
body in chunks, neither of which OBS's source server sends, goes through aiohttp's parser.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Set
from typing import TypeVar

from aiohttp import web

from clouduploader.errors import ClouduploaderError, ImageError, JobFileError, JobStateError, NoSuchJobError
from clouduploader.model.job import Details, JobState
from clouduploader.server import body, connections, replies
from clouduploader.server.places import Place, Places
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.store import spool
from clouduploader.store.spool.incoming import IncomingImage
from clouduploader.util.service_log import ServiceLog

THREADS = 4  # ours: a few of each kind, so that one that waits for the disk delays no other
BUFFER_BYTES = 1 << 20  # of each; measured: a quarter of it costs a third more CPU, four times twice as much
TURN_BYTES = 64 << 20  # a fast sender leaves its thread to others after so much
LINGER_MS = 5  # a thread waits so long for more before it takes another client's bytes
SMALL_BYTES = 65_536  # after a turn with less, wait a little: it was not worth a thread
PAUSES = (0.0, 0.01, 0.05, 0.25)  # seconds, after none, one, two, more such turns: 1000 slow clients are no load
SMALL_PIECE_BYTES = 1024  # so of a piece in chunks, of which no more than READ_BYTES of `connections` come at once
CHECK_SECONDS = 1.0  # how often to check whether an image is still wanted
STOPPED = "the server was stopped while it received the image"

T = TypeVar("T")


class ImageReceiver:
    """Receives the images of all clients; its methods are for the event loop's thread.

    Args:
        jobs: The spool.
        source: The settings of the server.
        log: Gets what becomes of jobs.
        places: Has one for each image.
    """

    def __init__(self, jobs: spool.Spool, source: SettingsSource, log: ServiceLog, *, places: Places) -> None:
        self._jobs = jobs
        self._source = source
        self._log = log
        self._copy_threads = concurrent.futures.ThreadPoolExecutor(THREADS, "receive")
        self._record_threads = concurrent.futures.ThreadPoolExecutor(THREADS, "record")  # they wait for disk and locks
        self._buffers = threading.local()
        self._is_stopping = False
        self._names: set[str] = set()
        self._open: dict[str, IncomingImage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = places
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
        place.cancel = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if place.refusal:
                raise place.refusal from None
            raise
        finally:
            self._places.leave(place)

    async def stop(self) -> None:
        """Stop receiving: the jobs of all images fail. Afterwards there are no threads."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._copy_threads.shutdown()
        self._record_threads.shutdown()

    async def _receive(self, name: str, place: Place, request: web.BaseRequest) -> None:
        with _obs_refusals(self._jobs, name):
            if name in self._names:
                raise JobStateError(f"the image of the job {name} is on its way already")
            # Before the job is in state receiving: `expire` must not take it for one that is not received any more.
            self._names.add(name)
            begun: list[IncomingImage] = []
            try:
                with _paused_reading(request):
                    await self._record(lambda: begun.append(self._jobs.receive(name)))
                    incoming = begun[0]
                    place.begin(lambda: (incoming.received_bytes, incoming.job.size or 0))
                    await self._complete(begun[0], request)
            except BaseException as exc:
                for incoming in begun:  # none if there is no such job
                    await self._record(functools.partial(self._abandon, incoming, self._job_error(exc, place)))
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

            await self._record(functools.partial(incoming.finish, announce=announce))
        finally:
            self._received_bytes += incoming.received_bytes
            del self._open[name]

    async def _read(self, incoming: IncomingImage, request: web.BaseRequest) -> None:
        length, size = request.content_length, incoming.job.size or 0
        if length is not None and length != size:
            raise ImageError(f"size mismatch: {length} != {size}")
        self.check_space(size, name=incoming.job.name)
        await body.ask_for(request)
        if length is None or not _is_copied(request):
            await self._read_pieces(incoming, request)
        else:
            await self._read_socket(incoming, request, length)

    async def _read_pieces(self, incoming: IncomingImage, request: web.BaseRequest) -> None:
        """Write what aiohttp's parser gives; no more than the job's size."""
        size = incoming.job.size or 0
        wanted = _PeriodicCheck(functools.partial(self._check_wanted, incoming))
        small_turns = 0
        while True:
            piece = await self._next_piece(request, wanted)
            if not piece:
                return
            if incoming.received_bytes + len(piece) > size:
                raise ImageError(f"size mismatch: {incoming.received_bytes + len(piece)} != {size}")
            await self._copy(incoming.write, piece)
            connections.connection_of(request).release()
            wanted.check_if_due()
            small_turns = min(small_turns + 1, len(PAUSES) - 1) if len(piece) < SMALL_PIECE_BYTES else 0
            if small_turns:
                await asyncio.sleep(PAUSES[small_turns])

    async def _next_piece(self, request: web.BaseRequest, wanted: "_PeriodicCheck") -> bytes:
        """Return the next bytes, none at the end; meanwhile make the check."""
        task = asyncio.create_task(body.next_piece(request, self._source.current.idle_seconds))
        try:
            while not (await asyncio.wait([task], timeout=CHECK_SECONDS))[0]:
                wanted.check_if_due()
            return task.result()
        except RefusalError as exc:
            raise ImageError(Details.CUT_OFF) from exc
        finally:
            task.cancel()

    async def _read_socket(self, incoming: IncomingImage, request: web.BaseRequest, length: int) -> None:
        """Copy the body from the socket to the file, without aiohttp."""
        transport = request.transport
        if transport is None:
            raise ImageError(Details.CUT_OFF)
        while True:
            piece = _buffered(request)
            transport.pause_reading()  # again each time: taking from the buffer may resume it
            if not piece:
                break
            await self._copy(incoming.write, piece)
            connections.connection_of(request).release()
        with transport.get_extra_info("socket").dup() as sock:
            sock.setblocking(False)
            is_whole = await self._pump(incoming, sock, length)
        # aiohttp need not wait for what was read past it. Nor may it read on, which it does then: it would close the
        # connection at the client's end of data, and a client that has only closed its half would get no answer.
        request.content.feed_eof()
        transport.pause_reading()
        if not is_whole:
            raise ImageError(Details.CUT_OFF)

    async def _pump(self, incoming: IncomingImage, sock: socket.socket, length: int) -> bool:
        """Copy all bytes that come.

        Returns:
            Whether these were all; else the client sends no more.

        Raises:
            ImageError: It sent nothing for too long.
            NoSuchJobError, RefusalError: See `_check_wanted`.
            LocalIOError: The bytes can't be written.
        """
        wanted = _PeriodicCheck(functools.partial(self._check_wanted, incoming))
        small_turns, idle_since = 0, time.monotonic()
        while incoming.received_bytes < length:
            moved, is_over = await self._copy(self._turn, incoming, sock, length)
            wanted.check_if_due()
            if is_over:
                break
            now = time.monotonic()
            if moved:
                idle_since = now
            elif now - idle_since >= self._source.current.idle_seconds:
                raise ImageError(Details.CUT_OFF)
            if moved < SMALL_BYTES and incoming.received_bytes < length:
                await asyncio.sleep(PAUSES[min(small_turns, len(PAUSES) - 1)])
                small_turns = min(small_turns + 1, len(PAUSES))
                await _readable(sock, CHECK_SECONDS)
            else:
                small_turns = 0
        return incoming.received_bytes == length

    def _turn(self, incoming: IncomingImage, sock: socket.socket, length: int) -> tuple[int, bool]:
        """In a thread: copy what there is, and what comes at once after it.

        Returns:
            How many bytes, and whether the client sends no more.
        """
        if not hasattr(self._buffers, "buffer"):
            self._buffers.buffer = memoryview(bytearray(BUFFER_BYTES))
        buffer: memoryview = self._buffers.buffer
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        moved = 0
        while moved < TURN_BYTES and (left := length - incoming.received_bytes):
            try:
                count = sock.recv_into(buffer, min(left, BUFFER_BYTES))
            except BlockingIOError:
                if moved < SMALL_BYTES or not poll.poll(LINGER_MS):
                    break
                continue
            except OSError:
                return moved, True
            if not count:
                return moved, True
            incoming.write(buffer[:count])
            moved += count
        return moved, False

    def _job_error(self, error: BaseException, place: Place) -> BaseException:
        """Return the error whose message becomes the job's details."""
        if isinstance(error, ClouduploaderError):
            return replies.to_refusal(error)
        if not isinstance(error, asyncio.CancelledError):
            return error
        return ImageError(STOPPED) if self._is_stopping else place.refusal or error

    async def _copy(self, function: Callable[..., T], *arguments: object) -> T:
        return await finished(asyncio.get_running_loop().run_in_executor(self._copy_threads, function, *arguments))

    async def _record(self, function: Callable[[], T]) -> T:
        return await finished(asyncio.get_running_loop().run_in_executor(self._record_threads, function))


class _PeriodicCheck:
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


async def finished(future: Awaitable[T]) -> T:
    """Wait for a thread's result; if cancelled, however often, until the thread is done: it uses files of this task."""
    task = asyncio.ensure_future(future)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()  # the client is gone; asyncio would log an exception that was never retrieved
        raise


def _is_copied(request: web.BaseRequest) -> bool:
    """Return whether a body is copied from the socket past aiohttp: of known length, and as it is, without TLS."""
    has_tls = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
    return request.content_length is not None and not has_tls


def _buffered(request: web.BaseRequest) -> bytes:
    """Return what aiohttp has read of a body already.

    Raises:
        ImageError: The client is gone.
    """
    try:
        return request.content.read_nowait()
    except (web.RequestPayloadError, ConnectionError) as exc:
        raise ImageError(Details.CUT_OFF) from exc


async def _readable(sock: socket.socket, timeout_seconds: float) -> None:
    """Wait until a socket can be read, or has ended; at most so long."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        loop.remove_reader(sock)
        if not future.done():
            future.set_result(None)

    loop.add_reader(sock, ready)
    try:
        await asyncio.wait([future], timeout=timeout_seconds)
    finally:
        loop.remove_reader(sock)
        future.cancel()


@contextlib.contextmanager
def _paused_reading(request: web.BaseRequest) -> Iterator[None]:
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


@contextlib.contextmanager
def _obs_refusals(jobs: spool.Spool, name: str) -> Iterator[None]:
    """Raise errors about the job as OBS's server words them."""
    try:
        yield
    except JobStateError as exc:
        raise RefusalError("job is not in created state") from exc
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_file(jobs.job_path(name)) from exc
