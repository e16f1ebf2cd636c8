"""Many jobs: the worker that takes the place of OBS's bs_clouduploadworker.

Loads nothing by itself: the supervisor of each upload is in this package too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clouduploader.config import Config
    from clouduploader.dispatcher.control import Control
    from clouduploader.dispatcher.happening import Happening
    from clouduploader.dispatcher.settings import Settings


def run(
    config: "Config",
    *,
    settings: "Callable[[], Settings]",
    control: "Control",
    on_event: "Callable[[Happening], None]",
) -> None:
    """Work on the jobs of a spool until `control` says that it is enough. Blocks; may run in any thread.

    Args:
        config: See Config.
        settings: Reads the worker's settings; called again after `control.reload()`.
        control: How other threads and signal handlers reach the worker.
        on_event: Told what happens, in this thread.

    Raises:
        ConfigError: The settings are wrong.
        MissingProgramError: There is no uploader.
        LockedError: Another worker, OBS's or ours, works on the spool.
        MissingFileError: There is no spool, or it was removed.
        CannotCreateError, LocalIOError: It can't be worked on.
    """
    from clouduploader.dispatcher import worker

    worker.Worker(config, read_settings=settings, control=control, on_event=on_event).run()
