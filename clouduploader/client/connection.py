"""One connection to a job server: requests, one after the other, and their responses."""

import contextlib
import http
import socket
import ssl
import threading
from collections.abc import Mapping

from clouduploader.util import http1

RECEIVE_BYTES = 1 << 16


class ServerConnection:
    """Requests and their responses over a connected socket. One thread at a time.

    Each method but `close` and `begin` may raise OSError, TimeoutError among them by the socket's timeout, and
    http1.MalformedResponseError.

    Args:
        sock: Connected, with TLS where it is https; closed by `close`.
        authority: Host and port for the request's header `Host`.
        token: Sent with the request; None for none.
        max_body_bytes: How long the body of the response may be; None for any length.
        is_kept: Whether the server is asked to keep the connection for another request.

    Attributes:
        sock: As given; the caller sets its timeout.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        authority: str,
        token: str | None,
        max_body_bytes: int | None,
        is_kept: bool = False,
    ) -> None:
        self.sock = sock
        self._headers = {"Host": authority, "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._headers["Connection"] = "keep-alive" if is_kept else "close"
        self.begin(max_body_bytes=max_body_bytes)

    def begin(self, *, max_body_bytes: int | None) -> None:
        """Make ready for another request, once `is_reusable`; see ServerConnection."""
        self._parser = http1.ResponseParser(max_body_bytes=max_body_bytes)
        self._body = b""  # came with the head

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the response has come."""
        return self._parser.has_begun

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is good for another request: all of the response was read, and the server keeps it."""
        return self._parser.is_reusable and not self._body

    def send_head(self, method: str, target: str, headers: Mapping[str, str]) -> None:
        """Send the head of the request; what `headers` say of a body must follow it."""
        lines = {**self._headers, **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        try:
            self.sock.sendall(f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("ascii"))
        except (ConnectionError, ssl.SSLError):
            self._receive()  # why a server hung up in TLS, such as that it wants a certificate, came before
            raise

    def read_head(self) -> http1.ResponseHead:
        """Read the head of the response; interim responses (1xx) are left out."""
        while self._parser.head is None:
            self._receive()
        return self._parser.head

    def await_continue(self) -> http1.ResponseHead | None:
        """Wait until the server asks for the request's body; return the head of the response if it does not."""
        while self._parser.head is None and http.HTTPStatus.CONTINUE not in self._parser.interim_statuses:
            self._receive()
        return self._parser.head

    def read(self) -> bytes:
        """Read the next bytes of the body; b"" at its end."""
        while not (self._body or self._parser.is_complete):
            self._receive()
        body, self._body = self._body, b""
        return body

    def read_into(self, buffer: memoryview) -> int:
        """Read the next bytes of a body of known length into a buffer, without copying them; return how many.

        Returns:
            0 at the end of the body.
        """
        if self._body or not self._parser.plain_bytes:
            piece = self.read()
            count = min(len(piece), len(buffer))
            buffer[:count] = piece[:count]
            self._body = piece[count:]
            return count
        count = self.sock.recv_into(buffer, min(len(buffer), self._parser.plain_bytes))
        if count:
            self._parser.skip(count)
        else:
            self._parser.end()
        return count

    def read_body(self, max_bytes: int) -> bytes:
        """Read the body to its end.

        Raises:
            http1.OversizedResponseError: It is longer than `max_bytes`.
        """
        data = bytearray()
        while piece := self.read():
            data += piece
            if len(data) > max_bytes:
                raise http1.OversizedResponseError(f"more than {max_bytes} bytes")
        return bytes(data)

    def close(self) -> None:
        """End the connection, also under a thread that waits for it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _receive(self) -> None:
        if piece := self.sock.recv(RECEIVE_BYTES):
            self._body += self._parser.feed(piece)
        elif self._parser.has_begun:
            self._parser.end()
        else:
            raise ConnectionResetError("no answer")


class ConnectionOwner:
    """Closes a connection that a thread makes, also if that thread is left behind while it connects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_closed = False
        self.connection: ServerConnection | None = None

    def take(self, connection: ServerConnection) -> None:
        """Own this connection, in the place of one that the caller has closed.

        Raises:
            ConnectionAbortedError: It came too late, and is closed.
        """
        with self._lock:
            if not self._is_closed:
                self.connection = connection
                return
        connection.close()
        raise ConnectionAbortedError("it was closed before it was there")

    def close(self) -> None:
        """Close the connection, also under a thread that waits for it, and any that comes later."""
        with self._lock:
            self._is_closed = True
        if self.connection:
            self.connection.close()
