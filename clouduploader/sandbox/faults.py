"""Faults on purpose: which calls they hit, and what every cloud can make of them."""

import dataclasses
import random
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

AnyFault = TypeVar("AnyFault", bound="Fault")


@dataclasses.dataclass
class Fault:
    """One thing that goes wrong on purpose; see the package.

    It hits the calls that meet all of the first group.

    Attributes:
        action: Which API call.
        nth: Only that one, counted from 1; None for every.
        first: Only so many.
        after: Not so many at the beginning.
        every: Only each Nth.
        probability: Only so many of them, drawn with `seed`.
        seed: See probability.
        rate: Only what goes beyond so many a second; what is refused does not count.
        burst: How many may come at once before `rate` counts; None for a second's worth.

        code: The answer's code instead of doing it.
        message: Of that answer.
        status: Of that answer; None for what belongs to the code.
        delay_seconds: Waited before it is done.
        lose_answer: Done, but the connection is cut instead of the answer.
        seen: How many calls there were.
    """

    action: str
    nth: int | None = None
    first: int | None = None
    after: int = 0
    every: int | None = None
    probability: float | None = None
    seed: int = 0
    rate: float | None = None
    burst: float | None = None

    code: str | None = None
    message: str = "This is a fault that a test asked for."
    status: int | None = None
    delay_seconds: float = 0
    lose_answer: bool = False
    seen: int = 0

    def __post_init__(self) -> None:
        """Prepare what `hits` counts with."""
        self._random = random.Random(self.seed)  # noqa: S311
        self._allowances: dict[str, tuple[float, float]] = {}

    def hits(self, action: str, subject: str = "") -> bool:
        """Return whether this call is hit; counts it.

        Args:
            action: Of the call.
            subject: What the call is about; each subject has a `rate` of its own.
        """
        if action != self.action:
            return False
        self.seen += 1
        number = self.seen - self.after
        return (
            self.nth in (None, self.seen)
            and number > 0
            and (self.first is None or number <= self.first)
            and (self.every is None or number % self.every == 0)
            and (self.probability is None or self._random.random() < self.probability)
            and (self.rate is None or self._exceeds(self.rate, subject))
        )

    def _exceeds(self, rate: float, subject: str) -> bool:
        """Take a token of the subject's bucket; return whether there was none."""
        size = self.burst or rate
        now = time.monotonic()
        tokens, then = self._allowances.get(subject, (size, now))
        tokens = min(size, tokens + (now - then) * rate)
        is_beyond = tokens < 1
        self._allowances[subject] = (tokens if is_beyond else tokens - 1, now)
        return is_beyond


class Faults(Generic[AnyFault]):
    """All faults of a cloud; safe with threads.

    Args:
        kind: The cloud's class of faults.
    """

    def __init__(self, kind: type[AnyFault]) -> None:
        self._kind = kind
        self._faults: list[AnyFault] = []
        self._lock = threading.Lock()

    def replace(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Put these in the place of all others.

        Raises:
            TypeError, ValueError: There is no such fault; nothing has changed then.
        """
        faults = [self._kind(**body) for body in bodies]
        with self._lock:
            self._faults = faults

    def hits(self, action: str, subject: str = "") -> list[AnyFault]:
        """Return the faults that this call runs into; counts it."""
        with self._lock:
            return [fault for fault in self._faults if fault.hits(action, subject)]
