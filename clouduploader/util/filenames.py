"""Names of image files from outside, made safe. No I/O."""

import os
import re

MAX_LENGTH = 200  # bytes; NAME_MAX is 255 on Linux, and tools append endings of their own
_UNSAFE = re.compile(r"[^A-Za-z0-9._+~-]")


def base_name(name: str) -> str:
    """Reduce a name from outside to a base name that can be shown and linked.

    Directories are cut off, control characters and what is not UTF-8 become `_`, and the name is
    neither empty nor hidden nor an option. Blanks, quotes and letters of any script stay.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    text = "".join(char if char.isprintable() else "_" for char in last)
    return _shortened(text.rstrip()).lstrip(".- ") or "image"


def plain(name: str) -> str:
    """Reduce a base name further to letters, digits and `._+~-`: safe in any shell or tool."""
    return _shortened(_UNSAFE.sub("_", name)).lstrip("._+~-") or "image"


def _shortened(text: str) -> str:
    """Cut the front of a name that is too long: the end says what it is."""
    data = os.fsencode(text)
    return text if len(data) <= MAX_LENGTH else data[-MAX_LENGTH:].decode("utf-8", "ignore")
