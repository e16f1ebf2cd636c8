"""Connect to a job server, and turn its refusals and all that breaks into errors of ours.

No redirect is followed but those of an image (`image.py`), https needs a certificate that this machine trusts, and no
proxy is used.
"""

import contextlib
import functools
import http
import json
import re
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from clouduploader.client.connection import ServerConnection
from clouduploader.errors import (
    ClouduploaderError,
    DeniedError,
    NetworkError,
    NoSuchJobError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
    UnavailableError,
    UsageError,
)
from clouduploader.model import server_xml
from clouduploader.util import certificates, deadline, hosts, http1
from clouduploader.util.cancel import Cancel
from clouduploader.util.certificates import ClientTls

CONNECT_SECONDS = 30.0  # what TCP needs for four tries (RFC 6298: 1 + 2 + 4 + 8 s), and some

HTTP_PORT, HTTPS_PORT = 80, 443
MAX_REPLY_BYTES = 1 << 16  # `status` and the like, with OBS's details in it
WHO_ASKS = "CLOUDUPLOADER_TOKEN, the file `token` in the home, or the keyring says who asks."
MAX_SHOWN = 300  # characters of what a server says

_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+")  # a name, or IPv6
_UNIX = re.compile(r"unix:(?://)?(/[!-~]*)")
_PATH = re.compile(r"(?:/[!-~]*)?")
T = TypeVar("T")
_REDIRECTS = (301, 302, 303, 307, 308)
_UNTRUSTED = {
    9: ("is not valid yet", "Is the clock of this machine right?"),
    10: ("has expired", "Its server needs a new one, unless the clock of this machine is wrong."),
    62: ("is for another host", "Give the URL with a name that is in the certificate."),
    64: ("is for another host", "Give the URL with a name or address that is in the certificate."),
    **dict.fromkeys(
        (18, 19, 20, 21),
        (
            "is of an authority that is not known here",
            "If you trust it, --ca or CLOUDUPLOADER_CA names the file with its certificate.",
        ),
    ),
}
"""What OpenSSL's codes mean (x509_vfy.h), with what to do."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")  # where http is answered


class ServerEndpoint:
    """One job server. Holds no connection.

    Args:
        url: See `JobServer`.
        token: See `JobServer`.
        tls: See `JobServer`.
        trusts_this_machine: Whether authorities are believed that this machine trusts, also where `tls` names some.

    Attributes:
        url: As it is shown.
        socket_path: The Unix socket; None by TCP.
        path: In front of all of the server's own; without a slash at its end.

    Raises:
        UsageError: It is no such URL.
    """

    def __init__(
        self, url: str, token: str | None = None, *, tls: ClientTls | None = None, trusts_this_machine: bool = False
    ) -> None:
        self._token = token
        self._trusts_this_machine = trusts_this_machine
        self._tls = tls or ClientTls()
        local = _UNIX.fullmatch(url)
        self.socket_path = local and local[1]
        try:
            parts = urllib.parse.urlsplit("http://localhost" if local else url)
            host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError(f"'{url}' is no URL") from None
        if parts.username is not None or parts.password is not None:
            raise UsageError("the URL of the server has a user in it: it knows users by tokens")
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise UsageError(
                f"'{url}' is not the URL of a server",
                hint="It is one such as https://obs.example.org:5452, or unix:/PATH.",
            )
        if parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
            raise UsageError(f"'{url}' is not the URL of a server: it may have a path, and nothing behind it")
        self._host = host
        self._is_tls = parts.scheme == "https"
        self._authority = parts.netloc
        self.path = parts.path.rstrip("/")
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self.url = f"unix:{local[1]}" if local else f"{parts.scheme}://{parts.netloc}{self.path}"

    @property
    def is_private(self) -> bool:
        """Whether what is sent can't be read on its way: by TLS, or because it stays on this machine."""
        return self._is_tls or hosts.is_here(self._host)

    def load_tls(self) -> None:
        """Read the files for TLS now, where it is https, and not with the first connection.

        Raises:
            ConfigError: They can't be used.
        """
        if self._is_tls:
            _ = self._context

    @contextlib.contextmanager
    def connection(self, *, max_body_bytes: int | None) -> Iterator[ServerConnection]:
        """Connect; the connection is closed when the block ends.

        Args:
            max_body_bytes: How long the body of the response may be; None for any length.
        """
        with contextlib.closing(self.connect(max_body_bytes=max_body_bytes)) as connection:
            yield connection

    def connect(self, *, max_body_bytes: int | None, is_kept: bool = False) -> ServerConnection:
        """Connect; the caller closes the connection. See ServerConnection."""
        with self.errors():
            sock = self._connect()
        return ServerConnection(
            sock, authority=self._authority, token=self._token, max_body_bytes=max_body_bytes, is_kept=is_kept
        )

    def _connect(self) -> socket.socket:
        if self.socket_path is not None:
            return self._connect_unix(self.socket_path)
        port = self._port or (HTTPS_PORT if self._is_tls else HTTP_PORT)
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.create_connection((self._host, port), CONNECT_SECONDS))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._is_tls:
                sock = undo.enter_context(self._context.wrap_socket(sock, server_hostname=self._host))
            undo.pop_all()
        return sock

    def _connect_unix(self, path: str) -> socket.socket:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(path)
            undo.pop_all()
        return sock

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        """How certificates are checked, and which one is shown."""
        context = certificates.client_context(self._tls.ca)
        if self._tls.ca is not None and self._trusts_this_machine:
            context.load_default_certs()
        if self._tls.cert is not None:
            certificates.load_pair(context, self._tls.cert, self._tls.key or self._tls.cert)
        return context

    def redirected(self, target: str, head: http1.ResponseHead) -> tuple["ServerEndpoint", str]:
        """Return where a redirect leads: an endpoint, and what to ask it for.

        Another origin gets neither the token nor the certificate of the client. No error shows what stands behind the
        question mark: an object store takes that for credentials.

        Args:
            target: What was asked for.
            head: Of the response.

        Raises:
            UnavailableError: It leads nowhere, or to where others could read on the way what is sent.
        """
        location = head.headers.get("location", "")
        try:
            parts = urllib.parse.urlsplit(urllib.parse.urljoin(f"{self._origin}{target}", location))
            origin = f"{parts.scheme}://{parts.netloc}"
            there = parts._replace(scheme="", netloc="", fragment="", path=parts.path or "/").geturl()
            if not location or not _PATH.fullmatch(there):
                raise UsageError("it is no URL")
            if origin == self._origin:
                return self, there
            found = ServerEndpoint(origin, tls=ClientTls(ca=self._tls.ca), trusts_this_machine=True)
        except (UsageError, ValueError):
            raise UnavailableError(f"{self.url} redirects to what is no URL of a server") from None
        if not found.is_private:
            raise UnavailableError(f"{self.url} redirects to {found.url}, from where others could read what is sent")
        return found, there

    def within(self, seconds: float, work: Callable[[], T], cancel: Cancel | None = None) -> T:
        """Do a part of an exchange that has to end in time, however slowly the server sends.

        Args:
            seconds: How long it may take.
            work: Does it, in a thread that may be left behind.
            cancel: See `deadline.within`.

        Raises:
            NetworkError: It did not.
        """
        try:
            return deadline.within(seconds, work, cancel)
        except deadline.OverdueError:
            raise NetworkError(f"the server {self.url} did not complete its answer within {seconds:.0f} s") from None

    def check(
        self,
        connection: ServerConnection,
        head: http1.ResponseHead,
        name: str | None,
        *,
        expected: Collection[int] = (http.HTTPStatus.OK,),
        errors: Mapping[int, type[ClouduploaderError]] | None = None,
    ) -> None:
        """Raise the error that a response means whose status is not one that is expected.

        Args:
            connection: Where its body comes from.
            head: Its head.
            name: The job that was asked for; without one a 404 means that this is no job server.
            expected: The statuses of answers that are no errors.
            errors: What other statuses mean where they say something else than in general.
        """
        status = head.status
        if status in expected:
            return
        if status in _REDIRECTS:
            place = one_line(head.headers.get("location", "nowhere").partition("?")[0])  # it may be a signed URL
            raise UnavailableError(f"{self.url} redirects to {place}", hint="Give that server's URL if you trust it.")
        text = self._body(connection)
        if status == http.HTTPStatus.BAD_REQUEST and not self._is_tls and b"HTTPS" in text:  # nginx, Apache, Go
            raise UnavailableError(f"{self.url} speaks TLS alone", hint="Give a URL with https.")
        summary, hint = _said(text)
        summary = one_line(summary or head.reason or "no reason given")
        if status == http.HTTPStatus.NOT_FOUND and name is not None:
            raise NoSuchJobError(f"there is no job {name} at {self.url}", hint="`clouduploader list` shows the jobs.")
        message = f"the server {self.url} refused: {summary} (HTTP {status})"
        if errors and status in errors:
            raise errors[status](message, hint=hint)
        if status == http.HTTPStatus.UNAUTHORIZED and self._token is None:
            raise DeniedError(message, hint=WHO_ASKS)
        if status in (401, 403) or "access denied" in summary:  # the second is OBS's, with a 500
            raise DeniedError(message, hint=hint)
        if status == http.HTTPStatus.NOT_FOUND:
            raise UnavailableError(message, hint="Is that the URL of a cloud upload server?")
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise ThrottledError(message, hint=hint)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status == http.HTTPStatus.REQUEST_TIMEOUT:
            raise TransientError(message, hint=hint)
        raise PlatformReplyError(message, hint=hint)

    def without_token(self) -> DeniedError:
        """Return the error of a client that the server only greets."""
        return DeniedError(f"the server {self.url} refused: a token is needed", hint=WHO_ASKS)

    def _body(self, connection: ServerConnection) -> bytes:
        """Return the body of a refusal; nothing if it can't be read."""
        try:
            with self.errors():
                return connection.read_body(MAX_REPLY_BYTES)
        except ClouduploaderError:
            return b""

    def json_object(self, data: bytes) -> dict[str, Any]:
        """Return the JSON object that is an answer.

        Raises:
            PlatformReplyError: It is none.
        """
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.nonsense("no JSON object")
        return found

    def nonsense(self, what: str) -> PlatformReplyError:
        """Make the error for an answer that no job server gives."""
        return PlatformReplyError(
            f"the server {self.url} answers with {what}", hint="Is that the URL of a cloud upload server?"
        )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what sockets, TLS and the parser of responses raise into errors of ours."""
        try:
            yield
        except TimeoutError as exc:
            raise NetworkError(f"the server {self.url} did not answer in time") from exc
        except ssl.SSLCertVerificationError as exc:
            why, hint = _UNTRUSTED.get(exc.verify_code, (f"is not to be trusted: {exc.verify_message}", None))
            raise UnavailableError(f"the certificate of {self.url} {why}", hint=hint) from exc
        except ssl.SSLError as exc:
            reason = getattr(exc, "reason", None) or exc.strerror or type(exc).__name__
            if reason in _NO_TLS:
                raise UnavailableError(f"{self.url} speaks no TLS", hint="Is it the URL of a server by http?") from exc
            if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
                raise self._denied() from exc
            raise NetworkError(f"TLS with {self.url} failed, or it hung up: {reason}") from exc
        except socket.gaierror as exc:
            message = f"the host of {self.url} is not known: {exc.strerror}"
            raise (NetworkError if exc.errno == socket.EAI_AGAIN else UnavailableError)(message) from exc
        except OSError as exc:
            reason = exc.strerror or str(exc) or type(exc).__name__
            raise NetworkError(
                f"the server {self.url} can't be reached, or hung up: {reason}", hint=self._tls_hint(exc)
            ) from exc
        except http1.TruncatedResponseError as exc:
            raise NetworkError(f"the server {self.url} hung up in the middle of its answer") from exc
        except http1.OversizedResponseError as exc:
            raise self.nonsense(str(exc)) from exc
        except http1.MalformedResponseError as exc:
            raise PlatformReplyError(
                f"what answers at {self.url} is no HTTP server: {exc}", hint=self._tls_hint(exc)
            ) from exc

    def _denied(self) -> DeniedError:
        """Make the error for a server that wants another certificate of its client, or one at all."""
        if self._tls.cert is None:
            return DeniedError(
                f"{self.url} asks for a certificate of its client", hint="--cert or CLOUDUPLOADER_CERT names the file."
            )
        return DeniedError(f"{self.url} does not accept the certificate {self._tls.cert}")

    def _tls_hint(self, error: Exception) -> str | None:
        """Return what may be the matter where a server that speaks TLS alone was asked by http."""
        is_by_http = not (self._is_tls or self.socket_path)
        if is_by_http and isinstance(error, (ConnectionResetError, http1.MalformedResponseError)):
            return "If it speaks TLS, give a URL with https."
        return None


def _said(text: bytes) -> tuple[str | None, str | None]:
    """Return the summary in the XML of a refusal, or the detail of a problem in JSON, and its hint; None for none."""
    try:
        return server_xml.parse_reply(text, "status").get("summary"), None
    except ClouduploaderError:
        pass
    try:
        problem = json.loads(text)
        detail, hint = problem.get("detail"), problem.get("hint")
    except (ValueError, AttributeError, RecursionError):
        return None, None
    return detail if isinstance(detail, str) else None, one_line(hint) if isinstance(hint, str) else None


def one_line(text: str) -> str:
    """Return what a server says as one line of at most MAX_SHOWN characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."
