"""Turn the signals that ask the process to stop into requests of a `Cancel`."""

import atexit
import signal

from clouduploader.util.cancel import Cancel

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""OBS's kill, a person's Ctrl-C, and a terminal that went away: all must leave nothing in the cloud."""


def listen(cancel: Cancel) -> None:
    """Turn these signals into requests to stop from now on; for the main thread, once."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: cancel.request(received))
    atexit.register(_ignore)


def _ignore() -> None:
    """Let none of them end a process whose work is done: Python's own end takes a while, without handlers of ours."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
