"""Faults of AWS's API calls, and of connections to the EBS direct APIs."""

import dataclasses
import enum

from clouduploader.sandbox.faults import Fault

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
    """When a request stalls, until the client closes the connection."""

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
class AwsFault(Fault):
    """A fault of one of AWS's calls; all that is added here is for the EBS direct APIs only.

    Attributes:
        by: "snapshot" or "account": whose `rate` it is.

        reason: Of the answer, beside its code.
        stall: See Stall.
        hang_up: See HangUp.
        cut_answer: Done, and the connection is cut after this share of the answer; from 0 to 1.
        short_bytes: Done, with an answer whose body ends so many bytes early, and says that it is whole.
        wrong_checksum: Done, with another checksum in the answer.
        corrupt: Done, but with a byte of the block changed.
        expire: All temporary credentials end just before.
    """

    by: str = "snapshot"

    reason: str | None = None
    stall: Stall | None = None
    hang_up: HangUp | None = None
    cut_answer: float | None = None
    short_bytes: int = 0
    wrong_checksum: bool = False
    corrupt: bool = False
    expire: bool = False

    def __post_init__(self) -> None:
        """Check it, and fill in what follows from something else.

        Raises:
            ValueError: A key that this action does not have.
        """
        super().__post_init__()
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

    def _throttle(self) -> None:
        if self.action in EBS_ACTIONS:
            self.code = "RequestThrottledException"
            self.reason = "RESOURCE_LEVEL_THROTTLE" if self.by == "snapshot" else "ACCOUNT_THROTTLED"
        else:
            self.code = "RequestLimitExceeded"
        self.message = "Request limit exceeded."

    def hits(self, action: str, subject: str = "") -> bool:
        """Return whether this call is hit; counts it.

        Args:
            action: Of the call.
            subject: The snapshot that it is about, if any.
        """
        return super().hits(action, subject if self.by == "snapshot" else "")
