"""TLS: the certificate of the server, as it is on disk now.

A new pair of certificate and key is taken for new connections only, and if it can't be, the old one stays.
"""

import ssl
from collections.abc import Iterable
from pathlib import Path

from clouduploader.errors import ClouduploaderError, ConfigError
from clouduploader.server.settings import ServerSettings, SettingsSource
from clouduploader.util import certificates

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all of this kind
HANDSHAKE_SECONDS = 20.0  # four round trips over a bad line, and some
SHUTDOWN_SECONDS = 5.0  # for the client's word that it saw the end
READ_BYTES = 65_536  # of a connection at once, and for each there is such a buffer; asyncio's own has four times that
UNPARSED_BYTES = 3 * READ_BYTES  # may be under way to the parser: what waits to be decrypted, a read more, and records
CONNECTION_BYTES = 100 << 10  # of memory for each; measured: 106 KiB for both ends, of which 64 are that buffer

Looks = tuple[tuple[int, ...] | None, ...]


def create_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return the context that the settings say; None without TLS.

    Raises:
        ConfigError: A file can't be read, or is not what it should be.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    certificates.load_pair(context, settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca is not None:
        certificates.file_mode(settings.tls_client_ca)
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError as exc:
            raise ConfigError(f"{settings.tls_client_ca} has no certificates in PEM") from exc
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class TlsContext:
    """The context for new connections. `load_if_changed` is for one thread at a time, all else for any.

    Args:
        source: The settings of the server.

    Attributes:
        current: None without TLS.

    Raises:
        ConfigError: See `create_context`.
    """

    def __init__(self, source: SettingsSource) -> None:
        self._source = source
        self._is_reload_requested = False
        self._loaded = self._last = _looks(source.current)
        self.current = create_context(source.current)

    def request_reload(self) -> None:
        """Have the files read again, changed or not."""
        self._is_reload_requested = True

    def load_if_changed(self) -> str | None:
        """Read the files again if that was requested, or they have changed and then stayed as they are.

        Returns:
            The outcome, for the log; None if they were not read.
        """
        found = _looks(self._source.current)
        is_changed = found != self._loaded and found == self._last
        self._last = found
        if not (is_changed or self._is_reload_requested):
            return None
        self._is_reload_requested = False
        self._loaded = found
        try:
            self.current = create_context(self._source.current)
        except ClouduploaderError as exc:
            return f"the old certificate stays: {exc.message}"
        return None if self.current is None else "the certificate was read again"


def _looks(settings: ServerSettings) -> Looks:
    """Return what changes with the files, wherever links lead: no event of a directory tells of those behind links."""
    return tuple(_look(path) for path in _paths(settings))


def _paths(settings: ServerSettings) -> Iterable[Path]:
    return filter(None, (settings.tls_cert, settings.tls_key, settings.tls_client_ca))


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
