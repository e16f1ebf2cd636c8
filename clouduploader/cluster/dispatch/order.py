"""Which jobs are published next: by priority, fair between users, and never more than the hosts have room for."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from clouduploader.util.frozen import frozen

T = TypeVar("T")


@frozen(kw_only=True)
class OrderLimits:
    """What holds jobs back.

    Attributes:
        max_jobs: How many at once in all.
        max_jobs_per_user: How many of them for one user.
        priorities: Of users; 0 for all others.
    """

    max_jobs: int
    max_jobs_per_user: int
    priorities: Mapping[str, int]


def choose(
    jobs: Mapping[str | None, Iterable[T]],
    running: Counter[str | None],
    limits: OrderLimits,
    *,
    number: Callable[[T], int],
    has_room: Callable[[T], bool],
) -> Iterator[T]:
    """Yield the jobs to publish, the first one first.

    Users of a higher priority come first, of these the user with the fewest jobs that run, of these the one with the
    oldest job. A job without room holds back none that has it.

    Args:
        jobs: Those that may start, by user, in the order of their ids.
        running: How many of each user's do already; not changed.
        limits: See OrderLimits.
        number: Returns the id of a job.
        has_room: Takes the place for a job, or returns False.
    """
    left = limits.max_jobs - running.total()
    heap: list[tuple[int, int, int, str | None, T, Iterator[T]]] = []

    def push(user: str | None, count: int, following: Iterator[T]) -> None:
        if count < limits.max_jobs_per_user and (job := next(following, None)) is not None:
            # No two have the same id: what stands behind it is never compared.
            heapq.heappush(heap, (-limits.priorities.get(user or "", 0), count, number(job), user, job, following))

    for user, theirs in jobs.items():
        push(user, running[user], iter(theirs))
    while heap and left > 0:
        _, count, _, user, job, following = heapq.heappop(heap)
        is_chosen = has_room(job)
        push(user, count + is_chosen, following)
        if is_chosen:
            left -= 1
            yield job


@frozen(kw_only=True)
class HostRoom:
    """What one host can take.

    Attributes:
        queues: Those that it takes jobs from.
        slots: How many more jobs it can do.
    """

    queues: frozenset[str]
    slots: int


class Room:
    """The free slots of all hosts, shared out to jobs of queues so that as many as possible have one.

    Which host gets a message is decided by the broker. This holds whether there is any way to do all that are
    published: a host that serves two queues does not count for both. What is asked often takes no longer with a
    thousand hosts than with two.
    """

    def __init__(self, hosts: Iterable[HostRoom]) -> None:
        self._free: list[int] = []
        self._given: list[Counter[str]] = []  # to jobs of which queues, by host
        self._serving: dict[str, list[int]] = {}  # hosts by queue
        for index, host in enumerate(found for found in hosts if found.slots > 0):
            self._free.append(host.slots)
            self._given.append(Counter())
            for queue in host.queues:
                self._serving.setdefault(queue, []).append(index)
        self._open = {queue: list(hosts) for queue, hosts in self._serving.items()}  # but for some that are full
        self._left = sum(self._free)
        self._full: set[str] = set()  # no slot ever gets free again, so neither does a queue get room

    @property
    def has_any(self) -> bool:
        """Whether any slot is free."""
        return self._left > 0

    def take(self, queue: str) -> bool:
        """Take a slot for a job of a queue; other jobs change their hosts if that makes one free.

        Returns:
            Whether there is one.
        """
        hosts = self._open.get(queue, [])
        while hosts and not self._free[hosts[-1]]:
            hosts.pop()
        if hosts:
            self._move(hosts[-1], queue, {})
        elif queue in self._full or not self._make_room(queue):
            self._full.add(queue)
            return False
        self._left -= 1
        return True

    def _make_room(self, queue: str) -> bool:
        """Take a slot of a queue whose hosts are all full, by moving jobs of other queues.

        Returns:
            Whether there is a way.
        """
        came_by: dict[int, tuple[int, str]] = {}  # from which host a job of which queue would move to a host
        reached = list(self._serving.get(queue, ()))
        known, moved = set(reached), {queue}
        for index in reached:  # grows: breadth first
            if self._free[index]:
                self._move(index, queue, came_by)
                return True
            for other in [name for name, count in self._given[index].items() if count and name not in moved]:
                moved.add(other)
                following = [host for host in self._serving[other] if host not in known]
                known.update(following)
                reached += following
                came_by |= dict.fromkeys(following, (index, other))
        return False

    def _move(self, index: int, queue: str, came_by: Mapping[int, tuple[int, str]]) -> None:
        """Take the free slot of the last host, and hand on those before it."""
        self._free[index] -= 1
        while step := came_by.get(index):
            origin, moved = step
            self._given[index][moved] += 1
            self._given[origin][moved] -= 1
            index = origin
        self._given[index][queue] += 1
