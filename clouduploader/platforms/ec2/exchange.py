"""One request of the SDK and its whole answer, within a time."""

import http.client
import io
import ssl
from collections.abc import Iterator
from typing import Any

import botocore.awsrequest
import botocore.exceptions
import botocore.httpsession
import urllib3.exceptions
import urllib3.util.ssl_match_hostname

from clouduploader.errors import ConfigError, NetworkError
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.util import deadline
from clouduploader.util.cancel import Cancel

SECONDS = 100.0
"""For connecting (20 s) and for an answer (60 s of silence, see `api.CONFIG`), and some for its parts."""
MAX_BODY_BYTES = 64 << 20  # a page of thousands of images has a few; a block has half a MiB
PIECE_BYTES = 1 << 16
UNTRUSTED_ERRORS = (ssl.SSLCertVerificationError, urllib3.util.ssl_match_hostname.CertificateError)
"""What OpenSSL and urllib3 raise for a certificate that is not believed."""
_NO_BODY = (http.client.NO_CONTENT, http.client.NOT_MODIFIED)


class MalformedAnswerError(botocore.exceptions.HTTPClientError):  # type: ignore[misc] # botocore has no types
    """What came is no answer of AWS, or half of one. The SDK tries again, as after a connection that was lost."""

    fmt = "{error}"


class Exchange:
    """Stands for the SDK's HTTP session in a client.

    Args:
        sdk: That session.
        cancel: Once it is requested, an exchange ends within seconds.

    Attributes:
        sdk: The same.
    """

    def __init__(self, sdk: Any, cancel: Cancel | None) -> None:  # noqa: ANN401 botocore has no types
        self.sdk = sdk
        self._cancel = cancel

    def send(self, request: Any) -> botocore.awsrequest.AWSResponse:  # noqa: ANN401 botocore has no types
        """Send a request, and read its whole answer, that of a stream too.

        Raises:
            NetworkError: It took too long.
            ConfigError: The certificate is not believed, or the authorities can't be read.
            botocore.exceptions.BotoCoreError: There was no answer, or a part of one.
        """
        try:
            return deadline.within(SECONDS, lambda: self._whole(request), self._cancel)
        except deadline.OverdueError:
            raise NetworkError(
                f"{request.url} was at its answer for too long", hint="Check the network and the proxy settings."
            ) from None

    def close(self) -> None:
        """End the SDK's session."""
        self.sdk.close()

    def _whole(self, request: Any) -> botocore.awsrequest.AWSResponse:  # noqa: ANN401 botocore has no types
        url = request.url
        request.stream_output = True  # else the SDK reads as much as is sent
        try:
            head = self.sdk.send(request)
        except botocore.exceptions.SSLError as exc:
            cause = cause_of(exc)
            if isinstance(cause, UNTRUSTED_ERRORS):
                raise aws_errors.untrusted(url, cause) from exc
            _check_authorities(botocore.httpsession.get_cert_path(self.sdk._verify))
            raise
        except botocore.exceptions.BotoCoreError as exc:
            if found := unusable_url(exc):
                raise found from None
            raise
        try:
            body = _read(head)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as exc:
            head.raw.close()
            raise botocore.exceptions.ConnectionClosedError(endpoint_url=url, error=exc) from exc
        except MalformedAnswerError:
            head.raw.close()
            raise
        return botocore.awsrequest.AWSResponse(url, head.status_code, head.headers, _Body(body))


class _Body(io.BytesIO):
    """A body that was read; with what the SDK reads one by."""

    def stream(self) -> Iterator[bytes]:
        """All that is left, at once."""
        yield self.read()


def _read(head: Any) -> bytes:  # noqa: ANN401 botocore has no types
    """Read a body to its end, which its head must tell: what ends with the connection may have been cut."""
    url, status = head.url, head.status_code
    if not (200 <= status < 300 or 400 <= status < 600):
        raise MalformedAnswerError(endpoint_url=url, error=f"HTTP status {status}, which no API of AWS gives")
    length = head.headers.get("Content-Length")
    is_chunked = "chunked" in head.headers.get("Transfer-Encoding", "").lower()
    if not is_chunked and status not in _NO_BODY and not (length and length.isdecimal()):
        raise MalformedAnswerError(endpoint_url=url, error="an answer without its length: it may have been cut")
    data = bytearray()
    for piece in head.raw.stream(PIECE_BYTES, decode_content=False):
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise MalformedAnswerError(endpoint_url=url, error=f"an answer of more than {MAX_BODY_BYTES} bytes")
    if length and not is_chunked and status not in _NO_BODY and len(data) != int(length):
        raise MalformedAnswerError(endpoint_url=url, error=f"{len(data)} of the {length} bytes of an answer")
    return bytes(data)


def _check_authorities(path: str) -> None:
    """Return if the certificates of a file can be used: what the SDK says of one that is empty is a failure of TLS.

    Raises:
        ConfigError: They can't.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as exc:  # an error of OpenSSL is one
        raise aws_errors.no_authorities(path, exc) from exc


def unusable_url(exc: BaseException) -> ConfigError | None:
    """The error of ours for a URL with which no other try will do better; None if it is about something else.

    What is returned does not have the URL: there may be a password in it.
    """
    if isinstance(exc, botocore.exceptions.ProxyConnectionError):
        # the SDK puts "http://" before what begins otherwise
        scheme, mark, _ = exc.kwargs["proxy_url"].removeprefix("http://").partition("://")
        if mark and scheme != "https":
            return ConfigError(
                f"the proxy on the way to AWS is one of {scheme}, and AWS's SDK knows none but those of http and https",
                hint="Give the URL of such a one in HTTPS_PROXY; NO_PROXY=amazonaws.com goes past it.",
            )
    if isinstance(exc, botocore.exceptions.HTTPClientError) and isinstance(cause_of(exc), ValueError):
        return ConfigError(  # urllib3.exceptions.LocationValueError is a ValueError
            "the URL of the endpoint of AWS, or of the proxy on the way, is none of http or https",
            hint="Look at HTTPS_PROXY, and at the variables AWS_ENDPOINT_URL* and .aws/config.",
        )
    return None


def cause_of(exc: BaseException) -> BaseException:
    """What OpenSSL or Python said, out of what urllib3 and botocore have put around it."""
    inner = exc.kwargs.get("error") if isinstance(exc, botocore.exceptions.BotoCoreError) else None
    while isinstance(inner, urllib3.exceptions.HTTPError) and inner.args and isinstance(inner.args[-1], BaseException):
        inner = inner.args[-1]
    return inner if isinstance(inner, BaseException) else exc
