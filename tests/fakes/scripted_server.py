"""A server that says what a test tells it to, byte for byte."""

import contextlib
import dataclasses
import socket
import ssl
import threading
from email.parser import BytesHeaderParser


@dataclasses.dataclass(frozen=True)
class Request:
    """What came: `GET /path`, the headers, and the body that came with them."""

    line: str
    headers: dict[str, str]
    body: bytes


def ok(body, *headers):
    """An answer with a 200."""
    return answer("200 OK", body, *headers)


def answer(status, body, *headers):
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*pieces, is_whole=True):
    """A 200 in chunks, with or without its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" * is_whole)


def refusal(status, summary):
    """An answer as OBS's server refuses."""
    return answer(status, f'<status code="{status[:3]}">\n  <summary>{summary}</summary>\n</status>\n'.encode())


class ScriptedServer:
    """Listens on loopback; answers each connection with the next answer, and closes it.

    Args:
        answers: Bytes, or functions that get the connection and its file to read from, once the head of the
            request is read (and the body, unless it is expected to be asked for).
        context: For TLS.
    """

    def __init__(self, answers, context=None):
        self.requests = []
        self.is_obs = True
        self._answers = list(answers)
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                connection.settimeout(20)
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection, connection.makefile("rb") as reader:
                    self._answer(connection, reader)

    def _answer(self, connection, reader):
        line = reader.readline().decode().removesuffix(" HTTP/1.1\r\n")
        if (
            line == "GET /api/v1/me" and self.is_obs
        ):  # by which a client finds out whether a server is OBS's, as this is
            list(iter(reader.readline, b"\r\n"))
            connection.sendall(refusal("400 unknown request", "unknown request: GET:/api/v1/me"))
            return
        if not line:
            return
        lines = []
        while (next_line := reader.readline()) not in (b"\r\n", b""):
            lines.append(next_line)
        headers = dict(BytesHeaderParser().parsebytes(b"".join(lines)))
        size = 0 if "Expect" in headers else int(headers.get("Content-Length", 0))
        self.requests.append(Request(line, headers, reader.read(size)))
        reply = self._answers.pop(0)
        if callable(reply):
            reply(connection, reader)
        else:
            connection.sendall(reply)
