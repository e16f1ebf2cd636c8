"""The signals that ask us to stop, led to a `Stop`."""

import signal

from clouduploader.stop import Stop

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""OBS's kill, a person's Ctrl-C, and a terminal that went away: all must leave nothing in the cloud."""


def listen(stop: Stop) -> None:
    """From now on these signals are requests to stop; for the main thread, once."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _frame: stop.request(received))
