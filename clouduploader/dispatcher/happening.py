"""What a worker tells of."""

import dataclasses
import enum


class Kind(enum.StrEnum):
    """What can happen."""

    READY = "ready"  # the worker looks after the spool
    STARTED = "started"  # an upload; after this line it is executed
    ADOPTED = "adopted"  # an upload that an earlier worker has started
    RESCHEDULED = "rescheduled"  # a job whose upload had not begun when the worker was killed
    WAITING = "waiting"  # for another try
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"  # and its processes have ended
    FORCED = "forced"  # processes of a killed job got SIGKILL
    CLEANED = "cleaned"  # the cloud, after an upload that could not do it
    TROUBLE = "trouble"  # something that the worker comes back to
    SETTINGS = "settings"  # were read again, or refused
    LEFT = "left"  # the worker leaves the spool


@dataclasses.dataclass(frozen=True)
class Happening:
    """Something that the admin may want to know.

    Attributes:
        kind: What happened.
        job: To which job; None if to none.
        text: More about it, for a person. May quote what came from outside.
    """

    kind: Kind
    job: str | None
    text: str
