"""Check that the clock of this machine can tell how old something is.

Without a battery it begins in 1970 at each start, and NTP may put it forward or back by years at any time.
"""

import datetime

from clouduploader.errors import ConfigError

EARLIEST = datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC)
"""No release of this program is older: what bears an earlier time was made by a clock that was wrong."""
LEEWAY = datetime.timedelta(hours=1)
"""By how much clocks that are about right differ; some clouds refuse requests that are a quarter of that off."""


def check(moment: datetime.datetime) -> None:
    """Check that the clock can tell how old something is.

    Args:
        moment: When it was made, by any clock; with a time zone.

    Raises:
        ConfigError: The clock is wrong, or was when that was made.
    """
    now = datetime.datetime.now(datetime.UTC)
    if EARLIEST <= moment <= now + LEEWAY and now >= EARLIEST:
        return
    raise ConfigError(
        f"how old things are can't be told: one is of {_text(moment)}, and this machine's clock says {_text(now)}",
        hint="Set the clock; or leave --older-than out.",
    )


def _text(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
