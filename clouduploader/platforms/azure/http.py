"""Requests over HTTPS, by the library that the core has already.

The SDK's own ways were measured: on the same pages azure-storage-blob takes 23 MiB more memory, of the 96 that an
upload may have, and 0.35 s more CPU a GiB; azure-identity with what it is made of takes 30 MiB and 0.2 s for a client
secret, which is one request; azure-mgmt-compute has 14 MB of models for the seven calls that are made here.
"""

import json
import ssl
import urllib.parse
import urllib.request
from collections.abc import Mapping

import urllib3

import clouduploader
from clouduploader.errors import NetworkError
from clouduploader.plugin import JsonValue
from clouduploader.util.frozen import frozen

TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)  # seconds; storage may work for 30 on a page
AUTHORITIES = "REQUESTS_CA_BUNDLE"  # the variable that Microsoft's own programs go by


@frozen()
class Answer:
    """What came back, read to its end.

    Attributes:
        status: Of HTTP.
        headers: By any case of their names.
        data: The body.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes


class HttpClient:
    """Connections, of which there may be some at once to each host. Its methods may be called by several threads.

    Args:
        environment: Names the file of certificates; that of proxies is the process's own.
        connections: How many there may be.
    """

    def __init__(self, environment: Mapping[str, str], connections: int) -> None:
        self._options = {
            "maxsize": connections,
            "ssl_context": ssl.create_default_context(cafile=environment.get(AUTHORITIES) or None),
        }
        self._direct = urllib3.PoolManager(**self._options)  # type: ignore[arg-type]
        self._proxies: dict[str, urllib3.PoolManager] = {}

    def request(
        self, method: str, url: str, *, subject: str, headers: Mapping[str, str], data: bytes | None = None
    ) -> Answer:
        """Make one request, once. Blocks.

        Args:
            method: Of HTTP.
            url: May hold a secret: it is never told.
            subject: What is asked for, for the message.
            headers: All but those of HTTP itself.
            data: The body; None for none.

        Raises:
            NetworkError: There is no answer.
        """
        sent = {"User-Agent": f"clouduploader/{clouduploader.__version__}", **headers}
        try:
            found = self._manager(url).request(
                method, url, body=data, headers=sent, redirect=False, retries=False, timeout=TIMEOUT
            )
        except urllib3.exceptions.HTTPError as exc:
            failure = _reason(exc)
        else:
            return Answer(found.status, found.headers, found.data)
        raise NetworkError(f"{subject}: {failure}")  # out here, for the exception above may have the URL in it

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if not proxy or urllib.request.proxy_bypass(parts.netloc):
            return self._direct
        if proxy not in self._proxies:
            user = urllib.parse.urlsplit(proxy)
            login = (
                f"{urllib.parse.unquote(user.username)}:{urllib.parse.unquote(user.password or '')}"
                if user.username
                else None
            )
            headers = urllib3.make_headers(proxy_basic_auth=login)
            self._proxies[proxy] = urllib3.ProxyManager(proxy, proxy_headers=headers, **self._options)  # type: ignore[arg-type]
        return self._proxies[proxy]


def encoded(url: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to the query of a URL."""
    query = urllib.parse.urlencode(parameters)
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def as_json(document: JsonValue) -> tuple[bytes | None, dict[str, str]]:
    """Return a body with its header; none for None."""
    return (None, {}) if document is None else (json.dumps(document).encode(), {"Content-Type": "application/json"})


def _reason(exc: urllib3.exceptions.HTTPError) -> str:
    """Say why there is no answer, without the URL."""
    if isinstance(exc, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    cause: BaseException = exc
    while inner := next((part for part in (cause.__cause__, cause.__context__) if part is not None), None):
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {cause.verify_message}"
    return f"the connection failed: {getattr(cause, 'strerror', None) or type(cause).__name__}"
