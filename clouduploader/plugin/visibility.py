"""What it says that a cloud does not show a thing: for a while nothing, and only then that the thing is gone.

Clouds are eventually consistent: a thing can be made, and be unknown by its id, name and tags for a while.
Until then it is neither there nor gone, and no code may act as if it were either.
"""

import datetime
from collections.abc import Mapping

UNSEEN_SECONDS = 120.0
"""How long a cloud may not show what it has made: the longest that was seen (coldsnap issues 43 and 56, of a
snapshot); no bound is promised."""


def time_of(entry: Mapping[str, object]) -> datetime.datetime | None:
    """When an entry of a journal was written; None if it does not tell."""
    try:
        found = datetime.datetime.fromisoformat(str(entry.get("time")))
    except ValueError:
        return None
    return found if found.tzinfo else None


def seconds_left(entry: Mapping[str, object], now: datetime.datetime | None = None) -> float:
    """For how many seconds yet the cloud may not show what an entry says was asked for, or made.

    Args:
        entry: Of a journal, `asked` or `made`.
        now: For tests.

    Returns:
        From 0, if its absence can be believed, to UNSEEN_SECONDS, however wrong the clock was set.
    """
    moment = time_of(entry)
    if moment is None:
        return 0.0
    age = (now or datetime.datetime.now(datetime.UTC)) - moment
    return min(UNSEEN_SECONDS, max(0.0, UNSEEN_SECONDS - age.total_seconds()))
