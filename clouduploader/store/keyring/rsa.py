"""OBS's RSA pair: `HOME/secret.pem`, and `HOME/_pubkey` that OBS's backend hands out.

OBS's form of a secret is base64 of RSA PKCS#1 v1.5, with a line end after every 60 characters.
"""

import base64
import binascii
import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import LocalIOError, MissingFileError, TargetDataError
from clouduploader.store.keyring import key_files
from clouduploader.util import files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

SECRET_NAME = "secret.pem"  # noqa: S105 fixed by OBS's guide, as is the next
PUBLIC_NAME = "_pubkey"
KEY_BITS = 2048  # what the guide's `openssl genrsa` makes, and OBS's limit of 245 characters is for
KEY_SIZES_BYTES = (128, 256, 384, 512, 1024)  # 1024 to 8192 bits; openssl's users ask for no others
PADDING_BYTES = 11  # RFC 8017, 7.2.1
LINE_LENGTH = 60  # Ruby's Base64.encode64, which OBS uses
KEYGEN_HINT = "`clouduploader keygen --rsa` makes it."
_REFUSED = "OpenSSL of this machine refuses RSA as OBS uses it (PKCS#1 v1.5), as in FIPS mode"


class RsaKeys:
    """The key pair of one home. See `keyring.Keyring`.

    Attributes:
        secret_path: The private key; PKCS#1 and PKCS#8 are both read.
        public_path: The public key, a SubjectPublicKeyInfo.
    """

    def __init__(self, home: Path) -> None:
        self.secret_path = home / SECRET_NAME
        self.public_path = home / PUBLIC_NAME

    def is_encrypted(self, value: str) -> bool:
        """Tell whether a value is in OBS's form: base64 that decodes to the exact size of an RSA key."""
        return len(_decoded(value)) in KEY_SIZES_BYTES

    def decrypt(self, value: str) -> str:
        """Decrypt OBS's form.

        OpenSSL 3.2 and later do not fail on a wrong key but give noise, so that an attacker does not learn from
        the difference. So where there is a `_pubkey` the two must be a pair, and the outcome must be
        text. (With a pair, but a value of another key, one noise in some hundred is by chance a
        letter or two; nothing in the form can tell that.)

        Raises:
            TargetDataError: It can't be.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import padding

        try:
            key = self._secret_key()
            with contextlib.suppress(MissingFileError):
                self._compare(key, self._public_key())
        except (LocalIOError, MissingFileError) as exc:
            raise TargetDataError(f"it is encrypted, but {exc.message}") from exc
        try:
            text = key.decrypt(_decoded(value), padding.PKCS1v15()).decode()
        except ValueError:  # UnicodeDecodeError is one, and carries the plain text
            text = ""
        except UnsupportedAlgorithm as exc:  # a machine in FIPS mode
            raise TargetDataError(f"it is encrypted, but {_REFUSED}") from exc
        if not text or not all(char.isprintable() or char in "\t\r\n" for char in text):
            raise TargetDataError(f"it was encrypted for another key than {self.secret_path}")
        return text

    def takes(self, text: str) -> bool:
        """Tell whether a text is short enough for `_pubkey`.

        Raises:
            ClouduploaderError: See `encrypt`.
        """
        return len(key_files.encoded(text)) <= _limit(self._public_key())

    def encrypt(self, text: str) -> str:
        """Encrypt for `_pubkey`, as OBS does.

        Raises:
            MissingFileError: There is no `_pubkey`.
            LocalIOError: It can't be read, or is no RSA key.
            TargetDataError: The text is longer than the key can take, or has what is no character.
        """
        return _encrypted(text, self._public_key(), str(self.public_path))

    def public_key(self) -> str:
        """Give `_pubkey` as PEM.

        Raises:
            MissingFileError: It is not there.
            LocalIOError: It can't be read, or is no RSA key.
        """
        return _pem(self._public_key()).decode("ascii")

    def generate(self) -> tuple[Path, ...]:
        """Make both files; or `_pubkey` from `secret.pem`, where only that one is missing.

        Returns:
            What was made.

        Raises:
            CannotCreateError: There is a `_pubkey`, or they can't be made.
            LocalIOError: `secret.pem` is there, but no RSA key.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        with key_files.creating(self.public_path):
            if self.public_path.exists():
                raise FileExistsError
        try:
            key, made = self._secret_key(), [self.public_path]
        except MissingFileError:
            key, made = rsa.generate_private_key(65537, KEY_BITS), [self.secret_path, self.public_path]
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            key_files.write_new(self.secret_path, pem, mode=0o600)
        key_files.write_new(self.public_path, _pem(key.public_key()), mode=0o644)
        return tuple(made)

    def is_there(self) -> bool:
        """Tell whether at least one of the two files is there."""
        return os.path.lexists(self.secret_path) or os.path.lexists(self.public_path)

    def check_pair(self) -> None:
        """Look whether the two files are a pair.

        Raises:
            LocalIOError: They are not, or are no keys, or can't be read.
            MissingFileError: One is missing.
        """
        self._compare(self._secret_key(), self._public_key())

    def _compare(self, secret: "RSAPrivateKey", public: "RSAPublicKey") -> None:
        if secret.public_key().public_numbers() != public.public_numbers():
            raise LocalIOError(
                f"{self.secret_path} does not match {self.public_path}",
                hint=f"Move {PUBLIC_NAME} away, then `clouduploader keygen --rsa` makes the right one.",
            )

    def _secret_key(self) -> "RSAPrivateKey":
        key = _private_key(_read(self.secret_path))
        if key is None:
            raise LocalIOError(f"{self.secret_path} is no RSA key in PEM without a passphrase")
        return key

    def _public_key(self) -> "RSAPublicKey":
        return _loaded(_read(self.public_path), str(self.public_path))


