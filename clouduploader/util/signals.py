"""The signals that ask us to stop, led to a `Cancel`."""

import signal

from clouduploader.util.cancel import Cancel

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""OBS's kill, a person's Ctrl-C, and a terminal that went away: all must leave nothing in the cloud."""


def listen(cancel: Cancel) -> None:
    """From now on these signals are requests to stop; for the main thread, once."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: cancel.request(received))
