"""Images on their way in: admitted, received in constant memory, and turned into scheduled jobs.

A body of known length is read from the socket past aiohttp, which takes half as much CPU time again for it
(bench/README.rst): its transport is told to rest, and a few threads move what the kernel has from the socket to
the file, each through one buffer of its own. A client without anything to read costs no thread. A body in
chunks, which OBS's source server never sends, goes through aiohttp's parser.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import math
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
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.store import spool
from clouduploader.store.spool.incoming import IncomingImage
from clouduploader.util.service_log import ServiceLog

THREADS = 4  # that move bytes; ours: a few, so that one that waits for the disk holds up no other
BUFFER_BYTES = 1 << 20  # of each; measured: a quarter of it costs a third more CPU, four times twice as much
TURN_BYTES = 64 << 20  # a fast sender leaves its thread to others after so much
LINGER_MS = 5  # a thread waits so long for more before it takes another client's bytes
SMALL_BYTES = 65_536  # a turn with less was not worth a thread: wait a little for the next
PAUSES = (0.0, 0.01, 0.05, 0.25)  # seconds, after none, one, two, more such turns: 1000 slow clients are no load
SMALL_PIECE_BYTES = 1024  # so of a piece in chunks, of which no more than READ_BYTES of `connections` come at once
LOOK_SECONDS = 1.0  # how often to look whether an image is to come on
RATE_SECONDS = 10.0  # over which it is measured how fast an image comes
MIN_RATE = 16_384  # bytes a second; who is slower makes way if there is no room for others: a GiB would take 18 hours
OTHERS_SHARE = 8  # one client leaves an eighth of the room to others
STOPPED = "the server was stopped while it received the image"

T = TypeVar("T")


class ImageReceiver:
    """Who sends an image, and how much is to come.

    Args:
        jobs: The spool.
        source: The settings of the server.
        log: Is told what becomes of jobs.
    """

    def __init__(self, jobs: spool.Spool, source: SettingsSource, log: ServiceLog) -> None:
        self._jobs = jobs
        self._source = source
        self._log = log
        self._movers = concurrent.futures.ThreadPoolExecutor(THREADS, "receive")
        self._settlers = concurrent.futures.ThreadPoolExecutor(THREADS, "settle")  # they wait for disk and locks
        self._buffers = threading.local()
        self._is_stopping = False
        self._names: set[str] = set()
        self._open: dict[str, IncomingImage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transfers: dict[_Transfer, None] = {}
        self._received_bytes = 0  # of those that have ended

    @property
    def names(self) -> Set[str]:
        """The jobs whose images are on their way in, from before the spool says so to after; it changes as they do."""
        return self._names

    @property
    def received_bytes(self) -> int:
        """How many bytes have been received since the start; only for the event loop's thread."""
        return self._received_bytes + sum(reception.received_bytes for reception in self._open.values())

    def check_space(self, size_bytes: int, *, name: str | None = None) -> None:
        """Refuse an image that would not fit beside those that are on their way.

        Args:
            size_bytes: How large it is.
            name: Its job, if it is on its way itself.

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
        """Refuse a job if few more files can be made: those that are there need some to be uploaded and archived.

        Raises:
            RefusalError: So it is.
        """
        free, kept = self._jobs.free_inodes(), self._source.current.keep_free_inodes
        if free is not None and free < kept:
            raise RefusalError(f"No space left on device: {free} inodes are free, {kept} are kept free")

    def _look_after(self, reception: IncomingImage) -> None:
        """Look whether an image is to come on: its job may be killed by anybody, and others write to the disk too.

        Raises:
            NoSuchJobError: It was killed.
            RefusalError: Less is free than is to be kept.
        """
        job, _ = self._jobs.read(reception.job.name)
        if job.state is not JobState.RECEIVING:
            raise NoSuchJobError(f"the job {job.name} is {job.state}")
        free, kept = self._jobs.free_bytes(), self._source.current.keep_free_bytes
        if free < kept:
            raise RefusalError(f"No space left on device: {free} bytes are free, {kept} are kept free")

    async def receive(self, name: str, request: web.BaseRequest) -> None:
        """Take the image that comes with a request, and schedule its job.

        Raises:
            RefusalError: It was not taken; in OBS's words.
        """
        if not body.is_attached(request):
            raise RefusalError("read_file: no content attached")
        client = connections.of(request).client
        self._make_room(client)
        transfer = _Transfer(name, client)
        task = asyncio.create_task(self._receive(transfer, request))
        transfer.cancel = task.cancel
        self._tasks.add(task)
        self._transfers[transfer] = None
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            if transfer.refusal:
                raise transfer.refusal from None
            raise
        finally:
            self._transfers.pop(transfer, None)

    def _make_room(self, client: str) -> None:
        """Have room for one more image: if there is none, the slowest makes way.

        Raises:
            RefusalError: There is none, and all come quickly.
        """
        most = self._source.current.max_transfers
        counts = collections.Counter(it.client for it in self._transfers)
        if counts[client] >= most - most // OTHERS_SHARE:
            rivals = [it for it in self._transfers if it.client == client]
        elif len(self._transfers) >= most:
            rivals = list(self._transfers)
        else:
            return
        now = time.monotonic()
        slowest = min(rivals, key=lambda it: it.rate(now))
        if slowest.rate(now) >= MIN_RATE:
            raise RefusalError("too many images are on their way in", status=503, is_coded=True)
        del self._transfers[slowest]
        slowest.refusal = RefusalError("the image came too slowly, and others wait", status=503, is_coded=True)
        slowest.cancel()

    async def measure_forever(self) -> None:
        """See how fast the images come."""
        while True:
            await asyncio.sleep(RATE_SECONDS)
            for transfer in self._transfers:
                transfer.mark(time.monotonic())

    async def stop(self) -> None:
        """Take no more of any image; their jobs fail. Afterwards there are no threads."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._movers.shutdown()
        self._settlers.shutdown()

    async def _receive(self, transfer: "_Transfer", request: web.BaseRequest) -> None:
        name = transfer.name
        with _in_words_of_obs(self._jobs, name):
            if name in self._names:
                raise JobStateError(f"the image of the job {name} is on its way already")
            # Before the job is in state receiving: who looks for those that nobody receives must know of it.
            self._names.add(name)
            begun: list[IncomingImage] = []
            try:
                with _resting(request):
                    await self._settle(lambda: begun.append(self._jobs.receive(name)))
                    transfer.begin(begun[0])
                    await self._take(begun[0], request)
            except BaseException as exc:
                for reception in begun:  # none if there is no such job
                    await self._settle(functools.partial(self._abandon, reception, self._told(exc, transfer)))
                raise
            finally:
                self._names.discard(name)

    def _abandon(self, reception: IncomingImage, error: BaseException) -> None:
        """In a thread: fail a job; if that can't be written now, those who look for old jobs come back to it."""
        try:
            reception.abandon(error)
        except ClouduploaderError as exc:
            self._log.tell("trouble", job=reception.job.name, text=exc.message)
        else:
            self._tell_end(reception)

    def _tell_end(self, reception: IncomingImage) -> None:
        """Write down how a job ended whose image was not taken: as its record says, whoever wrote that."""
        name = reception.job.name
        try:
            job, _ = self._jobs.read(name)
        except ClouduploaderError as exc:  # somebody was quick to remove it
            self._log.tell("trouble", job=name, text=exc.message)
            return
        if job.state is JobState.FAILED:  # else all of it was here when the client left
            self._log.tell("failed", job=name, bytes=reception.received_bytes, details=job.details)

    async def _take(self, reception: IncomingImage, request: web.BaseRequest) -> None:
        """Bring a reception to its end, if nothing happens."""
        name, began = reception.job.name, time.monotonic()
        self._open[name] = reception
        self._log.tell("receiving", job=name, client=request.remote)
        try:
            await self._read(reception, request)

            def announce() -> None:
                seconds = time.monotonic() - began
                self._log.tell("scheduled", job=name, bytes=reception.received_bytes, seconds=seconds)

            await self._settle(functools.partial(reception.finish, announce=announce))
        finally:
            self._received_bytes += reception.received_bytes
            del self._open[name]

    async def _read(self, reception: IncomingImage, request: web.BaseRequest) -> None:
        length, size = request.content_length, reception.job.size or 0
        if length is not None and length != size:
            raise ImageError(f"size mismatch: {length} != {size}")
        self.check_space(size, name=reception.job.name)
        await body.ask_for(request)
        if length is None:
            await self._read_chunks(reception, request)
        else:
            await self._read_socket(reception, request, length)

    async def _read_chunks(self, reception: IncomingImage, request: web.BaseRequest) -> None:
        """Write what aiohttp's parser gives; no more than the job's size, whatever comes."""
        size = reception.job.size or 0
        watch = _Watch(functools.partial(self._look_after, reception))
        small_turns = 0
        while True:
            try:
                piece = await body.next_piece(request, self._source.current.idle_seconds)
            except RefusalError as exc:
                raise ImageError(Details.CUT_OFF) from exc
            if not piece:
                return
            if reception.received_bytes + len(piece) > size:
                raise ImageError(f"size mismatch: {reception.received_bytes + len(piece)} != {size}")
            await self._move(reception.write, piece)
            connections.of(request).release()
            watch.look()
            small_turns = min(small_turns + 1, len(PAUSES) - 1) if len(piece) < SMALL_PIECE_BYTES else 0
            if small_turns:
                await asyncio.sleep(PAUSES[small_turns])

    async def _read_socket(self, reception: IncomingImage, request: web.BaseRequest, length: int) -> None:
        """Move the body from the socket to the file, without aiohttp."""
        transport = request.transport
        if transport is None:
            raise ImageError(Details.CUT_OFF)
        while True:
            piece = _buffered(request)
            transport.pause_reading()  # again each time: taking from the buffer may set it going
            if not piece:
                break
            await self._move(reception.write, piece)
            connections.of(request).release()
        with transport.get_extra_info("socket").dup() as sock:
            sock.setblocking(False)
            is_whole = await self._pump(reception, sock, length)
        # aiohttp need not wait for what we have taken. Nor may it read on, which it does then: it would hang up at the
        # client's end, and a client that has closed its half only gets no answer.
        request.content.feed_eof()
        transport.pause_reading()
        if not is_whole:
            raise ImageError(Details.CUT_OFF)

    async def _pump(self, reception: IncomingImage, sock: socket.socket, length: int) -> bool:
        """Move all bytes that come.

        Returns:
            Whether these were all; else the client will send no more.

        Raises:
            ImageError: It sent nothing for too long.
            NoSuchJobError, RefusalError: See `_look_after`.
            LocalIOError: The bytes can't be written.
        """
        watch = _Watch(functools.partial(self._look_after, reception))
        small_turns, idle_since = 0, time.monotonic()
        while reception.received_bytes < length:
            moved, is_over = await self._move(self._turn, reception, sock, length)
            watch.look()
            if is_over:
                break
            now = time.monotonic()
            if moved:
                idle_since = now
            elif now - idle_since >= self._source.current.idle_seconds:
                raise ImageError(Details.CUT_OFF)
            if moved < SMALL_BYTES and reception.received_bytes < length:
                await asyncio.sleep(PAUSES[min(small_turns, len(PAUSES) - 1)])
                small_turns = min(small_turns + 1, len(PAUSES))
                await _readable(sock, LOOK_SECONDS)
            else:
                small_turns = 0
        return reception.received_bytes == length

    def _turn(self, reception: IncomingImage, sock: socket.socket, length: int) -> tuple[int, bool]:
        """In a thread: move what there is, and what comes at once after it.

        Returns:
            How much, and whether the client will send no more.
        """
        if not hasattr(self._buffers, "buffer"):
            self._buffers.buffer = memoryview(bytearray(BUFFER_BYTES))
        buffer: memoryview = self._buffers.buffer
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        moved = 0
        while moved < TURN_BYTES and (left := length - reception.received_bytes):
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
            reception.write(buffer[:count])
            moved += count
        return moved, False

    def _told(self, error: BaseException, transfer: "_Transfer") -> BaseException:
        """The error whose words become the job's details."""
        if isinstance(error, ClouduploaderError):
            return replies.refused(error)
        if not isinstance(error, asyncio.CancelledError):
            return error
        return ImageError(STOPPED) if self._is_stopping else transfer.refusal or error

    async def _move(self, function: Callable[..., T], *arguments: object) -> T:
        return await _finished(asyncio.get_running_loop().run_in_executor(self._movers, function, *arguments))

    async def _settle(self, function: Callable[[], T]) -> T:
        return await _finished(asyncio.get_running_loop().run_in_executor(self._settlers, function))


