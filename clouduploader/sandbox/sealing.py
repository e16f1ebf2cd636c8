"""Secrets in a sandbox's home and spool are encrypted, as a service has them."""

import os
from pathlib import Path

from clouduploader.errors import MissingFileError
from clouduploader.store import keyring


def encrypt(home: Path, text: str) -> str:
    """Encrypt for the key of a home, which is made if there is none."""
    keys = keyring.Keyring(home, os.environ)
    try:
        return keys.encrypt(text)
    except MissingFileError:
        keys.gpg.generate()
        return keys.encrypt(text)
