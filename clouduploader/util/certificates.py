"""Certificates with their keys, as TLS takes them from files."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import ConfigError
from clouduploader.util import files
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # most commands speak no TLS
    import ssl


@frozen(kw_only=True)
class ClientTls:
    """The files of a client, in PEM.

    Attributes:
        ca: The authorities of servers' certificates; None for those that this machine trusts.
        cert: The certificate that it shows to a server that asks for one; None for none.
        key: The key of that; None if it is in the same file.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def client_context(ca: Path | None) -> "ssl.SSLContext":
    """Return how a client checks the certificates of servers.

    Args:
        ca: See `ClientTls`.

    Raises:
        ConfigError: The file can't be read, or has no certificates.
    """
    import ssl

    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as exc:
        raise ConfigError(f"{ca} has no certificates in PEM") from exc
    except OSError as exc:
        raise ConfigError(f"the certificates in {ca} can't be read: {exc.strerror}") from exc


def load_pair(context: "ssl.SSLContext", cert: Path, key: Path) -> None:
    """Have a context show a certificate.

    Args:
        context: Gets it.
        cert: The file of the certificate, with those between it and its authority behind it, in PEM.
        key: That of its key, without a passphrase.

    Raises:
        ConfigError: A file can't be read, or is not what it should be; or all users can get at the key.
    """
    import ssl

    file_mode(cert)
    if file_mode(key) & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"all users can get at the key {key}", hint="Make a new one: this one is no secret any more.")
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as exc:
        what = f"the certificate {cert} and the key {key}"
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{what} don't belong together") from exc
        raise ConfigError(f"{what} can't be used: they are no PEM, or the key has a passphrase") from exc


def file_mode(path: Path) -> int:
    """Return the mode of a file that can be read.

    Raises:
        ConfigError: It can't be.
    """
    try:
        with files.open_read(path, is_followed=True) as file:
            return os.fstat(file.fileno()).st_mode
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}") from exc
