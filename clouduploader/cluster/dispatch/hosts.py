"""The hosts of a cluster, as they greet: what they can, when they were seen, and which of them are drained."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clouduploader.cluster import protocol
from clouduploader.cluster.settings import NAME
from clouduploader.errors import CannotCreateError, DataError
from clouduploader.util import files, privileges, processes
from clouduploader.util.frozen import frozen

DIRECTORY = ".hosts"
GREET_SECONDS = 10  # how often a host greets
FORGET_SECONDS = 86_400.0  # how long a host is shown after it was seen last
MAX_HOSTS = 10_000  # that are known at once; half a KiB each, and 13 KiB at most of one that says all it may
_ENDING = ".drain"


@frozen(kw_only=True)
class Greeting:
    """What a host says of itself.

    Attributes:
        name: Its own.
        protocol: Which version of it the host speaks.
        version: Of its program.
        slots: How many jobs it takes at once.
        queues: From which it takes them; none without its broker, and while it is being stopped.
        clock: What its clock says, in s since the epoch.
    """

    name: str
    protocol: int
    version: str
    slots: int
    queues: tuple[str, ...]
    clock: float


@frozen(kw_only=True)
class Host:
    """A host as it was seen last.

    Attributes:
        greeting: What it said.
        seen: When, in s since the epoch.
        skew_seconds: By how much its clock was ahead of ours then.
        is_draining: Whether it is to take no more jobs.
        is_gone: Whether it was not seen for as long as a lease lives, nor for three greetings.
    """

    greeting: Greeting
    seen: float
    skew_seconds: float
    is_draining: bool
    is_gone: bool

    @property
    def is_usable(self) -> bool:
        """Whether jobs may be published for it."""
        is_there = bool(self.greeting.queues) and not self.is_gone
        return is_there and not self.is_draining and self.greeting.protocol in protocol.KNOWN


class Hosts:
    """All hosts that have greeted. Any thread may call the methods.

    Args:
        spool: The directory of the spool; which hosts are drained is kept in it.
        lease_seconds: Returns how long a host that is not seen has its jobs.
        wake: Called, in any thread, when there may be more room for jobs, or less.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        spool: Path,
        *,
        lease_seconds: Callable[[], float],
        wake: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = processes.seconds_since_boot,
    ) -> None:
        self._directory = spool / DIRECTORY
        self._lease_seconds = lease_seconds
        self._wake = wake
        self._clock = clock
        self._lock = threading.Lock()
        self._hosts: dict[str, tuple[Greeting, float, float, float]] = {}
        self._tokens: dict[str, str | None] = {}  # by the hosts' names

    def greet(self, greeting: Greeting, *, token: str | None = None) -> bool:
        """Take note of a host; return whether it is to take no more jobs.

        Args:
            greeting: What it says.
            token: The id of the token that it came with.

        Raises:
            DataError: That is no name of a host, or the name of another one that is there; or there are too many.
        """
        check_name(greeting.name)
        if not self.is_of(greeting.name, token):
            raise DataError(
                f"another host is called {greeting.name}: it has another token",
                hint="`host` in [cluster], or --host, names this one.",
            )
        now, wall = self._clock(), time.time()
        with self._lock:
            for name in [name for name, host in self._hosts.items() if host[1] < now - FORGET_SECONDS]:
                self._forget(name)
            if len(self._hosts) >= MAX_HOSTS and greeting.name not in self._hosts:
                oldest = min(self._hosts, key=lambda name: self._hosts[name][1])
                if not self._is_gone(self._hosts[oldest][1], now):
                    raise DataError(f"there are {MAX_HOSTS} hosts already")
                self._forget(oldest)
            known, seen, _, _ = self._hosts.get(greeting.name, (None, 0.0, 0.0, 0.0))
            self._hosts[greeting.name] = (greeting, now, wall, greeting.clock - wall)
            self._tokens[greeting.name] = token
        if known is None or _jobs_of(known) != _jobs_of(greeting) or self._is_gone(seen, now):
            self._wake()
        return self.is_draining(greeting.name) or greeting.protocol not in protocol.KNOWN

    def is_of(self, name: str, token: str | None) -> bool:
        """Return whether a token may speak for a host: no other one has, since it was seen last."""
        with self._lock:
            _, seen, _, _ = self._hosts.get(name, (None, 0.0, 0.0, 0.0))
            return self._tokens.get(name, token) == token or self._is_gone(seen, self._clock())

    def is_draining(self, name: str) -> bool:
        """Return whether a host is to take no more jobs."""
        return (self._directory / f"{name}{_ENDING}").exists()

    def drain(self, name: str, *, is_draining: bool) -> None:
        """Let a host take no more jobs, or some again; also one that is not known yet.

        Raises:
            DataError: That is no name of a host.
            CannotCreateError: It can't be written down.
        """
        check_name(name)
        path = self._directory / f"{name}{_ENDING}"
        try:
            with privileges.as_owner(self._directory.parent):
                if is_draining:
                    files.make_directory(self._directory, mode=files.GROUP_DIRECTORY_MODE)
                    files.write_file(path, b"", mode=files.GROUP_MODE)
                    files.sync_directory(self._directory)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                        files.sync_directory(self._directory)
        except OSError as exc:
            raise CannotCreateError(f"{path} can't be changed: {exc.strerror}") from exc
        self._wake()

    def hosts(self) -> list[Host]:
        """Return all that were seen in the last day, by their names."""
        now = self._clock()
        with self._lock:
            known = sorted(self._hosts.items())
        return [
            Host(
                greeting=greeting,
                seen=wall,
                skew_seconds=skew,
                is_draining=self.is_draining(name),
                is_gone=self._is_gone(seen, now),
            )
            for name, (greeting, seen, wall, skew) in known
        ]

    def _forget(self, name: str) -> None:
        del self._hosts[name], self._tokens[name]

    def _is_gone(self, seen: float, now: float) -> bool:
        return now - seen > max(self._lease_seconds(), 3 * GREET_SECONDS)


def _jobs_of(greeting: Greeting) -> tuple[int, int, tuple[str, ...]]:
    """Return what decides which jobs a host may get, and how many."""
    return greeting.protocol, greeting.slots, greeting.queues


def check_name(name: str) -> None:
    """Refuse what is no name of a host.

    Raises:
        DataError: It is none.
    """
    if not NAME.fullmatch(name):
        raise DataError("a host's name has letters, digits, '.', '_' and '-', and 64 of them at most")
