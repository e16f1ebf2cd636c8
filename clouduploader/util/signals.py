"""Turn the signals that ask the process to stop into requests of a `Cancel`."""

import signal

from clouduploader.util.cancel import Cancel

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""OBS's kill, a person's Ctrl-C, and a terminal that went away: all must leave nothing in the cloud."""


def listen(cancel: Cancel) -> None:
    """Turn these signals into requests to stop from now on; for the main thread, once."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: cancel.request(received))
