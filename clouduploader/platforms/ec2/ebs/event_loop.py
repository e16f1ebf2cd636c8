"""An event loop by epoll: one thread sends blocks on its share of the connections, and waits for no single one.

Blocks are read and hashed between two looks at the sockets; nothing else in here blocks.
"""

import contextlib
import enum
import fcntl
import heapq
import math
import os
import select
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2 import aws_errors, endpoint
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs.transfer import BlockTransfer, BlockUpload
from clouduploader.plugin.transfer import NoChunk
from clouduploader.util import http1

REREAD_BUFFERS = 8
"""Of a loop whose blocks can be read again: 4 MiB. A fast line needs two, a slow one is full with eight."""
HOLD_SECONDS = 1.0  # a buffer that nothing was sent from for so long is taken back if others need one
BUSY_SECONDS = 0.005  # for which we wait at most for our turn to unpack; a block takes xz about that long
CHECK_SECONDS = 0.1  # between looks at deadlines
CONFIRMED_AT_ONCE = 16  # or fewer, if there is nothing to send at once
RECEIVE_BYTES = 16384  # the largest TLS record (RFC 8446, 5.1)
ZERO_BLOCK = bytes(protocol.BLOCK_BYTES)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Addresses:
    """The addresses of the endpoint; for several threads.

    Args:
        server: The endpoint.

    Raises:
        NetworkError: Its name is not known.
    """

    def __init__(self, server: endpoint.AwsEndpoint) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._count = 0
        self._has_failed = False
        self._found = self._resolve()

    def next(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        """Return the next one in turn, as family and address."""
        with self._lock:
            self._count += 1
            return self._found[self._count % len(self._found)]

    def failed(self, address: tuple[str, int]) -> None:
        """Use the other addresses until the name was looked up again: this one did not answer."""
        with self._lock:
            self._has_failed = True
            self._found = [pair for pair in self._found if pair[1] != address] or self._found

    def refresh(self) -> None:
        """Look the name up again if one did not answer. Blocks for as long as the resolver does."""
        if self._has_failed:
            self._has_failed = False
            with contextlib.suppress(ClouduploaderError):  # the old ones may still do
                found = self._resolve()
                with self._lock:
                    self._found = found

    def _resolve(self) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        server = self._server
        try:
            infos = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise aws_errors.unreachable(server.url, getattr(exc, "strerror", None) or str(exc)) from exc
        return [(family, (str(address[0]), int(address[1]))) for family, *_rest, address in infos]


class ConnectionPhase(enum.Enum):
    """What a connection is doing."""

    CONNECTING = enum.auto()
    HANDSHAKE = enum.auto()
    SENDING = enum.auto()
    WAITING = enum.auto()
    IDLE = enum.auto()
    CLOSED = enum.auto()


class BlockConnection:
    """A connection and the block that is on it.

    Args:
        plain: The socket, not blocking.
        address: What it connects to.
        block: The first block.
    """

    __slots__ = (
        "address",
        "block",
        "deadline",
        "descriptor",
        "head",
        "mask",
        "parser",
        "phase",
        "position",
        "queued",
        "sock",
        "tls",
        "uses",
    )

    def __init__(self, plain: socket.socket, address: tuple[str, int], block: BlockUpload) -> None:
        self.sock = plain
        self.tls: ssl.SSLSocket | None = None  # the same as sock, where it is one
        self.descriptor = plain.fileno()
        self.address = address
        self.phase = ConnectionPhase.CONNECTING
        self.block: BlockUpload | None = block
        self.parser = protocol.BlockResponseParser()
        self.head = b""  # what is left of it to send
        self.position = 0  # bytes of the block that were sent
        self.deadline = 0.0
        self.queued = 0  # bytes that the kernel had not sent yet at the last look
        self.mask = 0
        self.uses = 0

    def is_moving(self) -> bool:
        """Tell whether what the kernel has still to send is another number of bytes than at the last call."""
        answer = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        before, self.queued = self.queued, struct.unpack("i", answer)[0]
        return self.queued != before


class ConnectionLoop:
    """An event loop over connections to the endpoint; runs in a thread of its own.

    Args:
        transfer: What it shares with the other loops.
        requests: Makes the heads of requests.
        server: The endpoint.
        addresses: Of the endpoint.
        tls: For TLS; None for plain HTTP.
        most: How many blocks it may have at once, under way or waiting for their next try.
    """

    def __init__(
        self,
        transfer: BlockTransfer,
        *,
        requests: protocol.BlockRequests,
        server: endpoint.AwsEndpoint,
        addresses: Addresses,
        tls: ssl.SSLContext | None,
        most: int,
    ) -> None:
        self._transfer = transfer
        self._requests = requests
        self._host = server.host
        self._addresses = addresses
        self._tls = tls
        self._most = most
        self._share = most / transfer.window.most
        self._timeouts = transfer.timeouts
        self._clock = transfer.clock
        self._can_reread = transfer.source.can_reread
        self._epoll = select.epoll()
        self._connections: dict[int, BlockConnection] = {}
        self._idle: list[BlockConnection] = []
        self._free: list[bytearray] = []
        self._buffers = 0  # how many there are
        self._ready: BlockUpload | None = None  # waits for a slot
        self._waiting: list[tuple[float, int, BlockUpload]] = []  # when it is sent again, a number, the block
        self._waiting_count = 0
        self._confirmed: list[tuple[int, bytes]] = []
        self._is_drained = False
        self._checked_at = self._clock()
        self._scratch = memoryview(bytearray(RECEIVE_BYTES))

    def run(self) -> None:
        """Send blocks until there are no more, or the transfer ends. An error ends it."""
        try:
            while not self._transfer.is_over and not self._is_done():
                self._step()
        except ClouduploaderError as exc:
            self._transfer.end(exc)
        finally:
            self._close_all()

    def _is_done(self) -> bool:
        return self._is_drained and self._ready is None and not self._waiting and self._busy() == 0

    def _busy(self) -> int:
        return len(self._connections) - len(self._idle)

    def _step(self) -> None:
        timeout = self._start_next(self._clock())
        for descriptor, mask in self._epoll.poll(timeout):
            self._guard(self._serve, self._connections[descriptor], mask)
        now = self._clock()
        is_time = now - self._checked_at >= CHECK_SECONDS
        if timeout or is_time or len(self._confirmed) >= CONFIRMED_AT_ONCE:
            self._confirm()
        if is_time:
            self._checked_at = now
            self._check_deadlines(now)

    def _start_next(self, now: float) -> float:
        """Put at most one block on its way; return for how many seconds nothing more can be sent."""
        tick = CHECK_SECONDS
        if self._ready is None:
            if self._waiting and self._waiting[0][0] <= now:
                self._ready = heapq.heappop(self._waiting)[2]
            elif self._waiting:
                tick = min(tick, self._waiting[0][0] - now)
            is_room = self._busy() + len(self._waiting) <= self._most
            if self._ready is None and is_room and not self._is_drained:
                found = self._read(now)
                if found is NoChunk.CONFIRMED:
                    return 0.0
                if found is NoChunk.BUSY:
                    # not by epoll, whose shortest time is a millisecond: a block takes zstd a third of that
                    self._transfer.await_turn(min(BUSY_SECONDS, tick))
                    return 0.0
                self._ready = found if isinstance(found, BlockUpload) else None
            if self._ready is None:
                return tick
        if self._busy() >= max(1.0, self._transfer.window.size * self._share):
            return tick
        wait = self._transfer.limiter.take(now)
        if wait > 0:
            return min(wait, tick)
        block, self._ready = self._ready, None
        self._assign(block)
        return 0.0

    def _read(self, now: float) -> BlockUpload | NoChunk | None:
        """Get the next block; None if there is no buffer to read it into."""
        buffer = self._get_buffer(now)
        if buffer is None:
            return None
        found = self._transfer.next_chunk(buffer)
        if not isinstance(found, BlockUpload) or found.buffer is None:
            self._free.append(buffer)
        self._is_drained = found is NoChunk.END
        return found

    def _get_buffer(self, now: float) -> bytearray | None:
        if self._free:
            return self._free.pop()
        if not self._can_reread or self._buffers < REREAD_BUFFERS:
            self._buffers += 1
            return bytearray(protocol.BLOCK_BYTES)
        return self._reclaim_buffer(now + self._timeouts.silence_seconds - HOLD_SECONDS)

    def _reclaim_buffer(self, before: float) -> bytearray | None:
        """Take the buffer from a connection with a deadline before that time."""
        for connection in self._connections.values():
            block = connection.block
            if block and block.buffer and connection.deadline < before:
                buffer, block.buffer = block.buffer, None
                return buffer
        return None

    def _assign(self, block: BlockUpload) -> None:
        if self._idle:
            connection = self._idle.pop()
            connection.block = block
            self._begin(connection)
        else:
            self._open(block)

    def _open(self, block: BlockUpload) -> None:
        family, address = self._addresses.next()
        try:
            plain = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as exc:  # for example too many open files
            self._send_later(block, self._transfer.broken(block, exc.strerror or str(exc)))
            return
        connection = BlockConnection(plain, address, block)
        self._connections[connection.descriptor] = connection
        connection.deadline = self._clock() + self._timeouts.connect_seconds
        self._guard(self._connect, connection)

    def _connect(self, connection: BlockConnection) -> None:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            connection.sock.connect(connection.address)
        self._watch(connection, select.EPOLLOUT)

    def _watch(self, connection: BlockConnection, mask: int) -> None:
        if not connection.mask:
            self._epoll.register(connection.descriptor, mask)
        elif connection.mask != mask:
            self._epoll.modify(connection.descriptor, mask)
        connection.mask = mask

    def _serve(self, connection: BlockConnection, mask: int) -> None:
        """Do what this connection is ready for."""
        if connection.phase is ConnectionPhase.CONNECTING:
            self._connected(connection)
        elif connection.tls and connection.phase is ConnectionPhase.HANDSHAKE:
            self._handshake(connection, connection.tls)
        elif mask & ~select.EPOLLOUT:
            self._receive(connection)
        if mask & select.EPOLLOUT and connection.phase is ConnectionPhase.SENDING and connection.block:
            connection.deadline = self._clock() + self._timeouts.silence_seconds  # there is room: it moves
            self._push(connection, connection.block)

    def _guard(self, step: Callable[..., None], connection: BlockConnection, *more: object) -> None:
        """Do a step; what goes wrong is a failure of that connection alone, but for a certificate: that stays wrong."""
        try:
            step(connection, *more)
        except ssl.SSLCertVerificationError as exc:
            raise aws_errors.untrusted(self._transfer.url, exc) from exc
        except http1.MalformedResponseError as exc:
            self._fail(connection, f"AWS's answer makes no sense: {exc}")
        except OSError as exc:
            self._fail(connection, exc.strerror or str(exc))

    def _connected(self, connection: BlockConnection) -> None:
        number = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        if self._tls is None:
            self._begin(connection)
            return
        connection.sock = connection.tls = self._tls.wrap_socket(
            connection.sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        connection.phase = ConnectionPhase.HANDSHAKE
        self._handshake(connection, connection.tls)

    def _handshake(self, connection: BlockConnection, tls: ssl.SSLSocket) -> None:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._watch(connection, select.EPOLLOUT)
        else:
            self._begin(connection)

    def _begin(self, connection: BlockConnection) -> None:
        """Begin to send a block on a connection that stands."""
        connection.phase = ConnectionPhase.SENDING
        connection.uses += 1
        connection.position = 0
        block = connection.block
        if block:
            connection.head = self._requests.head(block.index, block.checksum, self._transfer.keys)
            connection.deadline = self._clock() + self._timeouts.silence_seconds
            self._guard(self._push, connection, block)

    def _push(self, connection: BlockConnection, block: BlockUpload) -> None:
        """Send as much as goes without waiting."""
        sock = connection.sock
        try:
            while connection.head:
                connection.head = connection.head[sock.send(connection.head) :]
            with memoryview(self._content(block)) as content:
                while connection.position < protocol.BLOCK_BYTES:
                    # OpenSSL wants the same bytes again until it has sent them, and takes them from anywhere
                    with content[connection.position :] as rest:
                        connection.position += sock.send(rest)
        except _WOULD_BLOCK as exc:
            wants_write = not isinstance(exc, ssl.SSLWantReadError)
            self._watch(connection, select.EPOLLIN | (select.EPOLLOUT if wants_write else 0))
            return
        except (BrokenPipeError, ConnectionResetError):
            self._receive(connection)  # it may have said why before it hung up
            if connection.block is block:
                raise
            return
        connection.phase = ConnectionPhase.WAITING
        connection.queued = 0
        self._watch(connection, select.EPOLLIN)
        if self._can_reread:
            self._release(block)

    def _content(self, block: BlockUpload) -> bytes | bytearray:
        if block.is_zero:
            return ZERO_BLOCK
        if block.buffer is None:
            # one at most waits for a slot, so another connection has one
            block.buffer = (
                self._free.pop() if self._free else self._reclaim_buffer(math.inf) or bytearray(protocol.BLOCK_BYTES)
            )
            self._transfer.source.reread_into(block.index, block.buffer)
        return block.buffer

    def _release(self, block: BlockUpload) -> None:
        if block.buffer is not None:
            self._free.append(block.buffer)
            block.buffer = None

    def _receive(self, connection: BlockConnection) -> None:
        """Read what has come in."""
        while True:
            try:
                count = connection.sock.recv_into(self._scratch)
            except _WOULD_BLOCK:
                return  # for example a TLS 1.3 session ticket
            block, parser = connection.block, connection.parser
            if block is None:
                self._close(connection)  # hung up while idle, or speaks without being asked
                return
            piece, answer = self._scratch[:count], None
            if parser.has_begun or not protocol.is_confirmation(piece, block.checksum):
                answer = parser.feed(piece) if count else parser.end()
                if answer is None:
                    continue
                connection.parser = protocol.BlockResponseParser()
            self._handle(connection, block, answer)
            return

    def _handle(self, connection: BlockConnection, block: BlockUpload, answer: protocol.BlockResponse | None) -> None:
        """Do what an answer says; None is a confirmation that was recognised."""
        was_sent = connection.phase is ConnectionPhase.WAITING
        is_reusable = was_sent and (answer is None or answer.is_reusable)
        has_more = connection.tls and connection.tls.pending()
        self._detach(connection, is_reusable=is_reusable and not has_more)
        if was_sent and (answer is None or answer.confirms(block.checksum)):
            self._release(block)
            self._confirmed.append((block.index, block.digest))
        elif answer is None or answer.status == 201:
            self._send_later(block, self._transfer.misconfirmed(block))
        else:
            self._send_later(block, self._transfer.refused(block, answer.refusal()))

    def _fail(self, connection: BlockConnection, reason: str, *, is_stall: bool = False) -> None:
        block, phase, uses = connection.block, connection.phase, connection.uses
        has_begun = connection.parser.has_begun
        self._detach(connection, is_reusable=False)
        if phase in (ConnectionPhase.CONNECTING, ConnectionPhase.HANDSHAKE):
            self._addresses.failed(connection.address)
        if block:
            was_reused = uses > 1 and not has_begun and not is_stall
            self._send_later(block, self._transfer.broken(block, reason, is_stall=is_stall, was_reused=was_reused))

    def _send_later(self, block: BlockUpload, delay: float) -> None:
        if self._can_reread:
            self._release(block)
        self._waiting_count += 1
        heapq.heappush(self._waiting, (self._clock() + delay, self._waiting_count, block))

    def _detach(self, connection: BlockConnection, *, is_reusable: bool) -> None:
        """Take the block off a connection, and keep the connection or close it."""
        connection.block = None
        if is_reusable:
            connection.phase = ConnectionPhase.IDLE
            self._idle.append(connection)
        else:
            self._close(connection)

    def _close(self, connection: BlockConnection) -> None:
        if connection.phase is ConnectionPhase.IDLE:
            self._idle.remove(connection)
        connection.phase = ConnectionPhase.CLOSED
        del self._connections[connection.descriptor]
        connection.sock.close()  # epoll forgets it by itself

    def _confirm(self) -> None:
        if self._confirmed:
            pairs, self._confirmed = self._confirmed, []
            self._transfer.confirm(pairs)

    def _check_deadlines(self, now: float) -> None:
        late = [one for one in self._connections.values() if one.block and now >= one.deadline]
        for connection in late:
            if connection.phase in (ConnectionPhase.SENDING, ConnectionPhase.WAITING) and connection.is_moving():
                connection.deadline = now + self._timeouts.silence_seconds
            else:
                self._fail(connection, _SILENCES[connection.phase], is_stall=True)

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.sock.close()
        self._connections.clear()
        self._idle.clear()
        self._epoll.close()
        try:
            self._confirm()
        except ClouduploaderError as exc:
            self._transfer.end(exc)


_SILENCES = {
    ConnectionPhase.CONNECTING: "the connection is not answered",
    ConnectionPhase.HANDSHAKE: "the TLS handshake is not answered",
    ConnectionPhase.SENDING: "it accepts no more data",
    ConnectionPhase.WAITING: "it does not answer",
}
