"""A live view of an upload on a terminal."""

from types import TracebackType

import rich.console
import rich.progress

from clouduploader.platform import BytesMoved, Event, PhaseStarted


class _IfCounted(rich.progress.ProgressColumn):
    """A column that is empty in phases where no bytes are counted."""

    def __init__(self, column: rich.progress.ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: rich.progress.Task) -> rich.console.RenderableType:
        return "" if task.total is None else self._column(task)


class ProgressView:
    """Shows the phase, and a bar where bytes are counted; a listener for `joblog.JobLog`.

    A context manager: the view is on stderr inside, and gone afterwards.
    """

    def __init__(self) -> None:
        self._view = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
            _IfCounted(rich.progress.BarColumn()),
            _IfCounted(rich.progress.DownloadColumn(binary_units=True)),
            _IfCounted(rich.progress.TransferSpeedColumn()),
            _IfCounted(rich.progress.TimeRemainingColumn()),
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
                self._view.update(self._task, completed=done_bytes, total=total_bytes)
