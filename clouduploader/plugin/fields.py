"""The keys of a platform's target data."""

import enum
import re

from clouduploader.util.frozen import frozen

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class FieldKind(enum.StrEnum):
    """The JSON types a field of the target data can have; named as JSON Schema names them."""

    STRING = "string"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    OBJECT = "object"
    ARRAY = "array"


@frozen(kw_only=True)
class Field:
    """One key of a platform's target data. Check and JSON Schema are both made from it.

    Attributes:
        name: The key.
        description: One sentence for people, ends with a full stop.
        kind: The JSON type. An object maps strings to strings (tags); an array holds strings, each of which
            must fit `allowed`, `pattern` and the lengths.
        is_required: Whether it must be there and not be empty. Otherwise absent, null and ""
            mean the same.
        is_secret: Whether OBS sends it encrypted, and it must never be shown.
        is_of_account: Whether it is kept with the user's account (see Accounts), and not asked for at each
            upload; only a string can be. In clear it is one user's: no two accounts have the same value.
        allowed: The only values there are, or empty.
        pattern: What a whole string must match, or None.
        pattern_meaning: The pattern in words, for the error line.
        min_length: Characters of a string.
        max_length: Characters of a string.
        minimum: Of an integer.
        maximum: Of an integer.
    """

    name: str
    description: str
    kind: FieldKind = FieldKind.STRING
    is_required: bool = False
    is_secret: bool = False
    is_of_account: bool = False
    allowed: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    pattern_meaning: str = ""
    min_length: int | None = None
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
