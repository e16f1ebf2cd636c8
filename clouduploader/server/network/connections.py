"""Connections: which clients are accepted, how many connections there are, and which are closed for lack of room.

A client has no limit of its own as long as there is room for all: OBS's source server asks with many connections from
one address, often this host's own. Where something runs out, the client that uses most of it loses a connection: the
oldest without a request, the oldest that follows a log or is a stranger's, or the one that has held most memory for
longest. A quick request holds little for a moment, and is answered. A client is an IPv4 address, or an IPv6 network of
64 bits, which is what a site assigns to one machine.

Only a body in chunks of a few bytes has a limit of its own: it takes the event loop's time, and not memory.

A connection is for one request, as OBS has it, but for those of upload hosts: they ask several times a second, and
their connections are kept for another request. Between two requests such a connection is one without a request.
"""

import asyncio
import errno
import functools
import itertools
import logging
import socket
import ssl
import time
import typing
from collections.abc import Callable, Iterator

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod

from clouduploader.server import replies
from clouduploader.server.network import body, tls, unix_socket
from clouduploader.server.network.origin import ORIGIN
from clouduploader.server.replies import RefusalError

LOG = logging.getLogger("clouduploader.server")

MAX_IDLE = 10_000  # connections without a request, whatever the limit of open files is
RESERVED_DESCRIPTORS = 32  # for the rest: threads, logs, the job that is just written, clients not accepted yet
ACCEPTED_AT_ONCE = 4  # so that their requests are read before others take their place; asyncio's own loop has 512
PAUSE_SECONDS = 0.1  # without accepting, when there is no descriptor
REQUEST_DESCRIPTORS = 3  # a request may need three descriptors: its connection twice, while an image comes, and a file
HEAD_COST = 4  # bytes of memory for each of a head; measured: 3 to 4, as it came and as a mapping
CHUNKS_COST = 8  # for each of a body in chunks that may have a byte each, which become an object each
MAX_FRAME_BYTES = 1 << 16  # of a body in chunks that is none of its content, and an eighth of that beside: none of
FRAME_SHARE = 8  # 48 bytes is too small, and at most 13,000 are, which take the parser a hundredth of a second
READ_BYTES = 16_384  # at once, but of images of known length: chunks of a byte take the parser a microsecond each
HEAD_READ_BYTES = 262_144  # of a head that is longer; asyncio's own
END_OF_HEAD = b"\r\n\r\n"
MAX_TURNED_AWAY = 64  # refused connections that stay open for TURN_AWAY_SECONDS; a descriptor each
TURN_AWAY_SECONDS = 1.0  # for the client to read the refusal: closed at once, a connection may lose it


class TlsTransport(typing.Protocol):
    """What asyncio's transports of TLS can, of all that they have a type for."""

    def set_read_buffer_limits(self, high: int) -> None:
        """Let no more than so many bytes wait to be decrypted."""


