"""Things in the cloud: made, found, removed, left."""

import datetime
import enum
from collections.abc import Mapping

from clouduploader.plugin import labels
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


class ObjectState(enum.StrEnum):
    """How far something is that an upload made."""

    PARTIAL = "partial"
    """Not finished, and only its own upload could go on with it."""
    PENDING = "pending"
    """It waits for content, or is being completed by the cloud."""
    COMPLETE = "complete"
    """Finished; another try of its upload can use it."""
    READY = "ready"
    """An image that can be used, or a part of one."""


@frozen()
class FoundObject:
    """A thing in the cloud that bears the labels of an upload.

    Attributes:
        object: Which one.
        key: The upload's, see Journal.
        job_name: The job's id, or "".
        created: When, aware; None if the cloud does not tell.
        keep_reason: Why it must not be removed ("in use by another image"), or None for a leftover.
        state: How far it is.
    """

    object: CloudObject
    key: str
    job_name: str
    created: datetime.datetime | None
    keep_reason: str | None
    state: ObjectState = ObjectState.PARTIAL

    @classmethod
    def from_labels(
        cls,
        thing: CloudObject,
        bears: Mapping[str, str],
        created: datetime.datetime | None,
        keep_reason: str | None,
        state: ObjectState = ObjectState.PARTIAL,
    ) -> "FoundObject":
        """Make one of a thing and the labels that it bears."""
        return cls(thing, bears.get(labels.KEY, ""), bears.get(labels.JOB, ""), created, keep_reason, state)


@frozen()
class CleanUpReport:
    """What a clean-up did.

    Attributes:
        removed: Gone now.
        left: Still there.
        absent: Not there, says the cloud; no `ObjectRemoved` was reported. Whether it is gone depends on
            when it was made, see `visibility`.
    """

    removed: tuple[CloudObject, ...] = ()
    left: tuple[Leftover, ...] = ()
    absent: tuple[CloudObject, ...] = ()
