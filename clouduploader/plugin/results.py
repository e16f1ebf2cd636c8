"""What a platform answers with: results, plans, findings."""

import enum

from clouduploader.plugin.objects import CloudObject
from clouduploader.util.frozen import frozen


@frozen()
class Shortfall:
    """A part of what was asked for that failed, though the image is there.

    Attributes:
        subject: For example a region.
        reason: Why, in one line.
    """

    subject: str
    reason: str


@frozen()
class UploadResult:
    """What the cloud gave.

    Attributes:
        id: One line for the result file, for example the image's id alone.
        objects: What there is now, the image first: all that this try and earlier ones made and that stays. What is not
            among them counts as left over, and `clouduploader cleanup` removes it.
        shortfalls: What failed beside it; the same upload once more makes up for these.
        is_already_there: Whether an earlier upload had made it, so that nothing was sent.
    """

    id: str
    objects: tuple[CloudObject, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    is_already_there: bool = False


@frozen()
class Cost:
    """What the cloud will charge for a part of an upload, by list prices.

    Attributes:
        what: For example "storage of the snapshot"; without a full stop.
        usd: At most so many US dollars.
        is_monthly: Whether they are due each month, as long as it is there; else once.
    """

    what: str
    usd: float
    is_monthly: bool = False


@frozen()
class Plan:
    """What an upload would do.

    Attributes:
        steps: A line each; "would" can stand before it.
        costs: What is known of what the cloud charges.
    """

    steps: tuple[str, ...]
    costs: tuple[Cost, ...] = ()


class Level(enum.StrEnum):
    """How good a finding of `check` is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@frozen()
class Finding:
    """One line of `clouduploader check`.

    Attributes:
        level: See Level.
        subject: What was looked at, for example a path or "region eu-west-1".
        message: What was found, one sentence without a full stop.
        hint: What to do about it, or None.
    """

    level: Level
    subject: str
    message: str
    hint: str | None = None
