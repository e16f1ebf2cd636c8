"""The URL of an endpoint taken apart, and whom to believe that it is the one."""

import dataclasses
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import ConfigError

if TYPE_CHECKING:
    import ssl

PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
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


def parse(url: str, *, origin: str) -> Endpoint:
    """Take a URL apart.

    Args:
        url: From the environment or the SDK.
        origin: Who gave it, for the error.

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
    return Endpoint(
        url=url,
        is_tls=parts.scheme == "https",
        host=host,
        port=port or PORTS[parts.scheme],
        authority=authority,
        prefix=parts.path.removesuffix("/"),
    )


def tls_context(environment: Mapping[str, str]) -> "ssl.SSLContext":
    """Make what TLS connections need: certificates and host names are verified.

    Args:
        environment: AWS_CA_BUNDLE names the only authorities that are believed, as in the SDKs.

    Raises:
        ConfigError: AWS_CA_BUNDLE can't be used.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=environment.get("AWS_CA_BUNDLE") or None)
    except OSError as exc:
        raise ConfigError(f"AWS_CA_BUNDLE can't be used: {exc.strerror or exc}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
