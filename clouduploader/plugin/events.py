"""What a platform tells while it works, and where to."""

from typing import Protocol

from clouduploader.model.disk import Image
from clouduploader.plugin.objects import CloudObject
from clouduploader.util.frozen import frozen


@frozen()
class ImageFound:
    """The image has been looked at, and will be uploaded.

    Attributes:
        image: See Image.
    """

    image: Image


@frozen()
class PhaseStarted:
    """The work has reached another phase.

    Attributes:
        phase: A short lower-case word or two, for example "check image", "upload".
    """

    phase: str


@frozen()
class BytesMoved:
    """So much of the current phase is done.

    Attributes:
        done_bytes: Since the phase began.
        total_bytes: What it will be in the end; None if that is not known.
    """

    done_bytes: int
    total_bytes: int | None


@frozen()
class ObjectCreated:
    """A thing now exists in the cloud."""

    object: CloudObject


@frozen()
class ObjectRemoved:
    """A thing that we made is gone again."""

    object: CloudObject


Event = ImageFound | PhaseStarted | BytesMoved | ObjectCreated | ObjectRemoved


class Reporter(Protocol):
    """Where a platform tells what it does. Every method returns at once and never raises."""

    def line(self, text: str) -> None:
        """Write a line to the job's log. Control characters and secrets in it are masked."""

    def detail(self, text: str) -> None:
        """Write a line for those who debug (`--verbose`)."""

    def event(self, event: Event) -> None:
        """Tell programs and progress bars, and the log as far as people want it.

        `inspect` and `kill` read phases and objects back from the log: what a platform makes in the cloud and
        does not report here can't be found again after a crash.
        """

    def hide(self, secret: str) -> None:
        """From now on mask this string wherever it would be written."""


class NullReporter:
    """A Reporter that drops what it is told, for calls whose story is of no interest."""

    def line(self, text: str) -> None:
        """Write nothing."""

    def detail(self, text: str) -> None:
        """Write nothing."""

    def event(self, event: Event) -> None:
        """Drop it."""

    def hide(self, secret: str) -> None:
        """Hide nothing: nothing is written."""
