"""One thread and its share of the connections: whichever is ready is served, none is waited for.

A loop around epoll. Blocks are read and hashed between two looks at the sockets; nothing else in here blocks.
"""

import contextlib
import heapq
import math
import os
import select
import socket
import ssl
from collections.abc import Callable

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2 import aws_errors, endpoint
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs import transfer as transfers
from clouduploader.platforms.ec2.ebs.connection import Addresses, BlockConnection, ConnectionPhase
from clouduploader.platforms.ec2.ebs.transfer import BlockTransfer, BlockUpload, NoBlock
from clouduploader.util import http1

REREAD_BUFFERS = 8
"""Of a ring whose blocks can be read again: 4 MiB. A fast line needs two, a slow one is full with eight."""
HOLD_SECONDS = 1.0  # a buffer that nothing was sent from for so long is taken back if others need one
BUSY_SECONDS = 0.005  # for which we wait at most for our turn to unpack; a block takes xz about that long
CHECK_SECONDS = 0.1  # between looks at deadlines
RECEIVE_BYTES = 16384  # the largest TLS record (RFC 8446, 5.1)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ConnectionLoop:
    """An event loop over connections to the endpoint; runs in a thread of its own.

    Args:
        transfer: What it shares with the others.
        requests: Makes the heads.
        place: The endpoint.
        addresses: Where that is.
        context: For TLS; None for plain HTTP.
        most: Blocks that it may have in hand at once.
    """

    def __init__(
        self,
        transfer: BlockTransfer,
        *,
        requests: protocol.BlockRequests,
        place: endpoint.AwsEndpoint,
        addresses: Addresses,
        context: ssl.SSLContext | None,
        most: int,
    ) -> None:
        self._transfer = transfer
        self._requests = requests
        self._host = place.host
        self._addresses = addresses
        self._context = context
        self._most = most
        self._share = most / transfer.window.most
        self._patience = transfer.patience
        self._clock = transfer.clock
        self._can_reread = transfer.source.can_reread
        self._epoll = select.epoll()
        self._connections: dict[int, BlockConnection] = {}
        self._idle: list[BlockConnection] = []
        self._free: list[bytearray] = []
        self._buffers = 0  # that exist
        self._ready: BlockUpload | None = None  # waits for a slot
        self._later: list[tuple[float, int, BlockUpload]] = []  # when, a number, what
        self._laters = 0
        self._confirmed: list[tuple[int, bytes]] = []
        self._is_drained = False
        self._checked_at = self._clock()
        self._scratch = memoryview(bytearray(RECEIVE_BYTES))

    def run(self) -> None:
        """Send blocks until there are no more, or the transfer ends. An error ends it."""
        try:
            while not self._transfer.is_over and not self._is_done():
                self._turn()
        except ClouduploaderError as exc:
            self._transfer.end(exc)
        finally:
            self._close_all()

    def _is_done(self) -> bool:
        return self._is_drained and self._ready is None and not self._later and self._busy() == 0

    def _busy(self) -> int:
        return len(self._connections) - len(self._idle)

    def _turn(self) -> None:
        timeout = self._launch(self._clock())
        for descriptor, mask in self._epoll.poll(timeout):
            self._guard(self._attend, self._connections[descriptor], mask)
        self._note()
        now = self._clock()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._check_deadlines(now)

    def _launch(self, now: float) -> float:
        """Put at most one block on its way; returns for how long nothing more can be."""
        tick = CHECK_SECONDS
        if self._ready is None:
            if self._later and self._later[0][0] <= now:
                self._ready = heapq.heappop(self._later)[2]
            elif self._later:
                tick = min(tick, self._later[0][0] - now)
            is_room = self._busy() + len(self._later) <= self._most
            if self._ready is None and is_room and not self._is_drained:
                found = self._read(now)
                if found is NoBlock.SKIPPED:
                    return 0.0
                if found is NoBlock.BUSY:
                    # not by epoll, whose shortest time is a millisecond: a block takes zstd a third of that
                    self._transfer.await_turn(min(BUSY_SECONDS, tick))
                    return 0.0
                self._ready = found if isinstance(found, BlockUpload) else None
            if self._ready is None:
                return tick
        if self._busy() >= max(1.0, self._transfer.window.size * self._share):
            return tick
        wait = self._transfer.pacer.take(now)
        if wait > 0:
            return min(wait, tick)
        job, self._ready = self._ready, None
        self._start(job)
        return 0.0

    def _read(self, now: float) -> BlockUpload | NoBlock | None:
        """Get the next block; None if there is no buffer to read it into."""
        buffer = self._take_buffer(now)
        if buffer is None:
            return None
        found = self._transfer.next_job(buffer)
        if not isinstance(found, BlockUpload) or found.buffer is None:
            self._free.append(buffer)
        self._is_drained = found is NoBlock.END
        return found

    def _take_buffer(self, now: float) -> bytearray | None:
        if self._free:
            return self._free.pop()
        if not self._can_reread or self._buffers < REREAD_BUFFERS:
            self._buffers += 1
            return bytearray(protocol.BLOCK_BYTES)
        return self._take_back(now + self._patience.silence_seconds - HOLD_SECONDS)

    def _take_back(self, before: float) -> bytearray | None:
        """Take the buffer from a connection with a deadline before that time."""
        for connection in self._connections.values():
            job = connection.job
            if job and job.buffer and connection.deadline < before:
                buffer, job.buffer = job.buffer, None
                return buffer
        return None

    def _start(self, job: BlockUpload) -> None:
        if self._idle:
            connection = self._idle.pop()
            connection.job = job
            self._begin(connection)
        else:
            self._open(job)

    def _open(self, job: BlockUpload) -> None:
        family, address = self._addresses.next()
        try:
            plain = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as exc:  # for example too many open files
            self._later_again(job, self._transfer.broken(job, exc.strerror or str(exc)))
            return
        connection = BlockConnection(plain, address, job)
        self._connections[connection.descriptor] = connection
        connection.deadline = self._clock() + self._patience.connect_seconds
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

    def _attend(self, connection: BlockConnection, mask: int) -> None:
        """Do what this connection is ready for."""
        if connection.phase is ConnectionPhase.CONNECTING:
            self._connected(connection)
        elif connection.tls and connection.phase is ConnectionPhase.SHAKING_HANDS:
            self._shake_hands(connection, connection.tls)
        elif mask & ~select.EPOLLOUT:
            self._receive(connection)
        if mask & select.EPOLLOUT and connection.phase is ConnectionPhase.SENDING and connection.job:
            connection.deadline = self._clock() + self._patience.silence_seconds  # there is room: it moves
            self._push(connection, connection.job)

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
        if self._context is None:
            self._begin(connection)
            return
        connection.sock = connection.tls = self._context.wrap_socket(
            connection.sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        connection.phase = ConnectionPhase.SHAKING_HANDS
        self._shake_hands(connection, connection.tls)

    def _shake_hands(self, connection: BlockConnection, tls: ssl.SSLSocket) -> None:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, select.EPOLLIN)
        except ssl.SSLWantWriteError:
            self._watch(connection, select.EPOLLOUT)
        else:
            self._begin(connection)

    def _begin(self, connection: BlockConnection) -> None:
        """Let a connection that stands send its block."""
        connection.phase = ConnectionPhase.SENDING
        connection.uses += 1
        connection.parser = protocol.BlockResponseParser()
        connection.position = 0
        job = connection.job
        if job:
            connection.head = self._requests.head(job.index, job.checksum, self._transfer.keys)
            connection.deadline = self._clock() + self._patience.silence_seconds
            self._guard(self._push, connection, job)

    def _push(self, connection: BlockConnection, job: BlockUpload) -> None:
        """Send as much as goes without waiting."""
        sock = connection.sock
        try:
            while connection.head:
                connection.head = connection.head[sock.send(connection.head) :]
            with memoryview(self._content(job)) as content:
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
            if connection.job is job:
                raise
            return
        connection.phase = ConnectionPhase.WAITING
        connection.deadline = self._clock() + self._patience.silence_seconds
        connection.queued = 0
        self._watch(connection, select.EPOLLIN)
        if self._can_reread:
            self._release(job)

    def _content(self, job: BlockUpload) -> bytes | bytearray:
        if job.is_zero:
            return transfers.ZERO_BLOCK
        if job.buffer is None:
            # one at most waits for a slot, so another connection has one
            job.buffer = (
                self._free.pop() if self._free else self._take_back(math.inf) or bytearray(protocol.BLOCK_BYTES)
            )
            self._transfer.source.reread_into(job.index, job.buffer)
        return job.buffer

    def _release(self, job: BlockUpload) -> None:
        if job.buffer is not None:
            self._free.append(job.buffer)
            job.buffer = None

    def _receive(self, connection: BlockConnection) -> None:
        """Take what has come in."""
        while True:
            try:
                count = connection.sock.recv_into(self._scratch)
            except _WOULD_BLOCK:
                return  # for example a TLS 1.3 session ticket
            if connection.job is None:
                self._close(connection)  # hung up while idle, or speaks without being asked
                return
            answer = connection.parser.feed(self._scratch[:count]) if count else connection.parser.end()
            if answer:
                self._answered(connection, connection.job, answer)
                return

    def _answered(self, connection: BlockConnection, job: BlockUpload, answer: protocol.BlockResponse) -> None:
        was_sent = connection.phase is ConnectionPhase.WAITING
        is_reusable = answer.is_reusable and was_sent
        has_more = connection.tls and connection.tls.pending()
        self._part(connection, is_reusable=is_reusable and not has_more)
        if was_sent and answer.confirms(job.checksum):
            self._release(job)
            self._confirmed.append((job.index, job.digest))
        elif answer.status == 201:
            self._later_again(job, self._transfer.misconfirmed(job))
        else:
            self._later_again(job, self._transfer.refused(job, answer.refusal()))

    def _fail(self, connection: BlockConnection, reason: str, *, is_stall: bool = False) -> None:
        job, phase, uses = connection.job, connection.phase, connection.uses
        has_begun = connection.parser.has_begun
        self._part(connection, is_reusable=False)
        if phase in (ConnectionPhase.CONNECTING, ConnectionPhase.SHAKING_HANDS):
            self._addresses.doubt(connection.address)
        if job:
            was_reused = uses > 1 and not has_begun and not is_stall
            self._later_again(job, self._transfer.broken(job, reason, is_stall=is_stall, was_reused=was_reused))

    def _later_again(self, job: BlockUpload, delay: float) -> None:
        if self._can_reread:
            self._release(job)
        self._laters += 1
        heapq.heappush(self._later, (self._clock() + delay, self._laters, job))

    def _part(self, connection: BlockConnection, *, is_reusable: bool) -> None:
        """Take the job from a connection, and keep or close it."""
        connection.job = None
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

    def _note(self) -> None:
        if self._confirmed:
            pairs, self._confirmed = self._confirmed, []
            self._transfer.confirmed(pairs)

    def _check_deadlines(self, now: float) -> None:
        late = [one for one in self._connections.values() if one.job and now >= one.deadline]
        for connection in late:
            if connection.phase in (ConnectionPhase.SENDING, ConnectionPhase.WAITING) and connection.is_moving():
                connection.deadline = now + self._patience.silence_seconds
            else:
                self._fail(connection, _SILENCES[connection.phase], is_stall=True)

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            connection.sock.close()
        self._connections.clear()
        self._idle.clear()
        self._epoll.close()
        try:
            self._note()
        except ClouduploaderError as exc:
            self._transfer.end(exc)


_SILENCES = {
    ConnectionPhase.CONNECTING: "the connection is not answered",
    ConnectionPhase.SHAKING_HANDS: "the TLS handshake is not answered",
    ConnectionPhase.SENDING: "it accepts no more data",
    ConnectionPhase.WAITING: "it does not answer",
}
