"""Make key pairs, and encrypt target data with them."""

import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from clouduploader.errors import CannotCreateError, DataError, TargetDataError
from clouduploader.plugin import JsonValue
from clouduploader.store import target_data
from clouduploader.util import files
from clouduploader.util.frozen import frozen


class KeyPairs(Protocol):
    """One kind of keys: `keyring.Keyring.gpg` or `.rsa`."""

    def generate(self) -> tuple[Path, ...]:
        """Make a key pair."""

    def encrypt(self, text: str, /) -> str:
        """Encrypt for it."""


@frozen()
class GeneratedKeys:
    """What `generate` made.

    Attributes:
        paths: The new files and directories.
        owner: The user to whom they belong, who alone can decrypt.
    """

    paths: tuple[Path, ...]
    owner: str


def generate(keys: KeyPairs) -> GeneratedKeys:
    """Make a key pair.

    Raises:
        ClouduploaderError: See the keys' own `generate`.
    """
    paths = keys.generate()
    return GeneratedKeys(paths, _user_name(paths[0].stat().st_uid))


def encrypt(keys: KeyPairs, data: bytes) -> str:
    """Encrypt a value, or target data as a whole; one line end at the end of it is cut off.

    Raises:
        DataError: It is empty or not UTF-8.
        ClouduploaderError: See the keys' own `encrypt`.
    """
    text = _utf8(data.removesuffix(b"\n").removesuffix(b"\r"))
    if not text:
        raise DataError("there is nothing to encrypt")
    return keys.encrypt(text)


def encrypt_fields(keys: KeyPairs, data: bytes, names: Sequence[str]) -> dict[str, JsonValue]:
    """Encrypt some values of target data, and leave the rest as it is.

    Returns:
        The whole object, in its order.

    Raises:
        TargetDataError: It is no JSON object, or one of the names has no text that could be encrypted.
        ClouduploaderError: See the keys' own `encrypt`.
    """
    document = target_data.parse(data)
    for name in names:
        value = document.get(name)
        if not isinstance(value, str) or not value:
            raise TargetDataError(f"the target data have no text called {name!r}")
        if target_data.is_armored(value):
            raise TargetDataError(f"{name} is encrypted already")
        document[name] = keys.encrypt(value)
    return document


def write(path: Path, text: str) -> None:
    """Write a file for its owner only (0600); it is replaced as a whole or not at all.

    Raises:
        CannotCreateError: It can't be written.
    """
    try:
        files.replace_file(path, text.encode(), mode=files.PRIVATE_MODE)
    except OSError as exc:
        raise CannotCreateError(f"{path} can't be written: {exc.strerror}") from exc


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass  # raised out here, for that exception carries the text
    raise DataError("what is to be encrypted is not UTF-8")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
