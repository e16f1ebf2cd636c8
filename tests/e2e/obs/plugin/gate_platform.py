"""A stranger's platform, found by its entry point, whose upload goes on when a test says so.

The upload logs a line for each line that the test appends to the file `steps` of its target data,
and ends at the line `end`.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import PlatformReplyError, StoppedError
from clouduploader.model.disk import Image
from clouduploader.plugin import (
    CleanUpReport,
    CloudObject,
    Field,
    Finding,
    FoundObject,
    JsonValue,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    PlatformContext,
    Reporter,
    UploadRequest,
    UploadResult,
)
from clouduploader.util.cancel import Cancel

POLL_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class GatePlatform:
    """See the module."""

    fields: Sequence[Field] = (Field(name="steps", description="The file to follow.", is_required=True),)
    needs_disk: bool = False

    def link_name(self, image: Image) -> str:
        """The image's own name."""
        return image.filename

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """None."""
        return []

    def plan(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> list[str]:
        """Nothing to tell."""
        return []

    def upload(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> UploadResult:
        """Follow the steps; a step `fail REASON` fails."""
        thing = CloudObject("gate", request.image.filename)
        reporter.event(PhaseStarted("upload"))
        reporter.line(f"user {request.user!a}")
        reporter.line(f"link {request.image.path} of {request.image.path.stat().st_size} bytes")
        reporter.event(ObjectCreated(thing))
        try:
            for step in _steps(Path(str(request.targetdata["steps"])), cancel):
                if step == "end":
                    return UploadResult("gate-1", (thing,))
                if step.startswith("fail "):
                    raise PlatformReplyError(step.removeprefix("fail "))
                reporter.line(step)
        except (StoppedError, PlatformReplyError):
            reporter.event(ObjectRemoved(thing))
            raise
        raise AssertionError("the steps never end")

    def clean_up(
        self, targetdata: Mapping[str, JsonValue], objects: Sequence[CloudObject], reporter: Reporter
    ) -> CleanUpReport:
        """There is never anything left."""
        return CleanUpReport()

    def find(self, targetdata: Mapping[str, JsonValue], key: str | None, reporter: Reporter) -> Sequence[FoundObject]:
        """There is never anything left."""
        return ()

    def check(self, targetdata: Mapping[str, JsonValue] | None, region: str | None) -> Iterable[Finding]:
        """Nothing can be wrong."""
        return ()


def create(context: PlatformContext) -> GatePlatform:
    """The entry point."""
    return GatePlatform()


def _steps(path: Path, cancel: Cancel) -> Iterator[str]:
    done = 0
    while True:
        cancel.raise_if_requested()
        # What stands behind the last newline is still being written.
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:  # OBS's kill sends its signal, and then removes the image
            cancel.raise_if_requested()
            raise
        yield from lines[done:]
        done = len(lines)
        time.sleep(POLL_SECONDS)
