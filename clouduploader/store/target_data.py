"""Read, check and decrypt target data.

One JSON object (RFC 8259, UTF-8), or an armored PGP message that holds one. Each string in it may be
an armored PGP message of its own; a field that its platform calls secret may also come in OBS's
form: base64 of RSA PKCS#1 v1.5.

Which values are right is said by the platform's fields alone: the check here and the JSON Schema
are both made from them, and mean the same. JSON's types are kept strictly: `"true"` is no
boolean, `true` no integer, `"8"` no integer; `8.0` is one, as JSON Schema has it. For a field that
is not required `""`, null and absence are the same, and it is absent from the result; so is an empty
list for one that takes lists.

An upload host gets target data that its server has decrypted: then a list SECRETS_KEY tells which strings were secret
there, nothing is decrypted again, and no value is shown at all.

No value is ever shown that was encrypted or is called secret: not in a message, and not in the
chain of exceptions behind it, where Python's own hold the text they failed on.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from clouduploader.errors import LocalIOError, MissingFileError, TargetDataError
from clouduploader.plugin import Field, FieldKind, JsonValue, Platform, fields
from clouduploader.util import files, masking, privileges
from clouduploader.util.frozen import frozen

MAX_SIZE_BYTES = 1 << 20  # OBS takes 10 MB; no platform has fields that fill 100 KB
SECRETS_KEY = "clouduploader_secrets"
_DESCRIPTOR = re.compile(r"/(?:proc/self|dev)/fd/([0-9]{1,9})")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class GpgDecrypter(Protocol):
    """What is needed of `keyring.Keyring.gpg`."""

    def decrypt(self, message: str, /) -> str:
        """Decrypt an armored PGP message; TargetDataError, without any plain text, if it can't be."""


class RsaDecrypter(Protocol):
    """What is needed of `keyring.Keyring.rsa`."""

    def is_encrypted(self, value: str, /) -> bool:
        """Tell whether a value is in OBS's form."""

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
    is_encrypted = data.lstrip().startswith(fields.PGP_MARK.encode())
    document = parse(keyring.gpg.decrypt(_text(data).lstrip()).encode() if is_encrypted else data)
    checker = _Checker(keyring, is_hidden=is_encrypted, decrypted=document.pop(SECRETS_KEY, None))
    values = _values(document, platform, checker)
    names = {field.name for field in platform.fields}
    return TargetData(
        values=values,
        unknown_keys=tuple(key for key in document if key not in names),
        secrets=tuple(dict.fromkeys(checker.secrets)),
    )


def read_file(path: Path, *, is_of_spool: bool = False) -> bytes:
    """Read a file of target data; of more than is allowed only so much that `parse` refuses it.

    Args:
        path: May be a pipe: then it blocks until the writer is done; or the path of an open file in /proc/self/fd,
            which is read from its beginning.
        is_of_spool: Whether it lies in a spool: then it is a regular file, or refused.

    Raises:
        MissingFileError: There is no such file.
        LocalIOError: It can't be read.
    """
    try:
        if found := _DESCRIPTOR.fullmatch(str(path)):
            return _read_descriptor(int(found[1]))
        with privileges.as_owner(path.parent) if is_of_spool else contextlib.nullcontext():
            file = files.open_read(path) if is_of_spool else path.open("rb")
        with file:
            return file.read(MAX_SIZE_BYTES + 1)
    except FileNotFoundError as exc:
        raise MissingFileError(f"there are no target data {path}") from exc
    except OSError as exc:
        raise LocalIOError(f"the target data {path} can't be read: {exc.strerror}") from exc


def _read_descriptor(descriptor: int) -> bytes:
    """Read an open file; a process that hides its memory may not open it once more by its path, see proc(5)."""
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        if file.seekable():
            file.seek(0)
        return file.read(MAX_SIZE_BYTES + 1)


def check(data: bytes, platform: Platform, keyring: Decrypter) -> None:
    """Check target data as `read` does, but decrypt nothing: the keys may be somewhere else.

    What is encrypted is taken for right; with data that are encrypted as a whole that is all.

    Raises:
        TargetDataError: See `read`.
    """
    if not is_armored(_text(data)):
        _values(parse(data), platform, _Checker(keyring, is_sealed=True))


