"""Text as it is shown: foreign characters escaped, values and ages in short."""

import datetime
import unicodedata
from typing import TextIO

AGES = ((365 * 86400, "y"), (7 * 86400, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def clean(text: str) -> str:
    """Make foreign text safe to show: control and unprintable characters become escapes.

    A user name or a line of a log can hold anything, escape sequences of a terminal included.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def cell(value: object) -> str:
    """Return a value as the text of a table cell; None is an empty cell."""
    return "" if value is None else clean(str(value))


def moment(when: datetime.datetime) -> str:
    """Write an aware time in UTC, to the second, as all answers have it: 2026-11-25T11:02:41Z."""
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(seconds: float) -> str:
    """Say how long ago, in the largest unit that there is one of: 3d."""
    unit, letter = next((step for step in AGES if seconds >= step[0]), AGES[-1])
    return f"{max(0, int(seconds // unit))}{letter}"


def is_encodable(text: str, stream: TextIO) -> bool:
    """Tell whether a stream's encoding has these characters."""
    try:
        text.encode(stream.encoding)
    except UnicodeEncodeError:
        return False
    return True
