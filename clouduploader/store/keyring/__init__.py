"""The keys in the home: GPG's in `.gnupg`, and OBS's RSA pair `secret.pem` and `_pubkey`.

The only user of gnupg and of cryptography. Keys have no passphrase, for a job runs
unattended; what guards them is their mode. Plain text is never part of an exception, nor
of one that it came from.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from clouduploader.errors import (
    ClouduploaderError,
    LocalIOError,
    MissingFileError,
    MissingProgramError,
    TargetDataError,
)
from clouduploader.plugin import Finding, Level
from clouduploader.store.keyring.gpg import GpgKeys
from clouduploader.store.keyring.rsa import RsaKeys, encrypt_for

__all__ = ["Keyring", "encrypt_for"]


class Keyring:
    """The keys of one home. Making one touches nothing.

    Args:
        home: The home of clouduploader.
        environment: PATH is used to find gpg; nothing else of it reaches gpg.

    Attributes:
        gpg: For armored PGP messages.
        rsa: For OBS's form of secrets. The two answer to the same calls.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.gpg = GpgKeys(home, environment)
        self.rsa = RsaKeys(home)

    def encrypt(self, text: str) -> str:
        """Encrypt for a key of this home: as OBS does if there is its key and it takes the text, else for the GPG key.

        Raises:
            MissingFileError: There is no key.
            ClouduploaderError: See `RsaKeys.encrypt` and `GpgKeys.encrypt`.
        """
        return (self.rsa if self.rsa.public_path.exists() and self.rsa.takes(text) else self.gpg).encrypt(text)

    def decrypt(self, value: str) -> str:
        """Decrypt what `encrypt` made here.

        Raises:
            ClouduploaderError: See `RsaKeys.decrypt` and `GpgKeys.decrypt`.
        """
        return self.rsa.decrypt(value) if self.rsa.is_encrypted(value) else self.gpg.decrypt(value.lstrip())

    def sealed(self, text: str) -> str:
        """Encrypt for a key of this home, if it has one that can be used and takes the text; else give it as it is."""
        try:
            return self.encrypt(text)
        except ClouduploaderError:
            return text

    def findings(self) -> Iterator[Finding]:
        """Look whether the keys can be used; it is fine to have none, for not every target has secrets."""
        try:
            self.gpg.public_key()
            yield Finding(Level.OK, str(self.gpg.path), "has a key pair for encrypted target data")
        except MissingFileError as exc:
            yield Finding(Level.OK, str(self.gpg.path), "no key pair; only needed for encrypted data", exc.hint)
        except (LocalIOError, MissingProgramError) as exc:
            yield Finding(Level.WARNING, str(self.gpg.path), exc.message, exc.hint)
        try:
            if not self.rsa.is_there():
                return
            self.rsa.check_pair()
            yield Finding(Level.OK, str(self.rsa.secret_path), f"matches {self.rsa.public_path.name}")
        except (LocalIOError, MissingFileError, TargetDataError) as exc:
            yield Finding(Level.FAILURE, str(self.rsa.secret_path), exc.message, exc.hint)
