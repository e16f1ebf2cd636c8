"""A job as OBS knows it: its states and fields. No I/O."""

import dataclasses
import enum

from clouduploader.util.frozen import frozen


class JobState(enum.StrEnum):
    """The states of an upload job; OBS's words, from its BSXML.pm."""

    CREATED = "created"
    RECEIVING = "receiving"
    SCHEDULED = "scheduled"
    UPLOADING = "uploading"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state is over, and belongs into the archive."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


class Details(enum.StrEnum):
    """What OBS writes as the details of some jobs; the rest is free text."""

    WAITING_FOR_IMAGE = "waiting to receive image"  # one that was created
    CUT_OFF = "unexpected EOF"  # one whose image stopped coming
    KILLED = "killed"


@frozen(kw_only=True)
class Job:
    """One record of the spool. A field that is None is absent from the XML, where the last three never are.

    Attributes:
        name: The id, decimal digits.
        state: See JobState.
        details: The result, or why it failed, or what it waits for.
        progress: Percent; in OBS's format, though OBS never sets it.
        try_: Number of the try; XML element `try`; never set by OBS either.
        created: Seconds since the epoch.
        user: Whose job it is, as OBS names the user.
        target: The platform's name.
        project: Where the image was built, as are repository, package and arch.
        repository: See project.
        package: See project; may hold a colon (multibuild).
        arch: See project; OBS's word, for example x86_64.
        filename: The image's real name, as OBS gives it: not yet safe to use as a path.
        size: Of the image file, in bytes.
        pid: While receiving or uploading: the process group that works on it.
        host: The upload host that has it, where there are several; by its lease, as attempt and since.
        attempt: How often the job was given to a host, this time included.
        since: When the host got it, in seconds since the epoch.
    """

    name: str
    state: JobState
    details: str | None = None
    progress: int | None = None
    try_: int | None = None
    created: int | None = None
    user: str | None = None
    target: str | None = None
    project: str | None = None
    repository: str | None = None
    package: str | None = None
    arch: str | None = None
    filename: str | None = None
    size: int | None = None
    pid: int | None = None
    host: str | None = None
    attempt: int | None = None
    since: int | None = None

    def ended(self, state: JobState, details: str | None) -> "Job":
        """This job in a final state, as OBS archives it: with new details and no pid."""
        return dataclasses.replace(self, state=state, details=details, pid=None)
