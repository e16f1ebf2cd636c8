"""Section `[server]` of the settings file."""

import dataclasses
import grp
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import ClouduploaderError, ConfigError, UsageError
from clouduploader.server.signin import settings as signin_settings
from clouduploader.server.signin.settings import SignInSettings
from clouduploader.store import config
from clouduploader.util.frozen import frozen

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_LISTEN = "127.0.0.1:5452"  # the port of OBS's upload server
DEFAULT_ALLOW = "127.0.0.0/8 ::1"
MIN_PREFIX_BITS = 8  # a larger network belongs to no single site
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5})")


@frozen(kw_only=True)
class ServerSettings:
    """The settings of the server, with their defaults.

    Attributes:
        host: The address to listen on; None for none.
        port: The port there; 0 lets the kernel choose one.
        allow: Networks of the clients that may do everything without a token.
        clients: Networks of further clients, which need one; all others get a refusal.
        proxies: Networks of the proxies that are believed whose request they pass on.
        clear_tokens: Whether tokens are taken that others could read on their way.
        tls_cert: The file of the server's certificate and those between it and an authority; None without TLS.
        tls_key: The file of its key.
        socket: The path of the Unix socket to listen on; None for none.
        socket_gid: The group whose members are users there; None for none.
        tls_client_ca: The file of the authorities of clients' certificates; None if none is asked for.
        keep_free_bytes: How much of the spool's file system no image may fill.
        keep_free_inodes: With how few inodes left there no job is taken.
        max_memory_bytes: How much memory requests and answers may take together, before some are dropped.
        max_transfers: How many images may be received at once.
        idle_seconds: How long a client may send nothing, within a request or an image.
        expire_seconds: How long a job may wait for its image, or for more of it.
        image_seconds: How long an image that comes in pieces may wait for more of it, or for its job.
        archive_days: How old archived jobs get before they are removed; None for no limit.
        archive_jobs: How many archived jobs are kept, the newest; None for all.
        user_jobs: How many jobs that are not over a user may have who comes with a token.
        user_bytes: How many bytes the images of these may have together.
        user_requests: How many requests such a user may send a minute.
        sign_in: How users sign in on the page.
    """

    host: str | None
    port: int
    allow: tuple[Network, ...]
    clients: tuple[Network, ...] = ()
    proxies: tuple[Network, ...] = ()
    clear_tokens: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    socket: Path | None = None
    socket_gid: int | None = None
    keep_free_bytes: int = 1 << 30
    keep_free_inodes: int = 1000
    max_memory_bytes: int = 64 << 20
    max_transfers: int = 256
    idle_seconds: int = 300
    expire_seconds: int = 3600
    image_seconds: int = 86_400
    archive_days: int | None = None
    archive_jobs: int | None = None
    user_jobs: int = 100
    user_bytes: int = 1 << 40
    user_requests: int = 600
    sign_in: SignInSettings = SignInSettings()

    @property
    def places(self) -> str:
        """Where it listens, as it is shown."""
        tcp = [] if self.host is None else [f"{self.host}:{self.port}"]
        return " and ".join([*tcp, *([f"unix:{self.socket}"] if self.socket else [])])

    def is_allowed(self, address: str) -> bool:
        """Return whether a client of this address may do everything without a token."""
        return _is_in(address, self.allow)

    def is_client(self, address: str) -> bool:
        """Return whether a client of this address gets an answer."""
        return _is_in(address, (*self.allow, *self.clients))

    def is_proxy(self, address: str) -> bool:
        """Return whether a proxy of this address is believed."""
        return _is_in(address, self.proxies)

    def warning(self, address: str) -> str | None:
        """Return what the administrator should know about the clients that can reach the server, or None.

        Args:
            address: Where it listens.
        """
        if ipaddress.ip_address(address).is_loopback:
            return None
        vast = [str(network) for network in self.allow if network.prefixlen < MIN_PREFIX_BITS]
        if vast:
            return (
                f"open to the world: every client that reaches {address} from {' or '.join(vast)} may do everything, "
                "for any user, without a token; --allow can name smaller networks"
            )
        if self.clear_tokens and self.tls_cert is None:
            return f"tokens are taken by http at {address}: a machine on their way that reads them can use them"
        if all(network.is_loopback for network in (*self.allow, *self.clients, *self.proxies)):
            return f"it listens on {address}, and answers this host alone: --allow names others"
        return None


