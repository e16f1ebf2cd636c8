"""The keys of a platform's target data."""

import enum
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from clouduploader.util.frozen import frozen

MIN_SECRET_LENGTH = 8  # ours: no longer text stands by chance in a log, where a secret is masked
MAX_SHOWN = 60  # characters of a wrong value; more make the line unreadable
PGP_MARK = "-----BEGIN PGP MESSAGE-----"  # RFC 4880, 6.2
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

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
        is_secret: Whether OBS sends it encrypted, and it must never be shown. Then it has at least MIN_SECRET_LENGTH
            characters.
        is_of_account: Whether it is kept with the user's account (see Accounts), and not asked for at each
            upload; only a string can be.
        is_of_one_user: Whether it opens the account, so that no two accounts may have the same value; of what is kept
            with the account in clear.
        allowed: The only values there are, or empty.
        pattern: A regular expression that a whole string must match, or None; JSON Schema has to understand it too.
        pattern_meaning: The pattern in words, for the error line.
        min_length: Characters of a string.
        max_length: Characters of a string.
        minimum: Of an integer.
        maximum: Of an integer.
        option: The command-line option that stands for it, "" for none; `--name` unless given, with dashes for
            underscores, and for a secret `--name-file`, which takes the path of a file with the value. A boolean's is a
            flag, or a pair such as `--share/--no-share`. That of an array can be repeated, and takes words with commas
            between; that of an object can be repeated, and takes `NAME=VALUE`. Options that a command has itself, such
            as `--user`, go before it.
        metavar: What stands for a value in the help of that option; made from `allowed` or `kind` unless given.
        help: The help of that option; `description` unless given.
        default_text: What holds without it, in a few words for that help.
        FILENAME: The field that tells the image's real name, for all platforms that want it.
        SHA256: The field that promises the image's digest, which `UploadRequest` checks wherever the image is read;
            for all platforms. `submit` fills it from the file beside the image, which stays behind.
    """

    FILENAME: ClassVar["Field"]
    SHA256: ClassVar["Field"]

    name: str
    description: str
    kind: FieldKind = FieldKind.STRING
    is_required: bool = False
    is_secret: bool = False
    is_of_account: bool = False
    is_of_one_user: bool = False
    allowed: tuple[str, ...] = ()
    pattern: str | None = None
    pattern_meaning: str = ""
    min_length: int | None = None
    max_length: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    option: str | None = None
    metavar: str | None = None
    help: str | None = None
    default_text: str = ""

    @property
    def least_length(self) -> int | None:
        """The fewest characters that a string may have; None for any number."""
        return max(self.min_length or 0, MIN_SECRET_LENGTH) if self.is_secret else self.min_length

    def option_name(self) -> str:
        """Return the command-line option that stands for this field, of a pair the first; "" if none does."""
        if self.option is None:
            return f"--{self.name.replace('_', '-')}{'-file' if self.is_secret else ''}"
        return self.option.partition("/")[0]


Field.FILENAME = Field(
    name="filename",
    description="The image's real name, for when nothing else tells it.",
    pattern=r"[^/\x00-\x1f\x7f]*",
    pattern_meaning="no slash, no control characters",
    max_length=255,  # NAME_MAX of Linux
    option="",
)
Field.SHA256 = Field(
    name="sha256",
    description="The SHA-256 of the image file as it is, packed; checked before there is an image.",
    pattern=r"[0-9a-fA-F]{64}",
    pattern_meaning="64 hexadecimal digits",
    metavar="DIGEST",
    help="The SHA-256 that IMAGE must have.",
    default_text="what IMAGE.sha256 says",
)


class SealedText(str):
    """A string that is encrypted, and is not to be judged."""


def json_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """Describe a platform's target data as JSON Schema, draft 2020-12.

    It takes what `target_data.read` takes, before decryption; rules between fields are not in it.
    """
    return {
        "$schema": SCHEMA_DIALECT,
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields if field.is_required],
        "$defs": {
            "absent": {"description": "The same as no value at all.", "enum": ["", None]},
            "pgp": {
                "description": "An armored PGP message that holds the value.",
                "type": "string",
                "pattern": rf"^\s*{PGP_MARK}",
            },
            "rsa": {
                "description": "Base64 of the value, encrypted by RSA PKCS#1 v1.5 as OBS does.",
                "type": "string",
                # 172 characters are 128 bytes, the shortest key that anybody used
                "pattern": r"^[A-Za-z0-9+/\s]{170,}[=\s]*$",
            },
        },
    }


def is_allowed(field: Field, value: JsonValue) -> bool:
    """Tell whether a decrypted value that is not absent is one that the field takes."""
    match field.kind:
        case FieldKind.BOOLEAN:
            return isinstance(value, bool)
        case FieldKind.INTEGER:
            return type(value) is int and _is_within(value, field.minimum, field.maximum)
        case FieldKind.OBJECT:
            return isinstance(value, dict) and all(isinstance(member, str) for member in value.values())
        case FieldKind.ARRAY:
            return isinstance(value, list) and all(_is_allowed_string(field, member) for member in value)
        case FieldKind.STRING:
            return _is_allowed_string(field, value)


def problem(field: Field, value: JsonValue, *, is_hidden: bool) -> str:
    """Say what is wrong with a value that is not allowed, and what would be.

    Args:
        field: Which one.
        value: Decrypted.
        is_hidden: Whether it must not be shown.
    """
    found = _found(value, is_hidden=is_hidden)
    wrong = value
    if field.kind is FieldKind.ARRAY:
        members = value if isinstance(value, list) else []
        wrong = next((member for member in members if not _is_allowed_string(field, member)), None)
    if isinstance(value, list) and field.kind is FieldKind.ARRAY:
        found = f"a list with {_found(wrong, is_hidden=is_hidden)} in it"
    return f"{field.name} is {found}, but {allowed_in_words(field, wrong)}"


def _is_allowed_string(field: Field, value: JsonValue) -> bool:
    return isinstance(value, SealedText) or (
        isinstance(value, str)
        and _is_within(len(value), field.least_length, field.max_length)
        and (not field.allowed or value in field.allowed)
        and (field.pattern is None or re.fullmatch(field.pattern, value) is not None)
    )


def _is_within(number: int, low: int | None, high: int | None) -> bool:
    return (low is None or number >= low) and (high is None or number <= high)


def kind_of(value: JsonValue) -> str:
    """Name the JSON type of a value, without showing it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return "a list"
        case _:
            return "an object"