def sealed(
    data: bytes,
    platform: Platform,
    keyring: Decrypter,
    encrypt: Callable[[str], str],
    *,
    renew: Callable[[str], str] = lambda value: value,
) -> bytes:
    """Encrypt the values of secret fields, as far as they come in clear.

    Args:
        data: Right for the platform; may be encrypted as a whole, and is given as it is then.
        platform: Says which fields are secret.
        keyring: Tells what is encrypted already.
        encrypt: Called with each secret that is not.
        renew: Called with each secret that is.

    Raises:
        TargetDataError: See `parse`.
        ClouduploaderError: What `encrypt` and `renew` raise.
    """
    if is_armored(_text(data)):
        return data
    document = parse(data)

    def seal(value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {key: seal(member) for key, member in value.items()}
        if isinstance(value, list):
            return [seal(member) for member in value]
        if not isinstance(value, str) or not value:
            return value
        is_encrypted = is_armored(value) or keyring.rsa.is_encrypted(value)
        return renew(value) if is_encrypted else encrypt(value)

    secret = {field.name for field in platform.fields if field.is_secret}
    found = {name: seal(value) if name in secret else value for name, value in document.items()}
    return data if found == document else json.dumps(found).encode()


def parse(data: bytes) -> dict[str, JsonValue]:
    """Read a JSON object as RFC 8259 has it: no NaN, no key twice, no half of a surrogate pair.

    Raises:
        TargetDataError: It is none, is longer than MAX_SIZE_BYTES or nested too deeply.
    """
    text = _text(data)
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number)
        problem = None if isinstance(document, dict) else f"must be a JSON object, not {fields.kind_of(document)}"
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
    """Tell whether a text is an armored PGP message."""
    return text.lstrip().startswith(fields.PGP_MARK)


def _values(document: Mapping[str, JsonValue], platform: Platform, checker: "_Checker") -> dict[str, JsonValue]:
    """Return what the platform gets, once all of it is right."""
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
            raise _NotStrictError(f"the key {fields.shortened(key)} is there twice")
        members[key] = value
    return members


def _has_surrogate(value: JsonValue) -> bool:
    """Tell whether a string, or one in a list, has half of a surrogate pair; objects were checked before."""
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


class _Checker:
    """Checks field by field, and gathers what is wrong and what is secret.

    Args:
        keyring: For strings that are encrypted by themselves.
        is_hidden: Whether all values came encrypted, and none may be shown.
        is_sealed: Whether what is encrypted stays so, and is right whatever it may be.
        decrypted: What SECRETS_KEY lists; None where the values were not decrypted before.
    """

    def __init__(
        self, keyring: Decrypter, *, is_hidden: bool = False, is_sealed: bool = False, decrypted: JsonValue = None
    ) -> None:
        self._keyring = keyring
        self._is_decrypted = decrypted is not None
        self._is_hidden = is_hidden or self._is_decrypted
        self._is_sealed = is_sealed
        self.problems: list[str] = []
        self.secrets: list[str] = []
        known = [secret for secret in decrypted if isinstance(secret, str)] if isinstance(decrypted, list) else None
        if self._is_decrypted and known != decrypted:
            self.problems.append(f"{SECRETS_KEY} must be a list of strings")
        for secret in filter(None, known or []):
            self._hide(secret)

    def checked(self, field: Field, value: JsonValue) -> JsonValue:
        """Return the decrypted value; None if it is absent or wrong."""
        known_secrets = len(self.secrets)
        try:
            value = self._decrypted(value, is_secret=field.is_secret)
        except TargetDataError as exc:
            self.problems.append(f"{field.name}: {exc.message}")
            return None
        if value is None or value == "" or (value == [] and field.kind is FieldKind.ARRAY):
            if field.is_required:
                self.problems.append(f"{field.name} is missing, but {fields.allowed_in_words(field, value)}")
            return None
        is_hidden = self._is_hidden or field.is_secret or len(self.secrets) > known_secrets
        if fields.is_allowed(field, value):
            return value
        self.problems.append(fields.problem(field, value, is_hidden=is_hidden))
        return None

    def _decrypted(self, value: JsonValue, *, is_secret: bool) -> JsonValue:
        if isinstance(value, dict):
            return {key: self._decrypted(member, is_secret=is_secret) for key, member in value.items()}
        if isinstance(value, list):
            return [self._decrypted(member, is_secret=is_secret) for member in value]
        if not isinstance(value, str):
            return value
        is_pgp = not self._is_decrypted and is_armored(value)
        is_rsa = not (self._is_decrypted or is_pgp) and is_secret and self._keyring.rsa.is_encrypted(value)
        if self._is_sealed and (is_pgp or is_rsa):
            return fields.SealedText(value)
        if is_pgp:
            value = self._keyring.gpg.decrypt(value.lstrip())
        elif is_rsa:
            value = self._keyring.rsa.decrypt(value)
        if (is_pgp or is_secret) and value:
            self._hide(value)
        return value

    def _hide(self, secret: str) -> None:
        masking.hide(secret)
        self.secrets.append(secret)
