"""Endpoints of AWS's APIs: their URLs, and how they are reached."""

import urllib.parse
from typing import TYPE_CHECKING

from clouduploader.errors import ConfigError
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    import ssl

PORTS = {"http": 80, "https": 443}


@frozen(kw_only=True)
class AwsEndpoint:
    """Where an API of AWS answers.

    Attributes:
        url: As it was given.
        is_tls: Whether it is https.
        host: Name or address, without brackets.
        port: The scheme's own where none was given.
        authority: For the header Host: host, and port unless it is the scheme's own.
        prefix: The path that goes before those of the API, encoded; "" or "/something".
    """

    url: str
    is_tls: bool
    host: str
    port: int
    authority: str
    prefix: str


def parse(url: str, *, origin: str) -> AwsEndpoint:
    """Take a URL apart.

    Args:
        url: From the environment or the SDK.
        origin: Where it comes from, for the error.

    Raises:
        ConfigError: It is not the URL of an endpoint.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        is_url = parts.scheme in PORTS and parts.hostname and port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{origin} is '{url}', not the URL of an endpoint")
    host = parts.hostname or ""
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != PORTS[parts.scheme]:
        authority += f":{port}"
    return AwsEndpoint(
        url=url,
        is_tls=parts.scheme == "https",
        host=host,
        port=port or PORTS[parts.scheme],
        authority=authority,
        prefix=parts.path.removesuffix("/"),
    )


@frozen(kw_only=True)
class ProxyRoute:
    """How the SDK reaches an API, for requests of our own; see `boto.route`.

    Attributes:
        place: The endpoint.
        region: Of the signature.
        authorities: The file with the certificates of the authorities that are trusted.
        proxy: The URL of the proxy, or None.
    """

    place: AwsEndpoint
    region: str
    authorities: str
    proxy: str | None = None

    def tls_context(self) -> "ssl.SSLContext | None":
        """Make the context of TLS connections, which verifies certificates and names as the SDK does; None without TLS.

        Raises:
            ConfigError: The authorities can't be read.
        """
        if not self.place.is_tls:
            return None
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.authorities)
        except OSError as exc:
            raise aws_errors.no_authorities(self.authorities, exc) from exc
        return context
