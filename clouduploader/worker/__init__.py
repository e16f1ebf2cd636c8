"""The worker: runs the jobs of a spool on this host, in the place of OBS's bs_clouduploadworker.

The package imports nothing when it is loaded: the supervisor of each upload is in it too, and must start soon.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clouduploader.store.config import Config
    from clouduploader.worker.control import WorkerControl
    from clouduploader.worker.events import WorkerEvent
    from clouduploader.worker.settings import WorkerSettings


def run(
    config: "Config",
    *,
    settings: "Callable[[], WorkerSettings]",
    control: "WorkerControl",
    on_event: "Callable[[WorkerEvent], None]",
) -> None:
    """Run the jobs of a spool until `control` asks to leave. Blocks; may run in any thread.

    Args:
        config: See Config.
        settings: Reads the worker's settings; called again after `control.reload()`.
        control: How other threads and signal handlers reach the worker.
        on_event: Called with each event, in this thread.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: There is no uploader.
        LockedError: Another worker, OBS's or ours, works on the spool.
        MissingFileError: There is no spool, or it was removed.
        CannotCreateError, LocalIOError: It can't be worked on.
    """
    from clouduploader.worker import worker

    worker.Worker(config, read_settings=settings, control=control, on_event=on_event).run()
