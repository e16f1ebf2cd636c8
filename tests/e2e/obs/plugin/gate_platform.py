"""A stranger's platform, found by its entry point, whose upload goes on when a test says so.

The upload logs a line for each line that the test appends to the file `steps` of its target data,
and ends at the line `end`.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import PlatformReplyError, StoppedError
from clouduploader.plugin import (
    CloudObject,
    Context,
    Field,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Platform,
    UploadContext,
    UploadResult,
)
from clouduploader.util.cancel import Cancel

POLL_SECONDS = 0.02


class GatePlatform(Platform):
    """See the module."""

    fields = (Field(name="steps", description="The file to follow.", is_required=True),)
    needs_disk = False

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Follow the steps; a step `fail REASON` fails."""
        request, reporter = ctx.request, ctx.reporter
        thing = CloudObject("gate", request.image.filename)
        reporter.event(PhaseStarted("upload"))
        reporter.line(f"user {request.user!a}")
        reporter.line(f"link {request.image.path} of {request.image.path.stat().st_size} bytes")
        reporter.event(ObjectCreated(thing))
        try:
            for step in _steps(Path(str(request.targetdata["steps"])), ctx.cancel):
                if step == "end":
                    return UploadResult("gate-1", (thing,))
                if step.startswith("fail "):
                    raise PlatformReplyError(step.removeprefix("fail "))
                reporter.line(step)
        except (StoppedError, PlatformReplyError):
            reporter.event(ObjectRemoved(thing))
            raise
        raise AssertionError("the steps never end")

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Do nothing: a gate is nowhere."""


create = GatePlatform


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
