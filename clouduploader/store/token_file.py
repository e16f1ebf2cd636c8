"""The file with the token that the client sends: `token` in the home, for its owner alone."""

import os
import stat
from pathlib import Path

from clouduploader.errors import ConfigError
from clouduploader.store import home as home_files
from clouduploader.store.tokens import token_id
from clouduploader.util import files, masking

MAX_BYTES = 1024  # a token has 51


def read(home: Path) -> str | None:
    """Return the token of a home; None if there is no file.

    Raises:
        ConfigError: Other users can read the file or change it, it can't be read, or it holds no token.
    """
    path = home / home_files.TOKEN
    try:
        with files.open_read(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"the token in {path} can't be read: {exc.strerror}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"other users can get at the token in {path} (mode {mode:04o})",
            hint=f"Revoke it, make another, and `chmod 600 {path}`.",
        )
    return check(data.decode("ascii", "replace"), str(path))


def check(text: str, place: str) -> str:
    """Return a token without the white space around it; no log shows it from now on.

    Args:
        text: What stands in its place.
        place: Where that is.

    Raises:
        ConfigError: It is none.
    """
    token = text.strip()
    if token_id(token) is None:
        raise ConfigError(f"{place} holds no token, or not all of one")
    masking.hide(token)
    return token
