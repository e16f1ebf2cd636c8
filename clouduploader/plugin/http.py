"""Requests to a cloud over HTTP/1.1, for platforms whose SDK costs more than the few calls that are needed of it.

What comes back is read strictly, see `util.http1`, and only up to a limit. No redirection is followed: the caller's
token would go along. Nothing is tried again: that is `Context.retry`'s.

Measured: urllib3 takes 25 ms more to import than this module with all that it needs, of the 60 to 100 in which an
upload is to come to its first request; azure-identity and google-auth take 200.
"""

import base64
import errno
import json
import os
import re
import select
import socket
import ssl
import threading
import urllib.parse
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import clouduploader
from clouduploader.errors import ConfigError, NetworkError, PlatformReplyError
from clouduploader.plugin.answers import MAX_ANSWER_BYTES
from clouduploader.plugin.fields import JsonValue
from clouduploader.util import http1
from clouduploader.util.frozen import frozen

CONNECT_SECONDS = 10.0  # to each address of a host
SILENCE_SECONDS = 60.0  # until the next bytes come or go; Azure's storage may work for 30 on a page
AUTHORITIES = "REQUESTS_CA_BUNDLE"  # the variable that Microsoft's, Google's and OpenStack's own programs go by
_PIECE_BYTES = 256 << 10  # sent within SILENCE_SECONDS
_RECEIVE_BYTES = 1 << 18
_PORTS = {"http": 80, "https": 443}
_SAFE = "!#$%&'()*+,/:;=?@[]~"  # of a URL, stays as it is
_VALUE = re.compile(r"[\t -~\x80-\xff]*")  # of a header
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # of a certificate, by `openssl rehash`


class Body(Protocol):
    """What a request sends, in pieces."""

    def __len__(self) -> int:
        """Bytes in all."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The pieces."""


@frozen()
class Answer:
    """What came back, read to its end.

    Attributes:
        status: Of HTTP.
        headers: By their names in lower case.
        data: The body.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes

    def header(self, name: str) -> str:
        """Return a header by its name in any case; "" if there is none."""
        return self.headers.get(name.lower(), "")


@frozen()
class _Place:
    """Where a connection leads.

    Attributes:
        scheme: http or https.
        host: A name or an address.
        port: Of it.
        proxy: The URL of a proxy, or "".
    """

    scheme: str
    host: str
    port: int
    proxy: str


class HttpClient:
    """Connections that are kept for further requests, until it is gone. Its methods may be called by several threads.

    Args:
        environment: Names the file or directory of certificates (REQUESTS_CA_BUNDLE) and proxies (https_proxy,
            no_proxy).
        connections: How many are kept to one host.

    Raises:
        ConfigError: The certificates can't be read.
    """

    def __init__(self, environment: Mapping[str, str], connections: int) -> None:
        self._context = _trusting(environment.get(AUTHORITIES) or None)
        self._environment = environment
        self._connections = connections
        self._lock = threading.Lock()
        self._idle: dict[_Place, list[socket.socket]] = {}
        weakref.finalize(self, _close_all, self._idle)

    def request(
        self, method: str, url: str, *, subject: str, headers: Mapping[str, str], data: "bytes | Body | None" = None
    ) -> Answer:
        """Make one request, once. Blocks; each of its parts gets CONNECT_SECONDS or SILENCE_SECONDS.

        Args:
            method: Of HTTP.
            url: May hold a secret: it is never told.
            subject: What is asked for, for the message.
            headers: All but those of HTTP itself.
            data: The body; None for none.

        Raises:
            ConfigError: The environment names no proxy that can be asked.
            NetworkError: There is no answer, or half of one.
            PlatformReplyError: It is longer than MAX_ANSWER_BYTES; the URL, or a header, is none.
        """
        try:
            return self._exchange(method, url, headers, data)
        except http1.OversizedResponseError as exc:
            raise PlatformReplyError(f"{subject}: the answer has {exc}") from None
        except (OSError, http1.MalformedResponseError) as exc:
            raise NetworkError(f"{subject}: {_reason(exc)}") from None
        except ValueError:  # of a URL that came from the cloud, or a token
            raise PlatformReplyError(f"{subject}: no request can be made of what the cloud gave") from None

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], data: "bytes | Body | None") -> Answer:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError
        port = parts.port or _PORTS[parts.scheme]
        place = _Place(parts.scheme, parts.hostname, port, _proxy_of(parts, self._environment))
        target = urllib.parse.quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe=_SAFE)
        sent = {
            "Host": parts.netloc.rpartition("@")[2],
            "User-Agent": f"clouduploader/{clouduploader.__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        if data is not None:
            sent["Content-Length"] = str(len(data))
        if place.proxy and place.scheme == "http":
            target = f"http://{sent['Host']}{target}"
            sent |= _proxy_login(place.proxy)
        head = _head(method, target, sent)
        sock = self._taken(place) or self._connected(place)
        parser = http1.ResponseParser(max_body_bytes=MAX_ANSWER_BYTES, has_body=method != "HEAD")
        try:
            _send(sock, head, data)
            body = _receive(sock, parser)
            found = parser.end()
        except BaseException:
            sock.close()
            raise
        if parser.is_reusable:
            self._keep(place, sock)
        else:
            sock.close()
        return Answer(found.status, found.headers, body)

    def _taken(self, place: _Place) -> socket.socket | None:
        """Take a connection that is kept, and still open."""
        while True:
            with self._lock:
                several = self._idle.get(place)
                if not several:
                    return None
                sock = several.pop()
            if not _has_come(sock):
                return sock
            sock.close()  # its other end has closed it

    def _keep(self, place: _Place, sock: socket.socket) -> None:
        with self._lock:
            several = self._idle.setdefault(place, [])
            if len(several) < self._connections:
                several.append(sock)
                return
        sock.close()

    def _connected(self, place: _Place) -> socket.socket:
        proxy = urllib.parse.urlsplit(place.proxy)
        host, port = (proxy.hostname or "", proxy.port or _PORTS["http"]) if place.proxy else (place.host, place.port)
        sock = socket.create_connection((host, port), CONNECT_SECONDS)
        try:
            sock.settimeout(SILENCE_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.scheme == "http":
                return sock
            if place.proxy:
                _open_tunnel(sock, place)
            return self._context.wrap_socket(sock, server_hostname=place.host)
        except BaseException:
            sock.close()
            raise


def encoded(url: str, parameters: Mapping[str, str | Iterable[str]]) -> str:
    """Add parameters to the query of a URL; one with several values comes several times."""
    query = urllib.parse.urlencode(parameters, doseq=True)
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def as_json(document: JsonValue) -> tuple[bytes | None, dict[str, str]]:
    """Return a body with its header; none for None."""
    return (None, {}) if document is None else (json.dumps(document).encode(), {"Content-Type": "application/json"})


def as_form(values: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
    """Return the body of a form with its header."""
    return urllib.parse.urlencode(values).encode(), {"Content-Type": "application/x-www-form-urlencoded"}


def _close_all(idle: Mapping[_Place, list[socket.socket]]) -> None:
    for sock in (one for several in idle.values() for one in several):
        sock.close()


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    if not all(_VALUE.fullmatch(value) for value in headers.values()):
        raise ValueError
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _send(sock: socket.socket, head: bytes, data: "bytes | Body | None") -> None:
    """Send a request; one that is answered before its end is not sent on."""
    if isinstance(data, bytes) and len(data) < _PIECE_BYTES:
        head, data = head + data, None
    try:
        sock.sendall(head)
        for piece in _pieces(data) if isinstance(data, bytes) else data or ():
            sock.sendall(piece)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        if not _has_come(sock):
            raise


def _has_come(sock: socket.socket) -> bool:
    """Tell whether there is something to read, if only the end of the connection. Does not block."""
    found = select.poll()
    found.register(sock, select.POLLIN)
    return bool(found.poll(0))


def _pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + _PIECE_BYTES] for start in range(0, len(view), _PIECE_BYTES))


def _receive(sock: socket.socket, parser: http1.ResponseParser) -> bytes:
    """Read an answer to its end; return its body."""
    body = bytearray()
    while not parser.is_complete:
        piece = sock.recv(_RECEIVE_BYTES)
        if not piece:
            parser.end()
            break
        body += parser.feed(piece)
    return bytes(body)


def _open_tunnel(sock: socket.socket, place: _Place) -> None:
    """Let a proxy connect us."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    authority = f"{host}:{place.port}"
    sock.sendall(_head("CONNECT", authority, {"Host": authority, **_proxy_login(place.proxy)}))
    parser = http1.ResponseParser(max_body_bytes=MAX_ANSWER_BYTES, has_body=False)
    _receive(sock, parser)
    if (status := parser.end().status) // 100 != 2:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"the proxy says {status}")


