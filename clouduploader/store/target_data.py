"""Target data: from the bytes that OBS hands over to checked, decrypted values.

One JSON object (RFC 8259, UTF-8), or an armored PGP message that holds one. Each string in it may be
an armored PGP message of its own; a field that its platform calls secret may also come in OBS's
form: base64 of RSA PKCS#1 v1.5.

What is a right value is said by the platform's fields alone: the check here and the JSON Schema
are both made from them, and mean the same. JSON's types are kept strictly: `"true"` is no
boolean, `true` no integer, `"8"` no integer; `8.0` is one, as JSON Schema has it. For a field that
is not required `""`, null and absence are the same, and it is absent from the result; so is an empty
list for one that takes lists.

No value is ever shown that was encrypted or is called secret: not in a message, and not in the
chain of exceptions behind it, where Python's own hold the text they failed on.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from clouduploader.errors import TargetDataError
from clouduploader.plugin import Field, FieldKind, JsonValue, Platform
from clouduploader.util.frozen import frozen

MAX_SIZE_BYTES = 1 << 20  # OBS takes 10 MB; the most that EC2's fields can fill is below 100 KB
MAX_SHOWN = 60  # characters of a wrong value; more make the line unreadable
PGP_MARK = "-----BEGIN PGP MESSAGE-----"  # RFC 4880, 6.2
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class GpgDecrypter(Protocol):
    """What is needed of `keyring.Keyring.gpg`."""

    def decrypt(self, message: str, /) -> str:
        """Decrypt an armored PGP message; TargetDataError, without any plain text, if it can't be."""


class RsaDecrypter(Protocol):
    """What is needed of `keyring.Keyring.rsa`."""

    def is_encrypted(self, value: str, /) -> bool:
        """Whether a value is in OBS's form."""

    def decrypt(self, value: str, /) -> str:
        """Decrypt OBS's form; TargetDataError, without any plain text, if it can't be."""


class Decrypter(Protocol):
    """What is needed of `keyring.Keyring`."""

    @property
    def gpg(self) -> GpgDecrypter:
        """For armored PGP messages."""

    @property
    def rsa(self) -> RsaDecrypter:
        """For OBS's form."""


@frozen()
class TargetData:
    """Target data that are right.

    Attributes:
        values: By the names of the platform's fields; decrypted; without absent fields.
        unknown_keys: Keys that the platform does not know, `user_id` of OBS for one; their values
            were neither decrypted nor kept.
        secrets: The strings that must not be shown: those of secret fields, and those that were
            encrypted by themselves. Not all strings of data that were encrypted as a whole: a log
            names the region and the image.
    """

    values: Mapping[str, JsonValue] = dataclasses.field(repr=False)
    unknown_keys: tuple[str, ...]
    secrets: tuple[str, ...] = dataclasses.field(repr=False)


def read(data: bytes, platform: Platform, keyring: Decrypter) -> TargetData:
    """Decrypt and check target data. Starts gpg where something is encrypted.

    Raises:
        TargetDataError: One line that names all that is wrong; what the platform says of fields
            together is asked only when each by itself is right.
    """
    is_encrypted = data.lstrip().startswith(PGP_MARK.encode())
    document = parse(keyring.gpg.decrypt(_text(data).lstrip()).encode() if is_encrypted else data)
    checker = _Checker(keyring, is_hidden=is_encrypted)
    values = _values(document, platform, checker)
    names = {field.name for field in platform.fields}
    return TargetData(
        values=values,
        unknown_keys=tuple(key for key in document if key not in names),
        secrets=tuple(dict.fromkeys(checker.secrets)),
    )


def check(data: bytes, platform: Platform, keyring: Decrypter) -> None:
    """Check target data as `read` does, but decrypt nothing: the keys may be somewhere else.

    What is encrypted is taken for right; with data that are encrypted as a whole that is all.

    Raises:
        TargetDataError: See `read`.
    """
    if not is_armored(_text(data)):
        _values(parse(data), platform, _Checker(keyring, is_sealed=True))