class ClientConnection(web.RequestHandler):
    """One connection, for one request or, if its answer allows that, for several, one after the other.

    Errors are in XML, like all others.

    Attributes:
        client: See `origin.client_of`; a proxy's, until a request tells whose it is.
        held_bytes: How much memory it holds, as `ConnectionTable` counts it.
        held_since: Since when it holds any, by the monotonic clock.
        handshake: What connects it; None before that begins.
    """

    __slots__ = (
        "_all",
        "_body",
        "_cost",
        "_frame_bytes",
        "_is_answered",
        "_is_last",
        "_unparsed_bytes",
        "_unsent_bytes",
        "client",
        "handshake",
        "held_bytes",
        "held_since",
    )

    def __init__(self, manager: web.Server, *, client: str, connections: "ConnectionTable", **options: object) -> None:
        super().__init__(manager, **options)  # type: ignore[arg-type]
        self.client = client
        self.held_bytes = 0
        self.held_since = 0.0
        self.handshake: asyncio.Task[None] | None = None
        self._all = connections
        self._body: aiohttp.StreamReader | None = None  # of the request; None before there is one
        self._cost = HEAD_COST  # bytes of memory for each that comes
        self._frame_bytes = 0  # that came of a body, and are none of its content
        self._is_answered = False
        self._is_last = False  # whether it is closed after this request, whatever the answer allows
        self._unparsed_bytes = 0  # of a body, that may count as frame until they are parsed
        self._unsent_bytes = 0

    def give_up(self) -> None:
        """Forget it: it was never connected."""
        self._all.forget(self)

    def begin(self, request: web.BaseRequest) -> None:
        """Take note of a request whose head was read whole."""
        self._body = request.content
        self._cost = CHUNKS_COST if body.is_chunked(request) else 1
        self._read_at_once(READ_BYTES)

    def end(self, answer: web.StreamResponse | None) -> None:
        """Take note of the answer, which may not be sent yet: only its bytes are held from now on."""
        self._is_answered = True
        self.hold(_length(answer) - self.held_bytes)

    def end_after_answer(self) -> None:
        """Let the next answer be the last, or the one that is under way."""
        self._is_last = True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. If that allows it, the connection is kept; see aiohttp's method.

        It is closed if anything has come behind the request, which was thrown away, or a part of its body has not.
        """
        is_read = self._body is not None and self._body.is_eof() and not self._messages
        if self._is_last or not is_read:
            resp.force_close()
        resp, is_gone = await super().finish_response(request, resp, start_time)
        if self._is_last:  # something came meanwhile
            resp.force_close()
        elif resp.keep_alive and not is_gone:
            self._begin_again()
        return resp, is_gone

    def _begin_again(self) -> None:
        """Make ready for another request."""
        self._body = None
        self._cost = HEAD_COST
        self._frame_bytes = 0
        self._is_answered = False
        self._read_at_once(READ_BYTES)
        self.hold((self.transport.get_write_buffer_size() if self.transport else 0) - self.held_bytes)
        self._all.keep(self)

    def hold(self, count: int) -> None:
        """Count so many bytes more, or less; may close a connection, this one too."""
        self._all.hold(self, count)

    def release(self) -> None:
        """Count nothing any more: all that came was taken."""
        self.hold(-self.held_bytes)

    async def send(self, answer: web.StreamResponse, data: bytes) -> None:
        """Send a piece of an answer; what the client has not taken counts as held.

        Raises:
            ConnectionError: The connection is closed.
        """
        self._hold_unsent(self._unsent_bytes + len(data))
        await answer.write(data)
        self._hold_unsent(self.transport.get_write_buffer_size() if self.transport else 0)
        await asyncio.sleep(0)  # lets others run: a client that takes all at once never blocks `write`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read; see asyncio.Protocol."""
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext"):
            typing.cast(TlsTransport, transport).set_read_buffer_limits(high=tls.READ_BYTES)
            self._unparsed_bytes = tls.UNPARSED_BYTES
        self._read_at_once(READ_BYTES)

    def data_received(self, data: bytes) -> None:
        """Take what comes, but nothing behind a request until that is answered."""
        if self._body is not None and self._body.is_eof():
            self._is_last = self._is_last or bool(data)  # aiohttp calls it without any, too
            return
        if not self._is_answered:  # else it is thrown away, see aiohttp's `lingering_time`
            self.hold(len(data) * self._cost)
        if self._body is None and END_OF_HEAD not in data:
            self._read_at_once(HEAD_READ_BYTES)
        content_bytes = self._body.total_bytes if self._body is not None else 0
        super().data_received(data)
        if self._body is not None and self._cost == CHUNKS_COST:
            self._frame_bytes += len(data) - (self._body.total_bytes - content_bytes)
            if self._frame_bytes > MAX_FRAME_BYTES + self._unparsed_bytes + self._body.total_bytes // FRAME_SHARE:
                self._all.evict(self, "the chunks of its body hold a few bytes each, and each takes time")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it; see asyncio.Protocol."""
        self._all.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, and a request that failed by a fault of this program."""
        if status < 500:
            LOG.info("malformed request from %s: %s", request.remote, type(exc).__name__)
            if isinstance(exc, BadHttpMethod):
                return replies.error(RefusalError("Bad method", status=501, is_coded=True))
            what = (message or "").partition("\n")[0].rstrip(":")  # the other lines show the bytes
            return replies.error(RefusalError(f"malformed request: {what}", status=status, is_coded=True))
        if isinstance(exc, ConnectionError):
            raise exc  # closed, by the client or for lack of room
        LOG.error("fault in answering %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer was sent already")
        return replies.error(RefusalError("internal error", status=status, is_coded=True))

    def _read_at_once(self, count: int) -> None:
        if self.transport:
            self.transport.max_size = count  # type: ignore[attr-defined]  # asyncio has no other name for it

    def _hold_unsent(self, count: int) -> None:
        self.hold(count - self._unsent_bytes)
        self._unsent_bytes = count


def _length(answer: web.StreamResponse | None) -> int:
    """Return how many bytes of an answer are in memory until the client takes them."""
    return len(answer.body) if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else 0


def is_following(request: web.BaseRequest) -> bool:
    """Return whether a request may follow a log."""
    return request.path.endswith(("/_log", "/log/events"))


def connection_of(request: web.BaseRequest) -> ClientConnection:
    """Return the connection of a request."""
    return typing.cast(ClientConnection, request.protocol)


