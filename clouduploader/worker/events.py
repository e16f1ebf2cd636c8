"""What a worker tells of."""

import dataclasses
import enum

from clouduploader.util.frozen import frozen
from clouduploader.util.service_log import ServiceLog


class WorkerEventKind(enum.StrEnum):
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


@frozen()
class UploadEnd:
    """How an upload ended, apart from what its record tells.

    Attributes:
        exit_code: Of the uploader; 128 and the signal's number if a signal ended it. None if nobody knows: whoever
            started it was an earlier worker, and only a parent is told.
        seconds: How long it took; None if its processes were gone before anybody looked.
    """

    exit_code: int | None
    seconds: float | None


@frozen()
class WorkerEvent:
    """Something that the admin may want to know.

    Attributes:
        kind: What happened.
        job: To which job; None if to none.
        text: More about it, for a person. May quote what came from outside.
        end: Of an upload; None if none has ended.
    """

    kind: WorkerEventKind
    job: str | None
    text: str
    end: UploadEnd | None = None

    def log_to(self, log: ServiceLog) -> None:
        """Write this event to the log of the service."""
        facts = dataclasses.asdict(self.end) if self.end else {}
        log.tell(self.kind, job=self.job, text=self.text or None, **facts)
