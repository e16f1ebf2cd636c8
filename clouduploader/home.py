"""The home of clouduploader: which of its files hold secrets, and who can read them."""

import stat
from collections.abc import Iterator
from pathlib import Path

SECRETS = (".aws/credentials", ".gnupg", "secret.pem", "accounts.sqlite")
"""What must be readable by nobody but its owner, and a group that the admin chose."""


def exposed(home: Path) -> Iterator[Path]:
    """Find secrets that everybody on this machine can read; OBS's package installs them like that.

    What is not there, or can't be looked at, is not exposed.
    """
    for name in SECRETS:
        path = home / name
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IROTH:
            yield path
