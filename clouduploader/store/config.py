"""Settings from the command line, the environment and `HOME/clouduploader.conf`, in that order.

The file is an INI file. Section `[clouduploader]` is ours, `[server]`, `[worker]` and `[cluster]` are those of `serve`
and `worker`; every other section belongs to the platform whose name it bears.

Home and spool are those of OBS's package for root, and for the user to whom one of them belongs, the service's. Any
other user has others: `$XDG_CONFIG_HOME/clouduploader` and `$XDG_STATE_HOME/clouduploader` (XDG Base Directory
Specification).
"""

import configparser
import contextlib
import dataclasses
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

from clouduploader.errors import ConfigError
from clouduploader.util import files
from clouduploader.util.certificates import ClientTls
from clouduploader.util.frozen import frozen

DEFAULT_HOME = Path("/etc/obs/cloudupload")  # fixed by OBS's package and its guide
DEFAULT_SPOOL = Path("/srv/obs/cloudupload")  # $BSConfig::bsdir/cloudupload
FILE_NAME = "clouduploader.conf"
SECTION = "clouduploader"
SERVER_SECTION = "server"
WORKER_SECTION = "worker"
CLUSTER_SECTION = "cluster"
OWN_NAME = "clouduploader"  # of a plain user's home and spool
STATE_NAME = "journal"  # in the spool, by default: a user that runs jobs may write there
DEFAULT_MAX_SIZE = 1 << 40  # ours: far above any system's image, and no disk is filled by mistake
KNOWN_KEYS = frozenset({"spool", "events", "state", "max_size", "send_clear_tokens", "ca", "cert", "key"})
YES_OR_NO = {"yes": True, "no": False}
_SIZE = re.compile(r"([0-9]{1,18})\s*(?:([KMGT])(?:iB)?)?", re.IGNORECASE)

T = TypeVar("T")


@frozen()
class Setting(Generic[T]):
    """A value and where it came from.

    Attributes:
        value: The value.
        source: "--home", "CLOUDUPLOADER_HOME", "/etc/.../clouduploader.conf" or "default".
    """

    value: T
    source: str


@frozen(kw_only=True)
class Config:
    """Everything that can be set.

    Attributes:
        home: Directory of keys, credentials and settings.
        spool: OBS's directory of jobs.
        events: Where an upload by contract writes its events as JSON lines, with `{job}` for the
            job's id; None for nowhere.
        state: Directory of the journals; by default that of the spool.
        own_directories: Home and spool where they are a plain user's by default: no package makes these.
        max_size: How many bytes an image may have once it is unpacked.
        send_clear_tokens: Whether a token is sent where others could read it on its way.
        tls: What the file says of TLS with job servers.
        server: The section of the server, see `server/settings.py`.
        worker: The section of the worker, see `worker/settings.py`.
        cluster: The section of a cluster, see `cluster/settings.py`.
        platforms: Sections of the file by platform name.
        environment: The process's environment.
    """

    home: Setting[Path]
    spool: Setting[Path]
    events: Setting[str | None]
    state: Setting[Path]
    own_directories: tuple[Path, ...]
    max_size: Setting[int]
    send_clear_tokens: bool
    tls: ClientTls
    server: Mapping[str, str]
    worker: Mapping[str, str]
    cluster: Mapping[str, str]
    platforms: Mapping[str, Mapping[str, str]]
    environment: Mapping[str, str] = dataclasses.field(repr=False)

    @property
    def path(self) -> Path:
        """Where the settings file is, or would be."""
        return self.home.value / FILE_NAME