def encrypt_for(pem: bytes, text: str, *, where: str) -> str:
    """Encrypt for the public key of another machine, as OBS does.

    Args:
        pem: The key.
        text: What is encrypted.
        where: Names the key in errors.

    Raises:
        LocalIOError: It is no RSA key.
        TargetDataError: See `RsaKeys.encrypt`.
    """
    return _encrypted(text, _loaded(pem, where), where)


def _loaded(pem: bytes, where: str) -> "RSAPublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise LocalIOError(f"{where} is no RSA key in PEM")
    return key


def _limit(key: "RSAPublicKey") -> int:
    """Tell how many bytes a key takes."""
    return key.key_size // 8 - PADDING_BYTES


def _encrypted(text: str, key: "RSAPublicKey", where: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import padding

    data = key_files.encoded(text)
    if len(data) > (limit := _limit(key)):
        raise TargetDataError(f"the value is {len(data)} bytes long; {where} takes {limit}")
    try:
        code = base64.b64encode(key.encrypt(data, padding.PKCS1v15())).decode("ascii")
    except UnsupportedAlgorithm as exc:
        raise LocalIOError(_REFUSED) from exc
    return "".join(f"{code[start : start + LINE_LENGTH]}\n" for start in range(0, len(code), LINE_LENGTH))


@functools.lru_cache(maxsize=1)
def _private_key(pem: bytes) -> "RSAPrivateKey | None":
    """Load a private key; None if it is none. Each time that takes 50 ms, and target data have several secrets."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        # of this home, whose owner we trust: to look whether its primes are some takes 30 ms, a fifth of a start
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        return None
    return key if isinstance(key, rsa.RSAPrivateKey) else None


def _read(path: Path) -> bytes:
    try:
        with files.open_read(path, is_followed=True) as file:
            return file.read()
    except FileNotFoundError as exc:
        raise MissingFileError(f"there is no {path}", hint=KEYGEN_HINT) from exc
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (ValueError, binascii.Error):  # ValueError: not ASCII
        return b""


def _pem(key: "RSAPublicKey") -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
