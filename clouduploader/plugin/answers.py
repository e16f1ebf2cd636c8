"""What a cloud answers: JSON of which nothing is taken for granted."""

import json
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from clouduploader.errors import PlatformReplyError

MAX_ANSWER_BYTES = 32 << 20
"""Of any answer: a page of some thousand blobs or images has a few MiB, and a page of a blob 4."""
NO_MEMBERS: Mapping[str, type] = MappingProxyType({})


def read_object(
    data: bytes | str, subject: str, *, members: Mapping[str, type] = NO_MEMBERS, needed: Collection[str] = ()
) -> dict[str, Any]:
    """Read an answer that is a JSON object; see `check_object`.

    Raises:
        PlatformReplyError: It is something else.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    return check_object(found, subject, members=members, needed=needed)


def check_object(
    found: object, subject: str, *, members: Mapping[str, type] = NO_MEMBERS, needed: Collection[str] = ()
) -> dict[str, Any]:
    """Return what JSON has, if it is the object that it must be, without its members that are null.

    Args:
        found: The answer, or a part of it.
        subject: What was asked for, for the message.
        members: What these are, where they are there.
        needed: What must be there.

    Raises:
        PlatformReplyError: It is something else.
    """
    if not isinstance(found, dict):
        raise PlatformReplyError(f"{subject}: the answer is no JSON object")
    made = {name: value for name, value in found.items() if value is not None}
    if missing := [name for name in needed if name not in made]:
        raise PlatformReplyError(f"{subject}: the answer has no {missing[0]}")
    for name, kind in members.items():
        if name in made and not isinstance(made[name], kind):
            raise PlatformReplyError(f"{subject}: in the answer {name} is of another type than it must be")
    return made