def load(*, home: Path | None, spool: Path | None, environment: Mapping[str, str]) -> Config:
    """Read the settings.

    Args:
        home: From the command line, or None.
        spool: From the command line, or None.
        environment: CLOUDUPLOADER_HOME, CLOUDUPLOADER_SPOOL and CLOUDUPLOADER_STATE are looked up here; for a plain
            user's defaults also HOME, XDG_CONFIG_HOME and XDG_STATE_HOME.

    Raises:
        ConfigError: The file can't be read, is no INI file, or has an unknown key.
    """
    default_home, default_spool = _defaults(environment)
    home_setting = _path_setting("--home", home, "CLOUDUPLOADER_HOME", environment, default_home)
    path = home_setting.value / FILE_NAME
    sections = _read(path)
    own = sections.pop(SECTION, {})
    server = sections.pop(SERVER_SECTION, {})
    worker = sections.pop(WORKER_SECTION, {})
    cluster = sections.pop(CLUSTER_SECTION, {})
    for key in own:
        if key not in KNOWN_KEYS:
            raise ConfigError(
                f"{path}: unknown setting '{key}' in [{SECTION}]",
                hint=f"Known are: {', '.join(sorted(KNOWN_KEYS))}.",
            )
    spool_setting = _path_setting("--spool", spool, "CLOUDUPLOADER_SPOOL", environment, default_spool)
    if spool_setting.source == "default" and "spool" in own:
        spool_setting = Setting(Path(own["spool"]), str(path))
    events: Setting[str | None] = Setting(None, "default")
    if own.get("events"):
        events = Setting(own["events"], str(path))
    state = _path_setting("", None, "CLOUDUPLOADER_STATE", environment, spool_setting.value / STATE_NAME)
    if state.source == "default" and own.get("state"):
        state = Setting(Path(own["state"]), str(path))
    max_size = Setting(DEFAULT_MAX_SIZE, "default")
    if own.get("max_size"):
        try:
            max_size = Setting(parse_size(own["max_size"]), str(path))
        except ValueError as exc:
            raise ConfigError(f"{path}: max_size {exc}") from exc
    own_defaults = {default_home, default_spool} - {DEFAULT_HOME, DEFAULT_SPOOL}
    return Config(
        home=home_setting,
        spool=spool_setting,
        events=events,
        state=state,
        own_directories=tuple(path for path in (home_setting.value, spool_setting.value) if path in own_defaults),
        max_size=max_size,
        send_clear_tokens=parse_yes_or_no(own, "send_clear_tokens", path),
        tls=ClientTls(**{key: Path(own[key]) for key in ("ca", "cert", "key") if own.get(key)}),
        server=server,
        worker=worker,
        cluster=cluster,
        platforms=sections,
        environment=environment,
    )


def _defaults(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """Return home and spool of this user where nothing else is set."""
    users = {0}
    for path in (DEFAULT_HOME, DEFAULT_SPOOL):
        with contextlib.suppress(OSError):
            users.add(path.stat().st_uid)
    if os.geteuid() in users:
        return DEFAULT_HOME, DEFAULT_SPOOL
    return (
        _own(environment, "XDG_CONFIG_HOME", ".config"),
        _own(environment, "XDG_STATE_HOME", ".local/state"),
    )


def _own(environment: Mapping[str, str], variable: str, default: str) -> Path:
    base = Path(environment.get(variable, ""))
    if not base.is_absolute():  # such a one is to be ignored, says the specification
        home = environment.get("HOME")
        try:
            base = Path(home or pwd.getpwuid(os.geteuid()).pw_dir, default)
        except KeyError as exc:
            raise ConfigError("this user has no home directory", hint="Set HOME, or --home and --spool.") from exc
    return base / OWN_NAME


def parse_yes_or_no(section: Mapping[str, str], key: str, path: Path) -> bool:
    """Read a key that is yes or no, the default.

    Raises:
        ConfigError: It is neither.
    """
    answer = section.get(key) or "no"
    if answer not in YES_OR_NO:
        raise ConfigError(f"{path}: {key} is '{answer}', not yes or no")
    return YES_OR_NO[answer]


def parse_size(text: str) -> int:
    """Read a size: bytes, or a number with K, M, G or T behind it, powers of 1024.

    Raises:
        ValueError: It is none, or zero; the message goes on after the size's name.
    """
    found = _SIZE.fullmatch(text.strip())
    size_bytes = int(found[1]) << 10 * (" KMGT".index(found[2].upper()) if found[2] else 0) if found else 0
    if not size_bytes:
        raise ValueError(f"is '{text}', not a size such as 20G")
    return size_bytes


def _path_setting(
    option: str, given: Path | None, variable: str, environment: Mapping[str, str], default: Path
) -> Setting[Path]:
    if given is not None:
        return Setting(given.absolute(), option)
    if environment.get(variable):
        return Setting(Path(environment[variable]).absolute(), variable)
    return Setting(default, "default")


def _read(path: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with files.open_read(path, is_followed=True) as file:
            text = file.read().decode("utf-8")
        if "\0" in text:  # no name of a file can have one
            raise ValueError("there is a NUL byte in it")
        parser.read_string(text, str(path))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}") from exc
    except (configparser.Error, ValueError) as exc:  # a UnicodeDecodeError is a ValueError
        first_line = str(exc).splitlines()[0]
        raise ConfigError(f"{path} is not an INI file: {first_line}") from exc
    return {name: dict(parser[name]) for name in parser.sections()}
