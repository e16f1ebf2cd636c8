"""The addresses of the endpoint, and one connection to it with the block that is on it."""

import contextlib
import enum
import fcntl
import socket
import ssl
import struct
import termios
import threading

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.ec2 import aws_errors, endpoint
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs.transfer import BlockUpload


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