def parse(data: bytes) -> dict[str, JsonValue]:
    """Read a JSON object as RFC 8259 has it: no NaN, no key twice, no half of a surrogate pair.

    Raises:
        TargetDataError: It is none, is longer than MAX_SIZE_BYTES or nested too deeply.
    """
    text = _text(data)
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number)
        problem = None if isinstance(document, dict) else f"must be a JSON object, not {_kind(document)}"
    except json.JSONDecodeError as exc:
        problem = f"are not JSON: {exc.msg} in line {exc.lineno}, column {exc.colno}"
    except _NotStrictError as exc:
        problem = f"are not strict JSON: {exc}"
    except ValueError:  # int() refuses numbers of more than 4300 digits
        problem = "are not strict JSON: a number is too long"
    except RecursionError:
        problem = "are nested too deeply"
    if problem:  # raised out here, for the exceptions above carry the text
        raise TargetDataError(f"the target data {problem}")
    return document  # type: ignore[no-any-return] # an object, as was seen above


def is_armored(text: str) -> bool:
    """Whether a text is an armored PGP message."""
    return text.lstrip().startswith(PGP_MARK)


def json_schema(platform: Platform) -> dict[str, Any]:
    """Describe a platform's target data as JSON Schema, draft 2020-12.

    It takes what `read` takes, before decryption; rules between fields are not in it.
    """
    return {
        "$schema": SCHEMA_DIALECT,
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in platform.fields},
        "required": [field.name for field in platform.fields if field.is_required],
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


def _values(document: Mapping[str, JsonValue], platform: Platform, checker: "_Checker") -> dict[str, JsonValue]:
    """What the platform gets, once all of it is right."""
    values: dict[str, JsonValue] = {
        field.name: value
        for field in platform.fields
        if (value := checker.checked(field, document.get(field.name))) is not None
    }
    problems = checker.problems or platform.problems(values)
    if problems:
        raise TargetDataError(f"the target data are wrong: {'; '.join(problems)}")
    return values


class _NotStrictError(Exception):
    """JSON that Python would take, but the standard does not."""


def _text(data: bytes) -> str:
    if len(data) > MAX_SIZE_BYTES:
        raise TargetDataError(f"the target data are longer than {MAX_SIZE_BYTES} bytes")
    if data.startswith(_BYTE_ORDER_MARKS):
        raise TargetDataError("the target data begin with a byte order mark", hint="Save them as UTF-8 without one.")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        position = exc.start
    raise TargetDataError(f"the target data are not UTF-8: byte {position} is wrong")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if _has_surrogate(key) or _has_surrogate(value):
            raise _NotStrictError("a string holds half of a surrogate pair")
        if key in members:
            raise _NotStrictError(f"the key {_shortened(key)} is there twice")
        members[key] = value
    return members


def _has_surrogate(value: JsonValue) -> bool:
    """Whether a string, or one in a list, does; objects have been asked before."""
    if isinstance(value, list):
        return any(map(_has_surrogate, value))
    return isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)


def _no_constant(name: str) -> None:
    raise _NotStrictError(f"{name} is no JSON number")


def _number(text: str) -> int | float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotStrictError("a number is too large")
    return int(number) if number.is_integer() else number


class _SealedText(str):
    """A string that is encrypted, and is not to be judged."""


