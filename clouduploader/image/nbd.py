"""A small NBD client: the size of an export, and its bytes.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, fixed newstyle negotiation and
simple replies. The server is a program that reads hostile images: what it says is checked.
"""

import itertools
import socket
import struct
import threading
import time

from clouduploader.errors import ImageError
from clouduploader.util.cancel import Cancel

TIMEOUT_SECONDS = 120.0  # ours: for one answer, on a disk that sleeps or is loaded
POLL_SECONDS = 0.5  # how late a stop may be seen
MAX_READ_BYTES = 1 << 25  # "maximum block size": what every server takes

_GREETING = struct.Struct(">8s8sH")
_MAGIC, _OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2  # the flags of both sides
_OPTION = struct.Struct(">I8sII")  # the client's flags, then magic, number and length of an option
_EXPORT_NAME = 1
_EXPORT = struct.Struct(">QH")  # size, transmission flags
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC, _READ = 0x25609513, 0
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x67446698


class NbdClient:
    """Reads from a server; any number of threads may, one after the other.

    Args:
        connection: To the server, before the handshake; closed by the caller.
        filename: Of the image, for errors.
        cancel: Honoured while waiting.

    Attributes:
        size_bytes: Of the default export.

    Raises:
        ImageError: The server doesn't speak NBD, or hung up.
        StoppedError: The stop was requested.
    """

    def __init__(self, connection: socket.socket, filename: str, cancel: Cancel) -> None:
        self._socket = connection
        self._socket.settimeout(POLL_SECONDS)
        self._filename = filename
        self._cancel = cancel
        self._lock = threading.Lock()
        self._cookies = itertools.count(1)
        self._failure: str | None = None
        self.size_bytes = self._negotiate()

    def _negotiate(self) -> int:
        magic, option_magic, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC) or flags & 3 != _FIXED_NEWSTYLE | _NO_ZEROES:
            raise self._broken("the server speaks another protocol")
        self._send(_OPTION.pack(_FIXED_NEWSTYLE | _NO_ZEROES, _OPTION_MAGIC, _EXPORT_NAME, 0))
        size_bytes, _ = _EXPORT.unpack(self._receive(_EXPORT.size))
        return int(size_bytes)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a buffer with what is at an offset.

        Raises:
            ImageError: It can't be read; unless the server answered with an error, all later calls fail too.
            StoppedError: The stop was requested.
        """
        with self._lock:
            for begin in range(0, len(view), MAX_READ_BYTES):
                self._read(offset + begin, view[begin : begin + MAX_READ_BYTES])

    def _read(self, offset: int, view: memoryview) -> None:
        if self._failure:
            raise self._broken(self._failure)
        cookie = next(self._cookies)
        try:
            self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, cookie, offset, len(view)))
            magic, error, answered = _REPLY.unpack(self._receive(_REPLY.size))
            if (magic, answered) != (_REPLY_MAGIC, cookie):
                raise self._broken("the answer is not one of NBD")
            if not error:
                self._receive_into(view)
        except BaseException:
            self._failure = self._failure or "an earlier answer was left unread"
            raise
        if error:
            raise ImageError(f"{self._filename} can't be read at byte {offset} of the disk: it is damaged")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)  # a few bytes, of which the server has read all that came before
        except OSError as exc:
            raise self._broken(exc.strerror or "the socket is full") from exc

    def _receive(self, size_bytes: int) -> bytes:
        data = bytearray(size_bytes)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, view: memoryview) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        done = 0
        while done < len(view):
            self._cancel.raise_if_requested()
            try:
                count = self._socket.recv_into(view[done:])
            except TimeoutError as exc:
                if time.monotonic() > deadline:
                    raise self._broken(f"no answer within {TIMEOUT_SECONDS:.0f} seconds") from exc
                continue
            except OSError as exc:
                raise self._broken(exc.strerror or "the connection broke") from exc
            if not count:
                raise self._broken("the server hung up")
            done += count

    def _broken(self, reason: str) -> ImageError:
        self._failure = reason
        return ImageError(f"{self._filename} can't be read by qemu-nbd: {reason}")
