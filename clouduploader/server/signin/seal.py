"""Sign what clients keep for this server, with a key that never leaves it."""

import base64
import contextlib
import functools
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clouduploader.server.replies import RefusalError
from clouduploader.util import files, privileges

DIRECTORY_NAME = ".sessions"  # in the spool
KEY_NAME = "key"
KEY_BYTES = 64
ALGORITHM = "HS256"


class Seal:
    """Signs documents as JSON Web Tokens (RFC 7519).

    Args:
        spool: Its directory, in which the key is made at the first use. With it one could sign in as any user.
    """

    def __init__(self, spool: Path) -> None:
        self._directory = spool / DIRECTORY_NAME

    def sign(self, purpose: str, document: Mapping[str, Any]) -> str:
        """Return a document, signed for one purpose. It can be read without the key."""
        import jwt

        return jwt.encode({**document, "aud": purpose}, self._key, algorithm=ALGORITHM)

    def read(self, purpose: str, text: str) -> dict[str, Any] | None:
        """Return a document that was signed for this purpose; None if it was not, or was changed."""
        import jwt

        try:
            options: Any = {"require": ["aud"]}
            return jwt.decode(text, self._key, algorithms=[ALGORITHM], audience=purpose, options=options)
        except (jwt.InvalidTokenError, UnicodeEncodeError):  # the second: bytes that are no text came in the cookie
            return None

    def derive(self, purpose: str, text: str) -> str:
        """Return a secret that belongs to a text: 43 letters, digits, `-` and `_`, which need the key."""
        digest = hmac.digest(self._key, f"{purpose}:{text}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @functools.cached_property
    def _key(self) -> bytes:
        path = self._directory / KEY_NAME
        try:
            with privileges.as_owner(self._directory.parent):
                files.make_directory(self._directory, mode=files.PRIVATE_DIRECTORY_MODE)
                with contextlib.suppress(FileExistsError):  # an earlier server made it: its sessions go on
                    files.create_file(path, secrets.token_bytes(KEY_BYTES), mode=files.PRIVATE_MODE)
                with files.open_read(path) as file:
                    key = file.read(KEY_BYTES + 1)
        except OSError as exc:
            raise RefusalError(f"the key of sessions can't be read or made: {exc.strerror}", status=500) from exc
        if len(key) != KEY_BYTES:
            raise RefusalError(f"{DIRECTORY_NAME}/{KEY_NAME} in the spool is no key of sessions", status=500)
        return key