class _Transfer:
    """One image on its way in, and how fast it comes.

    Attributes:
        name: Its job.
        client: Whose it is, see `connections.client_of`.
        refusal: Why it was not taken to its end; None if it is, or ends otherwise.
        cancel: Ends it.
    """

    def __init__(self, name: str, client: str) -> None:
        self.name, self.client = name, client
        self.refusal: RefusalError | None = None
        self.cancel: Callable[[], object] = lambda: None
        self._reception: IncomingImage | None = None
        self._marks = collections.deque([(time.monotonic(), 0)], maxlen=2)  # when how much of it was here

    def begin(self, reception: IncomingImage) -> None:
        """Its job is received from now on."""
        self._reception = reception

    def mark(self, now: float) -> None:
        """Remember how much is here; now and then."""
        self._marks.append((now, self._received_bytes))

    def rate(self, now: float) -> float:
        """Bytes a second since the last mark but one; without end for one that has just begun, or is here."""
        began, before = self._marks[0]
        is_here = self._reception is not None and self._received_bytes >= (self._reception.job.size or 0)
        if is_here or now - began < RATE_SECONDS:
            return math.inf
        return (self._received_bytes - before) / (now - began)

    @property
    def _received_bytes(self) -> int:
        return self._reception.received_bytes if self._reception else 0


