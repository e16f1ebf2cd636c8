"""The key pairs in the home, for `keygen`, `pubkey` and `encrypt`."""

from clouduploader.cli.session import Session
from clouduploader.store.keyring import Keyring
from clouduploader.store.keyring.gpg import GpgKeys
from clouduploader.store.keyring.rsa import RsaKeys


def own_keys(session: Session, *, is_rsa: bool) -> GpgKeys | RsaKeys:
    """Return the RSA key pair that OBS encrypts for, or the GPG key pair."""
    keyring = Keyring(session.config.home.value, session.config.environment)
    return keyring.rsa if is_rsa else keyring.gpg
