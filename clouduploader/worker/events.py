"""The events of a worker."""

import dataclasses
import enum

from clouduploader.model.job import Details, Job, JobState
from clouduploader.util.frozen import frozen
from clouduploader.util.service_log import ServiceLog


class WorkerEventKind(enum.StrEnum):
    """The kinds of events."""

    READY = "ready"  # the worker has begun
    PUBLISHED = "published"  # a job; a host of the cluster may claim it
    STARTED = "started"  # an upload; after this line it is executed, or a host has claimed it
    ADOPTED = "adopted"  # an upload that an earlier worker has started
    RESCHEDULED = "rescheduled"  # a job whose upload had not begun when the worker was killed
    LOST = "lost"  # the host of a job was; another one gets it
    WAITING = "waiting"  # for another try
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"  # a job was, and its processes have ended
    FORCED = "forced"  # processes of a killed job got SIGKILL
    CLEANED = "cleaned"  # a clean-up in the cloud has ended
    TROUBLE = "trouble"  # something failed, and is tried again
    SETTINGS = "settings"  # were read again, or refused
    LEFT = "left"  # the worker has ended


_END_KINDS = {
    JobState.WAITING: WorkerEventKind.WAITING,
    JobState.SUCCEEDED: WorkerEventKind.SUCCEEDED,
    JobState.FAILED: WorkerEventKind.FAILED,
}


def end_kind(job: Job) -> WorkerEventKind:
    """Return how the upload of a job ended, by its record since then."""
    if job.details == Details.KILLED:
        return WorkerEventKind.KILLED
    return _END_KINDS.get(job.state, WorkerEventKind.RESCHEDULED)


@frozen()
class UploadEnd:
    """How an upload ended, beside what its record says.

    Attributes:
        exit_code: Of the uploader; 128 and the signal's number if a signal ended it. None if it is not known:
            an earlier worker has started it, and only a parent process gets an exit code.
        seconds: How long it took; None if its processes were gone when the worker started.
    """

    exit_code: int | None
    seconds: float | None


@frozen()
class WorkerEvent:
    """Something that happened, for the log and the metrics.

    Attributes:
        kind: What happened.
        job: Of which job; None if of none.
        text: More about it, for people. May quote what came from outside.
        end: How the upload ended; None if none has ended.
    """

    kind: WorkerEventKind
    job: str | None
    text: str
    end: UploadEnd | None = None

    def log_to(self, log: ServiceLog) -> None:
        """Write this event to the log of the service."""
        facts = dataclasses.asdict(self.end) if self.end else {}
        log.tell(self.kind, job=self.job, text=self.text or None, **facts)