class _Watch:
    """A look now and then.

    Args:
        look: Looks.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._due = time.monotonic() + LOOK_SECONDS

    def look(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            self._look()


async def _finished(future: Awaitable[T]) -> T:
    """The result of a thread; if we are cancelled, only once it is done: it uses our files."""
    task = asyncio.ensure_future(future)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.exception()  # of a client that is gone: there is nobody to tell, and asyncio would as a fault of ours
        raise


def _buffered(request: web.BaseRequest) -> bytes:
    """What aiohttp has read of a body already.

    Raises:
        ImageError: The client is gone.
    """
    try:
        return request.content.read_nowait()
    except (web.RequestPayloadError, ConnectionError) as exc:
        raise ImageError(Details.CUT_OFF) from exc


async def _readable(sock: socket.socket, timeout_seconds: float) -> None:
    """Wait until a socket can be read, or has ended; or for so long."""
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
def _resting(request: web.BaseRequest) -> Iterator[None]:
    """Let aiohttp read no more of a body of known length than it has, but what is thrown away after an error."""
    transport = request.transport
    if transport is None or request.content_length is None:
        yield
        return
    transport.pause_reading()
    try:
        yield
    finally:
        if not request.content.is_eof():
            transport.resume_reading()  # a client that is still sending does not listen yet


@contextlib.contextmanager
def _in_words_of_obs(jobs: spool.Spool, name: str) -> Iterator[None]:
    """What goes wrong, as OBS's server says it."""
    try:
        yield
    except JobStateError as exc:
        raise RefusalError("job is not in created state") from exc
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_file(jobs.job_path(name)) from exc