def _proxy_of(parts: urllib.parse.SplitResult, environment: Mapping[str, str]) -> str:
    """Return the URL of the proxy that a request goes by, as curl and Python find it; "" for none.

    urllib.request does the same, and takes 7 ms to import.
    """
    found = _variable(f"{parts.scheme}_proxy", environment)
    names = [name.strip().lower().removeprefix(".") for name in _variable("no_proxy", environment).split(",")]
    hosts = (parts.hostname or "", parts.netloc.rpartition("@")[2].lower())
    if not found or "*" in names or any(f".{host}".endswith(f".{name}") for host in hosts for name in names if name):
        return ""
    found = found if "://" in found else f"http://{found}"
    if not _is_proxy(found):  # it may hold a password, and is not told
        raise ConfigError(
            f"{parts.scheme}_proxy is no URL of a proxy", hint="It is like http://proxy.example.com:3128."
        )
    return found


def _is_proxy(url: str) -> bool:
    """Tell whether a proxy can be asked: by http only, and with a host and a port that can be."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme == "http" and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        return False


def _variable(name: str, environment: Mapping[str, str]) -> str:
    return environment.get(name, environment.get(name.upper(), ""))


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urllib.parse.urlsplit(proxy)
    if not parts.username:
        return {}
    login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _trusting(cafile: str | None) -> ssl.SSLContext:
    """Make a context that trusts a file of certificates, or those of this machine.

    OpenSSL reads a directory of certificates by their hashes, when it needs one; to read the file with all of them
    takes 17 ms. Where both have as many, they are the same, unless SSL_CERT_FILE names another file.
    """
    paths = ssl.get_default_verify_paths()
    if not cafile and paths.cafile and paths.cafile == paths.openssl_cafile and paths.capath:
        count = sum(1 for entry in os.scandir(paths.capath) if _HASHED_NAME.fullmatch(entry.name))
        if count and count >= Path(paths.cafile).read_bytes().count(b"BEGIN CERTIFICATE"):
            return ssl.create_default_context(capath=paths.capath)
    try:
        if cafile and Path(cafile).is_dir():
            return ssl.create_default_context(capath=cafile)
        return ssl.create_default_context(cafile=cafile)
    except OSError as exc:
        failure = "it holds no certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
    raise ConfigError(f"{AUTHORITIES} is {cafile}: {failure}")


def _reason(exc: Exception) -> str:
    """Say why there is no answer, without the URL."""
    match exc:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not trusted: {exc.verify_message}"
        case http1.MalformedResponseError():
            return f"the answer can't be read: {exc}"
        case OSError():
            return f"the connection failed: {exc.strerror or type(exc).__name__}"
    return type(exc).__name__
