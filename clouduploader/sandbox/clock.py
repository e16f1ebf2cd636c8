"""The clock of the emulated cloud."""

import datetime


class CloudClock:
    """This machine's clock, moved by as much as a test wants.

    Attributes:
        offset: How far the cloud's clock is ahead of this machine's.
    """

    def __init__(self) -> None:
        self.offset = datetime.timedelta()

    def now(self) -> datetime.datetime:
        """Return the cloud's time, aware and in UTC."""
        return datetime.datetime.now(datetime.UTC) + self.offset