def plain_address(address: str) -> str:
    """Return the IPv4 address that an IPv6 address stands for, if it does; else the address."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    found = ipaddress.ip_address(plain_address(address))
    return any(found in network for network in networks)


class SettingsSource:
    """The settings as they are now. For one thread, but for `request_reload`.

    Args:
        read: Reads them, at once and at each reload.

    Attributes:
        current: The settings; may change with each reload.

    Raises:
        ConfigError: They are wrong.
    """

    def __init__(self, read: Callable[[], ServerSettings]) -> None:
        self._read = read
        self._is_reload_requested = False
        self.current = read()

    def request_reload(self) -> None:
        """Have them read again; for signal handlers too."""
        self._is_reload_requested = True

    def reload_if_requested(self) -> str | None:
        """Read them again if that was requested. The address stays as it is; if they are wrong, all stays.

        Returns:
            The outcome, for the log; None if it was not requested.
        """
        if not self._is_reload_requested:
            return None
        self._is_reload_requested = False
        before = self.current
        try:
            found = self._read()
        except ClouduploaderError as exc:
            return f"the server's old ones stay: {exc.message}"
        self.current = dataclasses.replace(found, host=before.host, port=before.port, socket=before.socket)
        if self.current == found:
            return "the server's were read again"
        return f"the server's were read again, but it listens on {before.places} until it is restarted"


LIMITS = {
    "keep_free_inodes": (0, 1_000_000_000),
    "max_transfers": (1, 100_000),
    "idle_seconds": (1, 86_400),
    "expire_seconds": (1, 31_536_000),
    "image_seconds": (60, 31_536_000),
    "archive_days": (1, 36_500),
    "archive_jobs": (1, 1_000_000_000),
    "user_jobs": (1, 1_000_000),
    "user_requests": (1, 1_000_000),
    **signin_settings.LIMITS,
}
"""Smallest and largest value of each number; all ours."""
SIZES = {"keep_free": "keep_free_bytes", "max_memory": "max_memory_bytes", "user_bytes": "user_bytes"}
"""Settings that are given in bytes, or with K, M, G or T, and their fields."""
MIN_MEMORY_BYTES = 16 << 20  # a few of the largest requests and answers
TLS_FILES = ("tls_cert", "tls_key", "tls_client_ca")
NONE = "none"  # for `allow` and other networks, and for `listen`
KNOWN_KEYS = frozenset(
    {
        "listen",
        "allow",
        "clients",
        "proxies",
        "clear_tokens",
        "socket",
        "socket_group",
        *TLS_FILES,
        *SIZES,
        *LIMITS,
        *signin_settings.KEYS,
    }
)


def load(
    section: Mapping[str, str],
    path: Path,
    *,
    listen: str | None = None,
    allow: tuple[str, ...] = (),
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    socket: Path | None = None,
) -> ServerSettings:
    """Read the section; the command line wins over it.

    Args:
        section: The keys and values.
        path: Of the settings file, for messages.
        listen: `ADDR:PORT` from the command line, or None.
        allow: Networks from the command line.
        tls_cert: The file from the command line.
        tls_key: The file from the command line.
        socket: The path from the command line.

    Raises:
        ConfigError: A key is unknown, or a value is none that it can have.
        UsageError: So is one of the command line.
    """
    for key in section:
        if key not in KNOWN_KEYS:
            raise ConfigError(
                f"{path}: unknown setting '{key}' in [{config.SERVER_SECTION}]",
                hint=f"Known are: {', '.join(sorted(KNOWN_KEYS))}.",
            )
    try:
        host, port = _listen(section.get("listen") or DEFAULT_LISTEN if listen is None else listen)
    except ValueError as exc:
        raise _error(exc, "listen", path, is_option=listen is not None) from None
    networks = {
        key: _networks(section, key, path, default=default, option=option)
        for key, default, option in (("allow", DEFAULT_ALLOW, allow), ("clients", NONE, ()), ("proxies", NONE, ()))
    }
    clear_tokens = config.parse_yes_or_no(section, "clear_tokens", path)
    place = _file(section, "socket", path, option=socket)
    if host is None and place is None:
        raise ConfigError(f"{path}: it is to listen nowhere: listen is none, and there is no socket")
    options = {"tls_cert": tls_cert, "tls_key": tls_key}
    tls = {key: _file(section, key, path, option=options.get(key)) for key in TLS_FILES}
    if any(tls.values()) and not (tls["tls_cert"] and tls["tls_key"]):
        raise ConfigError(f"{path}: for TLS both a certificate and its key are needed, tls_cert and tls_key")
    numbers = {key: _number(section[key], key, path) for key in LIMITS if section.get(key)}
    sizes = {name: _size(section[key], key, path) for key, name in SIZES.items() if section.get(key)}
    sign_in = signin_settings.load(section, path, numbers=numbers)
    settings = ServerSettings(
        host=host,
        port=port,
        allow=networks["allow"],
        clients=networks["clients"],
        proxies=networks["proxies"],
        clear_tokens=clear_tokens,
        tls_cert=tls["tls_cert"],
        tls_key=tls["tls_key"],
        tls_client_ca=tls["tls_client_ca"],
        socket=place,
        socket_gid=_group(section.get("socket_group"), path),
        sign_in=sign_in,
        **{key: number for key, number in numbers.items() if key not in signin_settings.LIMITS},
        **sizes,
    )
    if settings.max_memory_bytes < MIN_MEMORY_BYTES:
        raise ConfigError(f"{path}: max_memory is '{section['max_memory']}', and less than {MIN_MEMORY_BYTES >> 20}M")
    return settings


def _error(problem: ValueError, key: str, path: Path, *, is_option: bool) -> ClouduploaderError:
    return UsageError(f"--{key} {problem}") if is_option else ConfigError(f"{path}: {key} {problem}")


def _group(name: str | None, path: Path) -> int | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"{path}: socket_group is '{name}', and there is no such group") from None


def _listen(text: str) -> tuple[str | None, int]:
    if text == NONE:
        return None, 0
    found = _LISTEN.fullmatch(text)
    if not found or int(found[3]) > 65_535:
        raise ValueError(f"is '{text}', not ADDRESS:PORT such as {DEFAULT_LISTEN} or [::1]:5452")
    return found[1] or found[2], int(found[3])


def _networks(
    section: Mapping[str, str], key: str, path: Path, *, default: str, option: Sequence[str]
) -> tuple[Network, ...]:
    """Return the networks of a key; those of the command line, if it names some, go before."""
    words = option or (section.get(key) or default).split()
    networks: list[Network] = []
    for word in words if list(words) != [NONE] else ():
        try:
            networks.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            problem = ValueError(f"is '{word}', not a network such as 10.1.0.0/16")
            raise _error(problem, key, path, is_option=bool(option)) from None
    return tuple(networks)


def _file(section: Mapping[str, str], key: str, path: Path, *, option: Path | None) -> Path | None:
    """Return the path of a key, absolute; that of the command line, if it names one, goes before; None for none."""
    if option is not None:
        return option.absolute()
    if not section.get(key):
        return None
    file = Path(section[key])
    if not file.is_absolute():
        raise ConfigError(f"{path}: {key} is '{file}', not an absolute path")
    return file


def _size(text: str, key: str, path: Path) -> int:
    try:
        return config.parse_size(text)
    except ValueError as exc:
        raise ConfigError(f"{path}: {key} {exc}") from exc


def _number(text: str, key: str, path: Path) -> int:
    low, high = LIMITS[key]
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        raise ConfigError(f"{path}: {key} is '{text}', not a number from {low} to {high}")
    return int(text)
