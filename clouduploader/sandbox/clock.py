"""What time it is at AWS."""

import datetime


class Clock:
    """This machine's clock, moved by as much as a test wants.

    Attributes:
        offset: How far AWS's clock is ahead.
    """

    def __init__(self) -> None:
        self.offset = datetime.timedelta()

    def now(self) -> datetime.datetime:
        """The time at AWS, aware and in UTC."""
        return datetime.datetime.now(datetime.UTC) + self.offset


def basic(moment: datetime.datetime) -> str:
    """Write a time as signatures do."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


def parse_basic(text: str) -> datetime.datetime | None:
    """Read the time of a signature; None if it is none."""
    try:
        return datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
