"""Section `[cluster]` of the settings file, at the server and at the hosts."""

import dataclasses
import fnmatch
import re
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ConfigError
from clouduploader.store import config, credentials, home
from clouduploader.store.config import Config
from clouduploader.util import hosts
from clouduploader.util.frozen import frozen

DEFAULT_QUEUE = "uploads"
PASSWORD_FILE = home.BROKER_PASSWORD
PASSWORD_VARIABLE = "CLOUDUPLOADER_BROKER_PASSWORD"  # noqa: S105
MAX_PRIORITY = 9
LIMITS = {
    "max_jobs": (1, 100_000),
    "lease_seconds": (5, 3600),
    "beat_seconds": (1, 600),
    "publish_seconds": (2, 3600),
    "takeovers": (0, 100),
    "slots": (1, 256),
}
"""Smallest and largest value of each number; all ours."""
STORE_KEYS = ("image_store_endpoint", "image_store_profile")
_STORE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.*'()/-]{0,200}))?")
"""Names of buckets and objects by the rules of S3, but for characters that need care."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BROKER = re.compile(
    r"amqps?://(?:[A-Za-z0-9._~%!$&'()*+,=-]+@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\s;?#]*)?"
)
"""One broker: kombu takes several, separated by semicolons, and behind a question mark what turns TLS off."""
IN_CLEAR = "others could read the broker's password on its way to another machine: give the broker's URL with amqps"
_SIZE_RULE = re.compile(r"size(>=|<)(.+)")


@frozen(kw_only=True)
class QueueRule:
    """Which jobs go to a queue.

    Attributes:
        queue: Its name.
        target: A pattern of targets.
        region: A pattern of regions; "*" also stands for none.
        at_least_bytes: Of the image.
        below_bytes: Of the image; None for any size.
    """

    queue: str
    target: str = "*"
    region: str = "*"
    at_least_bytes: int = 0
    below_bytes: int | None = None

    def takes(self, *, target: str, region: str, size_bytes: int) -> bool:
        """Return whether a job goes to this queue."""
        return (
            fnmatch.fnmatchcase(target, self.target)
            and fnmatch.fnmatchcase(region, self.region)
            and size_bytes >= self.at_least_bytes
            and (self.below_bytes is None or size_bytes < self.below_bytes)
        )


@frozen(kw_only=True)
class StorePlace:
    """Where in an object store images are.

    Attributes:
        bucket: Its name.
        prefix: Of the objects' names; "" or with a slash at its end.
        endpoint: The URL of the store; "" for the first one that speaks S3.
        profile: Where in the SDK's file of credentials its keys are.
    """

    bucket: str
    prefix: str
    endpoint: str
    profile: str


@frozen(kw_only=True)
class ClusterSettings:
    """The settings of a cluster, with their defaults.

    Attributes:
        broker: The URL of RabbitMQ, without a password; "" for none.
        broker_ca: The authorities of its certificate; None for those that this machine trusts.
        server: The URL of the server, as its hosts reach it; "" for none.
        rules: Which jobs go to which queue: the first that takes a job; those that none takes to DEFAULT_QUEUE.
        max_jobs: How many uploads at once on all hosts.
        priorities: Of users; 0 for all others, and the most for MAX_PRIORITY.
        lease_seconds: How long a host has a job after its last sign of life.
        beat_seconds: How often a host gives one.
        publish_seconds: How long a message may wait for a host until it is published anew.
        takeovers: How often a job goes to another host after one was lost, until it fails.
        image_store: Where hosts get images from; None for the server.
        host: What this host is called.
        slots: How many uploads this host does at once.
        serves: The queues that this host takes jobs from.
    """

    broker: str = ""
    broker_ca: Path | None = None
    server: str = ""
    rules: tuple[QueueRule, ...] = ()
    max_jobs: int = 1000
    priorities: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lease_seconds: int = 30
    beat_seconds: int = 5
    publish_seconds: int = 15
    takeovers: int = 5
    image_store: StorePlace | None = None
    host: str
    slots: int = 2
    serves: tuple[str, ...] = (DEFAULT_QUEUE,)

    @property
    def queues(self) -> tuple[str, ...]:
        """The names of all queues that a job may go to."""
        return tuple(dict.fromkeys((*(rule.queue for rule in self.rules), DEFAULT_QUEUE)))

    @property
    def is_in_clear(self) -> bool:
        """Whether what is sent to the broker could be read on its way."""
        parts = urllib.parse.urlsplit(self.broker)
        return parts.scheme == "amqp" and not hosts.is_here(parts.hostname or "")

    @property
    def has_regions(self) -> bool:
        """Whether the queue of a job depends on its region."""
        return any(rule.region != "*" for rule in self.rules)

    def queue_of(self, *, target: str, region: str, size_bytes: int) -> str:
        """Return the queue that a job goes to."""
        for rule in self.rules:
            if rule.takes(target=target, region=region, size_bytes=size_bytes):
                return rule.queue
        return DEFAULT_QUEUE


def read(
    found: Config,
    *,
    broker: str | None = None,
    server: str | None = None,
    host: str | None = None,
    slots: int | None = None,
    serves: tuple[str, ...] = (),
) -> ClusterSettings:
    """Read the section; the command line wins over it.

    Args:
        found: All settings.
        broker: From the command line, like the other arguments.
        server: See `ClusterSettings`.
        host: See `ClusterSettings`.
        slots: See `ClusterSettings`.
        serves: See `ClusterSettings`.

    Raises:
        ConfigError: An unknown key, or a value that is not allowed; also one of the command line.
    """
    path, section = found.path, found.cluster
    known = {field.name for field in dataclasses.fields(ClusterSettings)} - {"rules"} | {"queues", *STORE_KEYS}
    for key in section:
        if key not in known:
            raise ConfigError(
                f"{path}: unknown setting '{key}' in [cluster]", hint=f"Known are: {', '.join(sorted(known))}."
            )
    numbers = {key: _number(path, key, section[key]) for key in LIMITS if section.get(key)}
    if slots is not None:
        numbers["slots"] = _number(path, "slots", str(slots))
    settings = ClusterSettings(
        broker=_broker(path, broker if broker is not None else section.get("broker", "")),
        broker_ca=Path(section["broker_ca"]) if section.get("broker_ca") else None,
        server=(server if server is not None else section.get("server", "")).rstrip("/"),
        rules=tuple(_rule(path, line) for line in section.get("queues", "").splitlines() if line.strip()),
        priorities=dict(_priority(path, word) for word in section.get("priorities", "").split()),
        image_store=_image_store(path, section),
        host=_named(path, "host", host or section.get("host") or socket.gethostname()),
        serves=tuple(
            _named(path, "serves", name) for name in serves or (section.get("serves") or DEFAULT_QUEUE).split()
        ),
        **numbers,
    )
    if settings.lease_seconds < 3 * settings.beat_seconds:
        raise ConfigError(f"{path}: lease_seconds in [cluster] must be three times beat_seconds at least")
    return settings


def password(found: Config) -> str | None:
    """Return the password of the broker; None for none.

    It is that of the environment, of what the service manager hands over, or of the file in the home.

    Raises:
        ConfigError: The file can't be read.
    """
    return (
        found.environment.get(PASSWORD_VARIABLE)
        or credentials.read(PASSWORD_FILE, found.environment)
        or credentials.read_file(found.home.value / PASSWORD_FILE)
    )


def _broker(path: Path, url: str) -> str:
    """Check the URL of the broker; no error shows it, for there may be a password in it."""
    if not url:
        return ""
    try:
        parts = urllib.parse.urlsplit(url)
        is_right = bool(_BROKER.fullmatch(url)) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    else:
        if parts.password is not None:
            raise ConfigError(
                "the URL of the broker has a password in it, which others could read",
                hint=f"Write it into the file {path.with_name(PASSWORD_FILE)}, or into {PASSWORD_VARIABLE}.",
            )
        if parts.scheme.startswith(("redis", "rediss", "sentinel")):
            raise ConfigError(
                "Redis can't be the broker: it gives a message to a second host after a fixed time, though the first "
                "one still works on it, and to none before that if the first one died",
                hint="Take RabbitMQ: amqps://USER@HOST/VHOST.",
            )
    if not is_right:
        raise ConfigError("that of the broker is not the URL of RabbitMQ", hint="It is amqps://USER@HOST/VHOST.")
    return url


def _image_store(path: Path, section: Mapping[str, str]) -> StorePlace | None:
    text, endpoint = section.get("image_store", ""), section.get("image_store_endpoint", "")
    if not text:
        return None
    found = _STORE.fullmatch(text)
    if not found:
        raise ConfigError(f"{path}: image_store in [cluster] is '{text}', not s3://BUCKET/PREFIX")
    try:
        parts = urllib.parse.urlsplit(endpoint)
        is_right = parts.scheme == "https" or (parts.scheme == "http" and hosts.is_here(parts.hostname or ""))
        is_right = is_right and bool(parts.hostname) and not (parts.username or parts.query or parts.fragment)
    except ValueError:
        is_right = False
    if endpoint and not is_right:
        raise ConfigError(f"{path}: image_store_endpoint in [cluster] is '{endpoint}', not the URL of a store by https")
    prefix = (found[2] or "").strip("/")
    return StorePlace(
        bucket=found[1],
        prefix=f"{prefix}/" if prefix else "",
        endpoint=endpoint.rstrip("/"),
        profile=section.get("image_store_profile") or "default",
    )


def _rule(path: Path, line: str) -> QueueRule:
    name, *conditions = line.split()
    values: dict[str, str | int] = {}
    for condition in conditions:
        key, _, value = condition.partition("=")
        if found := _SIZE_RULE.fullmatch(condition):
            try:
                values["at_least_bytes" if found[1] == ">=" else "below_bytes"] = config.parse_size(found[2])
            except ValueError as exc:
                raise ConfigError(f"{path}: size in queues of [cluster] {exc}") from None
        elif key in ("target", "region") and value:
            values[key] = value
        else:
            raise ConfigError(
                f"{path}: '{condition}' in queues of [cluster] is no condition",
                hint="Conditions are target=PATTERN, region=PATTERN, size>=SIZE and size<SIZE.",
            )
    return QueueRule(queue=_named(path, "queues", name), **values)  # type: ignore[arg-type]


def _priority(path: Path, word: str) -> tuple[str, int]:
    user, _, number = word.rpartition(":")
    if not (user and len(number) == 1 and number.isascii() and number.isdigit()):
        raise ConfigError(f"{path}: '{word}' in priorities of [cluster] is not USER:NUMBER, from 0 to {MAX_PRIORITY}")
    return user, int(number)


def _named(path: Path, key: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{path}: '{name}' in {key} of [cluster] is no name of letters, digits, '.', '_' and '-'")
    return name


def _number(path: Path, key: str, text: str) -> int:
    smallest, largest = LIMITS[key]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and smallest <= int(text) <= largest):
        raise ConfigError(f"{path}: {key} in [cluster] is '{text}', not a number from {smallest} to {largest}")
    return int(text)