class _Checker:
    """Checks field by field, and gathers what is wrong and what is secret.

    Args:
        keyring: For strings that are encrypted by themselves.
        is_hidden: Whether all values came encrypted, and none may be shown.
        is_sealed: Whether what is encrypted stays so, and is right whatever it may be.
    """

    def __init__(self, keyring: Decrypter, *, is_hidden: bool = False, is_sealed: bool = False) -> None:
        self._keyring = keyring
        self._is_hidden = is_hidden
        self._is_sealed = is_sealed
        self.problems: list[str] = []
        self.secrets: list[str] = []

    def checked(self, field: Field, value: JsonValue) -> JsonValue:
        """The decrypted value; None if it is absent or wrong."""
        known_secrets = len(self.secrets)
        try:
            value = self._decrypted(value, is_secret=field.is_secret)
        except TargetDataError as exc:
            self.problems.append(f"{field.name}: {exc.message}")
            return None
        if value is None or value == "" or (value == [] and field.kind is FieldKind.ARRAY):
            if field.is_required:
                self.problems.append(f"{field.name} is missing, but {_allowed(field, value)}")
            return None
        is_hidden = self._is_hidden or field.is_secret or len(self.secrets) > known_secrets
        if is_allowed(field, value):
            return value
        self.problems.append(problem(field, value, is_hidden=is_hidden))
        return None

    def _decrypted(self, value: JsonValue, *, is_secret: bool) -> JsonValue:
        if isinstance(value, dict):
            return {key: self._decrypted(member, is_secret=is_secret) for key, member in value.items()}
        if isinstance(value, list):
            return [self._decrypted(member, is_secret=is_secret) for member in value]
        if not isinstance(value, str):
            return value
        is_pgp = is_armored(value)
        is_rsa = not is_pgp and is_secret and self._keyring.rsa.is_encrypted(value)
        if self._is_sealed and (is_pgp or is_rsa):
            return _SealedText(value)
        if is_pgp:
            value = self._keyring.gpg.decrypt(value.lstrip())
        elif is_rsa:
            value = self._keyring.rsa.decrypt(value)
        if (is_pgp or is_secret) and value:
            self.secrets.append(value)
        return value


def is_allowed(field: Field, value: JsonValue) -> bool:
    """Whether a decrypted value that is not absent is one that the field takes."""
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
    return f"{field.name} is {found}, but {_allowed(field, wrong)}"


def _is_allowed_string(field: Field, value: JsonValue) -> bool:
    return isinstance(value, _SealedText) or (
        isinstance(value, str)
        and _is_within(len(value), field.min_length, field.max_length)
        and (not field.allowed or value in field.allowed)
        and (field.pattern is None or field.pattern.fullmatch(value) is not None)
    )


def _is_within(number: int, low: int | None, high: int | None) -> bool:
    return (low is None or number >= low) and (high is None or number <= high)


def _kind(value: JsonValue) -> str:
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
        return _kind(value)
    if isinstance(value, str):
        return _shortened(value)
    return json.dumps(value) if isinstance(value, bool) else f"the number {str(value)[:MAX_SHOWN]}"


def _shortened(text: str) -> str:
    shown = json.dumps(text[:MAX_SHOWN], ensure_ascii=not text.isprintable())
    return shown if len(text) <= MAX_SHOWN else f'{shown[:-1]}..." ({len(text)} characters)'


def _allowed(field: Field, value: JsonValue) -> str:
    """What a field takes, as far as a value keeps from it."""
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
    if not is_string or not _is_within(len(str(value)), field.min_length, field.max_length):
        length = _range_in_words(field.min_length, field.max_length)
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
            low = field.min_length
            rules = _string_schema(field, min_length=max(low or 0, 1) if field.is_required else low)
        case FieldKind.ARRAY:
            rules["minItems"] = 1 if field.is_required else None
            rules["items"] = {"anyOf": [_string_schema(field, min_length=field.min_length), *_encrypted_schemas(field)]}
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
        "pattern": rf"^(?:{field.pattern.pattern})$(?!\n)" if field.pattern else None,
    }
    return {name: rule for name, rule in rules.items() if rule is not None}


def _encrypted_schemas(field: Field) -> list[dict[str, Any]]:
    """The forms in which a string of this field can come encrypted."""
    forms = ["pgp", "rsa"] if field.is_secret else ["pgp"]
    return [{"$ref": f"#/$defs/{form}"} for form in forms]
