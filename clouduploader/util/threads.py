"""Start threads, where a machine may have no more of them: a limit of processes or memory is reached."""

import threading

from clouduploader.errors import TransientError


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        TransientError: It can't be started now.
    """
    try:
        thread.start()
    except RuntimeError as exc:
        raise TransientError(f"no thread can be started: {exc}") from exc
