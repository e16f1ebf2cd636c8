"""What goes wrong on purpose, when, and how often."""

import dataclasses
import enum
import random
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

CONNECT = "Connect"  # not a call: a new connection to the EBS direct APIs, before TLS
EBS_ACTIONS = frozenset(
    {CONNECT, "StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "ListSnapshotBlocks", "GetSnapshotBlock"}
)
EBS_ONLY = frozenset(
    {"reason", "stall", "hang_up", "cut_answer", "short_bytes", "wrong_checksum", "corrupt", "expire", "by"}
)
# HTTP status of each error in botocore's model of ebs, and of AWS's common errors; all else is 400.
STATUSES = {
    "AccessDeniedException": 403,
    "ConflictException": 409,
    "ExpiredTokenException": 403,
    "InternalServerException": 500,
    "RequestLimitExceeded": 503,  # EC2's own throttling
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 402,
    "ServiceUnavailableException": 503,
    "UnrecognizedClientException": 403,
}


class Stall(enum.StrEnum):
    """How a request is let hang, until the client hangs up."""

    READ = "read"
    """The body is not read; of Connect: no TLS."""
    ANSWER = "answer"
    """All is read, nothing is done, no answer comes."""
    DONE = "done"
    """It is done, and no answer comes."""


class HangUp(enum.StrEnum):
    """When a connection is closed."""

    BEFORE = "before"
    """Before the body is read; of Connect: at once."""
    AFTER = "after"
    """When the body has been read; nothing is done."""
    IDLE = "idle"
    """After a good answer that did not say so."""


@dataclasses.dataclass
class Fault:
    """One thing that goes wrong on purpose; see the package.

    Which calls it hits: those that meet all of the first group.

    Attributes:
        action: Which API call.
        nth: Only that one, counted from 1; None for every.
        first: Only so many.
        after: Not so many at the beginning.
        every: Only each Nth.
        probability: Only so many of them, drawn with `seed`.
        seed: See probability.
        rate: Only what goes beyond so many a second; what is refused does not count.
        burst: How many may come at once before `rate` counts.
        by: "snapshot" or "account": whose rate it is.

        code: The answer's code instead of doing it; with `rate` there is always one.
        reason: Of that answer, for the EBS direct APIs.
        message: Of that answer.
        status: Of that answer; None for what belongs to the code.
        delay_seconds: Waited before it is done.
        lose_answer: Done, but the connection is cut instead of the answer.
        stall: See Stall.
        hang_up: See HangUp.
        cut_answer: Done, and the connection is cut after this share of the answer; from 0 to 1.
        short_bytes: Done, with an answer whose body ends so many bytes early, and says that it is whole.
        wrong_checksum: Done, with another checksum in the answer.
        corrupt: Done, but with a byte of the block changed.
        expire: All temporary credentials end just before.
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
    by: str = "snapshot"

    code: str | None = None
    reason: str | None = None
    message: str = "This is a fault that a test asked for."
    status: int | None = None
    delay_seconds: float = 0
    lose_answer: bool = False
    stall: Stall | None = None
    hang_up: HangUp | None = None
    cut_answer: float | None = None
    short_bytes: int = 0
    wrong_checksum: bool = False
    corrupt: bool = False
    expire: bool = False
    seen: int = 0

    def __post_init__(self) -> None:
        """Check it, and fill in what follows from something else.

        Raises:
            ValueError: A key that means nothing for this action.
        """
        given = {
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) not in (field.default, None)
        }
        if self.action not in EBS_ACTIONS and given & EBS_ONLY:
            raise ValueError(f"{', '.join(sorted(given & EBS_ONLY))}: not for {self.action}")
        if self.by not in ("snapshot", "account"):
            raise ValueError(f"by: {self.by}")
        self.stall = Stall(self.stall) if self.stall else None
        self.hang_up = HangUp(self.hang_up) if self.hang_up else None
        if self.rate is not None and self.code is None:
            self._throttle()
        if self.status is None:
            self.status = STATUSES.get(self.code or "", 400)
        self._random = random.Random(self.seed)  # noqa: S311
        self._allowances: dict[str, tuple[float, float]] = {}

    def _throttle(self) -> None:
        if self.action in EBS_ACTIONS:
            self.code = "RequestThrottledException"
            self.reason = "RESOURCE_LEVEL_THROTTLE" if self.by == "snapshot" else "ACCOUNT_THROTTLED"
        else:
            self.code = "RequestLimitExceeded"
        self.message = "Request limit exceeded."

    def applies(self, action: str, subject: str = "") -> bool:
        """Whether this call is hit; counts it.

        Args:
            action: Of the call.
            subject: The snapshot it is about, if any.
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
            and (self.rate is None or self._exceeds(self.rate, subject if self.by == "snapshot" else ""))
        )

    def _exceeds(self, rate: float, subject: str) -> bool:
        """A token bucket; one second's worth by default, as EC2's throttling has it."""
        size = self.burst or rate
        now = time.monotonic()
        tokens, then = self._allowances.get(subject, (size, now))
        tokens = min(size, tokens + (now - then) * rate)
        is_beyond = tokens < 1
        self._allowances[subject] = (tokens if is_beyond else tokens - 1, now)
        return is_beyond


class Faults:
    """All faults there are; safe with threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def replace(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Put these in the place of all others.

        Raises:
            TypeError, ValueError: There is no such fault; nothing has changed then.
        """
        faults = [Fault(**body) for body in bodies]
        with self._lock:
            self._faults = faults

    def hits(self, action: str, subject: str = "") -> list[Fault]:
        """Those that this call runs into; counts it."""
        with self._lock:
            return [fault for fault in self._faults if fault.applies(action, subject)]
