"""Where an image comes from, as labels of Google: lower-case letters, digits, `_` and `-` only.

Sources: Compute Engine, "Organize resources using labels", "Requirements for labels": at most 64 labels, of 63
characters each, whose keys begin with a letter. What has other characters is changed; the journal's key fits as it is.
"""

import base64
import re
from collections.abc import Mapping

from clouduploader.plugin import labels

MAX_LABELS = 64
MAX_LENGTH = 63
KEY_PATTERN = r"[a-z][a-z0-9_-]*"
VALUE_PATTERN = r"[a-z0-9_-]*"
PREFIX = "clouduploader-"
"""How the keys of our labels begin."""
KEY = f"{PREFIX}key"
DIGEST = f"{PREFIX}digest"
"""Of an image: what identifies the archive that it was made of; see `digest`."""
_STRANGE = re.compile(r"[^a-z0-9_-]")


def of_upload(ours: Mapping[str, str]) -> dict[str, str]:
    """Turn the labels of an upload, see `plugin.labels`, into Google's."""
    return {
        f"{PREFIX}{name.removeprefix(labels.PREFIX)}": _STRANGE.sub("-", value.lower())[:MAX_LENGTH]
        for name, value in ours.items()
    }


def as_ours(theirs: Mapping[str, str]) -> dict[str, str]:
    """Turn Google's labels into those of an upload."""
    return {
        f"{labels.PREFIX}{name.removeprefix(PREFIX)}": value
        for name, value in theirs.items()
        if name.startswith(PREFIX)
    }


def digest(sha256: str) -> str:
    """Write a SHA-256, given in hex, as a label: in base32, for its 64 hexadecimal digits are one too many."""
    return base64.b32encode(bytes.fromhex(sha256)).decode().rstrip("=").lower()
