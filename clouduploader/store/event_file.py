"""The events of an upload as JSON lines, for programs that watch it.

Each line is one object with `time` (UTC, ISO 8601) and `event`, and more by event:

* `start`: `job` (or null), `user`, `target`
* `image`: `filename`, `size_bytes`, `packing`
* `phase`: `phase`
* `progress`: `phase`, `done_bytes`, `total_bytes` (or null), `rate_bytes_per_second` and
  `eta_seconds` (null until known); at most one a second, and at the end
* `object-created`, `object-removed`: `kind`, `id`, `region`
* `end`: `outcome` (`succeeded`, `failed` or `stopped`), `result` (or null), `reason` (or null),
  `exit_code`, `shortfalls` (of a success: objects with `subject` and `reason`)
"""

import datetime
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clouduploader.errors import CannotCreateError
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    Event,
    ImageFound,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Shortfall,
)
from clouduploader.util import files, privileges

PROGRESS_INTERVAL_SECONDS = 1.0  # fine enough for a person, and no flood for a program


class EventRate:
    """How fast a phase goes: bytes a second since it began, and when it will be done.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()

    def rate(self, moved: BytesMoved) -> float | None:
        """Return bytes a second, or None while that can't be told."""
        seconds = self._clock() - self._began
        return moved.done_bytes / seconds if seconds > 0 and moved.done_bytes else None

    def eta_seconds(self, moved: BytesMoved) -> float | None:
        """Return seconds until all is done at that rate, or None while that can't be told."""
        rate = self.rate(moved)
        if rate is None or moved.total_bytes is None:
            return None
        return max(0, moved.total_bytes - moved.done_bytes) / rate


class EventFile:
    """Writes events to a file that exists or is made; appends, one write a line, and never blocks.

    Args:
        path: May be a FIFO; a reader that does not keep up gets no more.

    Raises:
        CannotCreateError: The file can't be opened, or no process reads the FIFO.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with privileges.as_owner(path.absolute().parent):
                self._descriptor: int | None = os.open(path, flags, files.PUBLIC_MODE)
        except OSError as exc:
            raise CannotCreateError(f"the events file {path} can't be written: {exc.strerror}") from exc
        self._phase: str | None = None
        self._pace = EventRate()
        self._last_progress = 0.0
        self._is_complete = False

    def start(self, *, job: str | None, user: str, target: str) -> None:
        """Write the event `start`."""
        self._write("start", job=job, user=user, target=target)

    def end(
        self,
        *,
        outcome: str,
        result: str | None,
        reason: str | None,
        exit_code: int,
        shortfalls: Sequence[Shortfall] = (),
    ) -> None:
        """Write the event `end` and close the file."""
        short = [{"subject": item.subject, "reason": item.reason} for item in shortfalls]
        self._write("end", outcome=outcome, result=result, reason=reason, exit_code=exit_code, shortfalls=short)
        self._close()

    def __call__(self, event: Event) -> None:
        """Write an event of the upload; a listener of `JobLog`."""
        match event:
            case ImageFound(image):
                self._write(
                    "image", filename=image.filename, size_bytes=image.size_bytes, packing=str(image.compression)
                )
            case PhaseStarted(phase):
                self._phase, self._pace = phase, EventRate()
                self._last_progress, self._is_complete = 0.0, False
                self._write("phase", phase=phase)
            case BytesMoved():
                self._progress(event)
            case ObjectCreated(thing):
                self._write("object-created", **_fields(thing))
            case ObjectRemoved(thing):
                self._write("object-removed", **_fields(thing))

    def _progress(self, moved: BytesMoved) -> None:
        now = time.monotonic()
        is_end = moved.done_bytes == moved.total_bytes and not self._is_complete
        if now - self._last_progress < PROGRESS_INTERVAL_SECONDS and not is_end:
            return
        self._last_progress = now
        self._is_complete = moved.done_bytes == moved.total_bytes
        rate, eta = self._pace.rate(moved), self._pace.eta_seconds(moved)
        self._write(
            "progress",
            phase=self._phase,
            done_bytes=moved.done_bytes,
            total_bytes=moved.total_bytes,
            rate_bytes_per_second=None if rate is None else round(rate),
            eta_seconds=None if eta is None else round(eta),
        )

    def _write(self, event: str, **fields: Any) -> None:  # noqa: ANN401 any JSON value
        if self._descriptor is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        document = {"time": now.replace("+00:00", "Z"), "event": event, **fields}
        try:
            os.write(self._descriptor, json.dumps(document).encode("ascii") + b"\n")
        except OSError:  # a watcher that went away or fell asleep does not hold up the upload
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _fields(thing: CloudObject) -> dict[str, str]:
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}