class Acceptor:
    """Accepts connections, a few at a time, and fewer than there are descriptors.

    Args:
        listener: Accepts them; closed by the caller.
        connect: Makes the protocol for a client, of an address or a name of `unix_socket.client_name`.
        is_client: Whether an address may connect. If not, it gets a refusal, and nothing that it sends is read.
        context: Returns the one of TLS, at the moment; None without.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[str], ClientConnection],
        *,
        is_client: Callable[[str], bool],
        context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._listener, self._connect, self._is_client, self._context = listener, connect, is_client, context
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._turned_away: dict[socket.socket, asyncio.TimerHandle] = {}
        listener.setblocking(False)

    def open(self) -> None:
        """Begin to accept."""
        self._timer = None
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listener)
        if self._timer:
            self._timer.cancel()
        for client in list(self._turned_away):
            self._let_go(client)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                LOG.warning("no connection can be accepted: %s", exc.strerror)
                self._loop.remove_reader(self._listener)
                self._timer = self._loop.call_later(PAUSE_SECONDS, self.open)
                return
            client.setblocking(False)
            uid = unix_socket.peer_uid(client)
            address = peer[0] if uid is None else unix_socket.client_name(uid)
            if not self._is_client(address):
                self._turn_away(client, address)
                continue
            connection = self._connect(address)
            connection.handshake = self._loop.create_task(self._begin(client, connection))
            self._tasks.add(connection.handshake)
            connection.handshake.add_done_callback(functools.partial(self._forget, client))

    def _forget(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            client.close()  # it may not have begun

    async def _begin(self, client: socket.socket, connection: ClientConnection) -> None:
        context = self._context()
        limits = {}
        if context:
            limits = {"ssl_handshake_timeout": tls.HANDSHAKE_SECONDS, "ssl_shutdown_timeout": tls.SHUTDOWN_SECONDS}
        try:
            await self._loop.connect_accepted_socket(lambda: connection, client, ssl=context, **limits)
        except OSError as exc:
            reason = getattr(exc, "reason", None) or exc
            LOG.info("no connection with %s: %s", connection.client, reason)
            connection.give_up()

    def _turn_away(self, client: socket.socket, address: str) -> None:
        LOG.info("access denied for %s", address)
        if self._context():
            client.close()  # it waits for no answer in clear
            return
        refusal = RefusalError(f"access denied for {address}", status=403, is_coded=True)
        try:
            client.send(replies.serialize(replies.error(refusal)))
            client.shutdown(socket.SHUT_WR)
        except OSError:
            client.close()
            return
        if len(self._turned_away) >= MAX_TURNED_AWAY:
            self._let_go(next(iter(self._turned_away)))
        self._turned_away[client] = self._loop.call_later(TURN_AWAY_SECONDS, self._let_go, client)

    def _let_go(self, client: socket.socket) -> None:
        self._turned_away.pop(client).cancel()
        client.close()


class _ConnectionsByClient:
    """Connections by their clients, the oldest first."""

    def __init__(self) -> None:
        self._clients: dict[str, dict[ClientConnection, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ClientConnection]:
        return itertools.chain.from_iterable(self._clients.values())

    def add(self, connection: ClientConnection) -> None:
        """Add one; again is no more than once."""
        connections = self._clients.setdefault(connection.client, {})
        self._count += connection not in connections
        connections[connection] = None

    def discard(self, connection: ClientConnection) -> bool:
        """Remove one, and return whether it was there."""
        connections = self._clients.get(connection.client, {})
        if connection not in connections:
            return False
        del connections[connection]
        self._count -= 1
        if not connections:
            del self._clients[connection.client]
        return True

    def of_heaviest_client(self, weight: Callable[[ClientConnection], int] = lambda _: 1) -> list[ClientConnection]:
        """Return those of the client whose connections weigh most together; there must be one."""
        return list(max(self._clients.values(), key=lambda connections: sum(map(weight, connections))))


class ConnectionTable:
    """All open connections.

    Args:
        descriptor_limit: How many files the process may have open.
        max_bytes: Returns how many bytes all of them may hold in memory together, at the moment.
        idle_bytes: Returns how many bytes of memory each takes without a request, where that is much.
    """

    def __init__(
        self, descriptor_limit: int, max_bytes: Callable[[], int], *, idle_bytes: Callable[[], int] = lambda: 0
    ) -> None:
        self._max_requests = max(1, (descriptor_limit - RESERVED_DESCRIPTORS) // (REQUEST_DESCRIPTORS + 1))
        self._max_idle = min(self._max_requests, MAX_IDLE)
        self._max_bytes, self._idle_bytes = max_bytes, idle_bytes
        self._all: set[ClientConnection] = set()
        self._idle = _ConnectionsByClient()  # without a request
        self._answered = _ConnectionsByClient()
        self._yielding = _ConnectionsByClient()  # those of them that follow a log, or may be a stranger's
        self._holders = _ConnectionsByClient()
        self._held_bytes = 0

    def admit(self, connection: ClientConnection) -> ClientConnection:
        """Add a new connection."""
        self._all.add(connection)
        self._add_idle(connection)
        return connection

    def keep(self, connection: ClientConnection) -> None:
        """Take note that a request was answered, and that another one may come."""
        if connection in self._all:  # else it was closed meanwhile
            self._add_idle(connection)

    def end_kept(self) -> None:
        """Keep none of these connections after its next answer: its client may not be one any more."""
        for connection in self._all:
            connection.end_after_answer()

    def close(self) -> None:
        """Close those without a request, without waiting for their clients, and each other one after its answer."""
        self.end_kept()
        for connection in list(self._idle):
            self._drop(connection)

    def _add_idle(self, connection: ClientConnection) -> None:
        count = len(self._idle)
        if count and (count >= self._max_idle or count * self._idle_bytes() >= self._max_bytes()):
            self.evict(self._idle.of_heaviest_client()[0], "it asked for nothing, and there are too many")
        self._idle.add(connection)

    def begin(self, request: web.BaseRequest) -> None:
        """Add a request; the caller calls `end` in any case.

        Raises:
            RefusalError: There are too many, and none that would lose nothing if it had to ask again.
        """
        connection = connection_of(request)
        self._rename(connection, request[ORIGIN].client)
        connection.begin(request)
        self._idle.discard(connection)
        if len(self._answered) >= self._max_requests:
            if not len(self._yielding):
                raise RefusalError("too many requests at once", status=503, is_coded=True)
            self.evict(
                self._yielding.of_heaviest_client()[0],
                "it follows a log or is a stranger's, and there are too many requests",
            )
        self._answered.add(connection)
        self._yielding.add(connection)

    def admit_principal(self, request: web.BaseRequest) -> None:
        """Take note that a request is no stranger's: it keeps its place, unless it follows a log."""
        if not is_following(request):
            self._yielding.discard(connection_of(request))

    def _rename(self, connection: ClientConnection, client: str) -> None:
        """Count a connection as another client's."""
        if client == connection.client:
            return
        found = [it for it in (self._idle, self._answered, self._yielding, self._holders) if it.discard(connection)]
        connection.client = client
        for connections in found:
            connections.add(connection)

    def end(self, request: web.BaseRequest, answer: web.StreamResponse | None) -> None:
        """Take note that a request was answered; with None, that it failed."""
        connection = connection_of(request)
        self._answered.discard(connection)
        self._yielding.discard(connection)
        connection.end(answer)

    def hold(self, connection: ClientConnection, count: int) -> None:
        """Count so many bytes more, or less, that a connection holds; see `ClientConnection.hold`."""
        if connection not in self._all:
            return  # it was closed, and gives back what is not counted any more
        if not connection.held_bytes:
            connection.held_since = time.monotonic()
            self._holders.add(connection)
        connection.held_bytes += count
        self._held_bytes += count
        if not connection.held_bytes:
            self._holders.discard(connection)
        while self._held_bytes > self._max_bytes() and len(self._holders):
            heaviest = self._heaviest(time.monotonic())
            self.evict(heaviest, f"it held {heaviest.held_bytes} bytes of memory, and others need some")

    def forget(self, connection: ClientConnection) -> None:
        """Remove a connection that has ended."""
        self.hold(connection, -connection.held_bytes)
        self._all.discard(connection)
        for connections in (self._idle, self._answered, self._yielding, self._holders):
            connections.discard(connection)

    def _heaviest(self, now: float) -> ClientConnection:
        """Return which connection has held most for longest, of those of one client that hold their share at least."""
        candidates = self._holders.of_heaviest_client(lambda it: it.held_bytes)
        share = sum(it.held_bytes for it in candidates) / len(candidates)
        return max(
            (it for it in candidates if it.held_bytes >= share),
            key=lambda it: (it.held_bytes * (now - it.held_since), it.held_bytes),
        )

    def evict(self, connection: ClientConnection, why: str) -> None:
        """Close a connection, and log why."""
        LOG.info("a connection of %s was closed: %s", connection.client, why)
        self._drop(connection)

    def _drop(self, connection: ClientConnection) -> None:
        self.forget(connection)
        transport = connection.transport
        connection.force_close()
        if transport:
            transport.abort()  # what it does not take is not waited for
        elif connection.handshake:
            connection.handshake.cancel()