def _found(value: JsonValue, *, is_hidden: bool) -> str:
    if is_hidden or value is None or isinstance(value, list | dict):
        return kind_of(value)
    if isinstance(value, str):
        return shortened(value)
    return json.dumps(value) if isinstance(value, bool) else f"the number {str(value)[:MAX_SHOWN]}"


def shortened(text: str) -> str:
    """Show a text as JSON has it, its beginning if it is long."""
    shown = json.dumps(text[:MAX_SHOWN], ensure_ascii=not text.isprintable())
    return shown if len(text) <= MAX_SHOWN else f'{shown[:-1]}..." ({len(text)} characters)'


def allowed_in_words(field: Field, value: JsonValue) -> str:
    """Say what a field takes, as far as a value keeps from it."""
    match field.kind:
        case FieldKind.BOOLEAN:
            return "must be true or false"
        case FieldKind.INTEGER:
            return f"must be an integer{_range_in_words(field.minimum, field.maximum)}"
        case FieldKind.OBJECT:
            return "must be an object whose values are strings"
    is_array = field.kind is FieldKind.ARRAY
    if field.allowed:
        return f"must be {'a list of ' if is_array else ''}{_one_of(field.allowed)}"
    is_string = isinstance(value, str) and value != ""
    words = [] if is_string else ["must be a list of strings" if is_array else "must be a string"]
    if not is_string or not _is_within(len(str(value)), field.least_length, field.max_length):
        length = _range_in_words(field.least_length, field.max_length)
        words += [f"must have{length} characters" if is_string else f"of{length} characters"] if length else []
    if field.pattern is not None and (not is_string or not words):
        taken = "takes values " if field.pattern_meaning.startswith("such as") else "takes "
        words.append(f"{taken}{field.pattern_meaning}" if is_string else f"({field.pattern_meaning})")
    return " ".join(words)


def _range_in_words(low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f" {low} to {high}"
    if low is not None:
        return f" at least {low}"
    return "" if high is None else f" at most {high}"


def _one_of(words: Iterable[str]) -> str:
    *front, last = words
    return f"{', '.join(front)} or {last}" if front else last


def _field_schema(field: Field) -> dict[str, Any]:
    rules = _value_schema(field)
    others = _encrypted_schemas(field) if field.kind is FieldKind.STRING else []
    if not field.is_required:
        others.append({"$ref": "#/$defs/absent"})
    return {"description": field.description, "anyOf": [rules, *others]}


def _value_schema(field: Field) -> dict[str, Any]:
    rules: dict[str, Any] = {"type": str(field.kind)}
    match field.kind:
        case FieldKind.STRING:
            low = field.least_length
            rules = _string_schema(field, min_length=max(low or 0, 1) if field.is_required else low)
        case FieldKind.ARRAY:
            rules["minItems"] = 1 if field.is_required else None
            rules["items"] = {
                "anyOf": [_string_schema(field, min_length=field.least_length), *_encrypted_schemas(field)]
            }
        case FieldKind.INTEGER:
            rules["minimum"], rules["maximum"] = field.minimum, field.maximum
        case FieldKind.OBJECT:
            rules["additionalProperties"] = {"type": "string"}
    return {name: rule for name, rule in rules.items() if rule is not None}


def _string_schema(field: Field, *, min_length: int | None) -> dict[str, Any]:
    rules = {
        "type": "string",
        "minLength": min_length,
        "maxLength": field.max_length,
        "enum": list(field.allowed) or None,
        # `$` alone lets a line end follow, in Python; in ECMA-262 the rest changes nothing
        "pattern": rf"^(?:{field.pattern})$(?!\n)" if field.pattern else None,
    }
    return {name: rule for name, rule in rules.items() if rule is not None}


def _encrypted_schemas(field: Field) -> list[dict[str, Any]]:
    """The forms in which a string of this field can come encrypted."""
    forms = ["pgp", "rsa"] if field.is_secret else ["pgp"]
    return [{"$ref": f"#/$defs/{form}"} for form in forms]
