"""Things in the cloud: made, found, removed, left."""

import datetime

from clouduploader.util.frozen import frozen


@frozen()
class CloudObject:
    """A thing in the cloud, by the cloud's own words.

    Attributes:
        kind: For example "instance", "snapshot", "image"; a platform's own vocabulary.
        id: For example i-0123456789abcdef0.
        region: Where it is; "" for a platform without regions.
    """

    kind: str
    id: str
    region: str = ""


@frozen()
class Leftover:
    """A thing in the cloud that could not be removed.

    Attributes:
        object: Which one.
        reason: Why not, in one line.
    """

    object: CloudObject
    reason: str


@frozen()
class FoundObject:
    """A thing in the cloud that bears the tags of an upload.

    Attributes:
        object: Which one.
        key: The upload's, see UploadJournal.
        job_name: The job's id, or "".
        created: When, aware; None if the cloud does not tell.
        keep_reason: Why it must not be removed ("in use by ami-..."), or None for a leftover.
        is_complete: Whether it is kept only because another try can make use of it.
        is_pending: Whether it is a snapshot that is not complete: it waits for content, or is being completed.
    """

    object: CloudObject
    key: str
    job_name: str
    created: datetime.datetime | None
    keep_reason: str | None
    is_complete: bool = False
    is_pending: bool = False


@frozen()
class CleanUpReport:
    """What a clean-up did.

    Attributes:
        removed: Gone now.
        left: Still there.
        absent: Not there, says the cloud; no `ObjectRemoved` was reported. Whether that means that it is gone is for
            whoever knows when it was made, see `visibility`.
    """

    removed: tuple[CloudObject, ...] = ()
    left: tuple[Leftover, ...] = ()
    absent: tuple[CloudObject, ...] = ()
