"""A live view of an upload on a terminal."""

from types import TracebackType

import rich.console
import rich.progress

from clouduploader.plugin import BytesMoved, Event, PhaseStarted

SETTLE_SECONDS = 1.0  # rich takes the first two reports for the speed, be they a microsecond apart


class _IfCounted(rich.progress.ProgressColumn):
    """A column that is empty in phases where no bytes are counted.

    Args:
        column: What it is otherwise.
        needs_total: Whether it is empty as well as long as it is not known how many there will be.
        is_estimate: Whether it is empty as well as long as too little has been seen.
    """

    def __init__(
        self, column: rich.progress.ProgressColumn, *, needs_total: bool = False, is_estimate: bool = False
    ) -> None:
        super().__init__()
        self._column = column
        self._needs_total = needs_total
        self._seconds_needed = SETTLE_SECONDS if is_estimate else 0.0

    def render(self, task: rich.progress.Task) -> rich.console.RenderableType:
        is_counted = task.total is not None or (task.completed > 0 and not self._needs_total)
        return self._column(task) if is_counted and (task.elapsed or 0.0) >= self._seconds_needed else ""


class ProgressView:
    """Show the phase, and a bar where bytes are counted; a listener for `job_log.JobLog`.

    A context manager: the view is on stderr inside, and gone afterwards.
    """

    def __init__(self) -> None:
        self._view = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            _IfCounted(rich.progress.BarColumn(), needs_total=True),
            _IfCounted(rich.progress.DownloadColumn(binary_units=True)),
            _IfCounted(rich.progress.TransferSpeedColumn(), is_estimate=True),
            _IfCounted(rich.progress.TimeRemainingColumn(), needs_total=True, is_estimate=True),
            rich.progress.TimeElapsedColumn(),
            console=rich.console.Console(stderr=True, markup=False, highlight=False),
            transient=True,
        )
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> "ProgressView":
        """Begin to show."""
        self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the screen as it was."""
        self._view.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case PhaseStarted(phase):
                if self._task is not None:
                    self._view.remove_task(self._task)
                self._task = self._view.add_task(phase, total=None)
            case BytesMoved(done_bytes, total_bytes) if self._task is not None:
                for task in self._view.tasks:  # the only one; `update` takes no total back
                    task.total = total_bytes
                self._view.update(self._task, completed=done_bytes)
