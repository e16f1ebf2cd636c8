"""The home of clouduploader: which of its files hold secrets, and whether other users can read them."""

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from clouduploader.plugin import HomeFile

DATABASE = "database"
EARLIER = ("accounts.sqlite", "tokens.sqlite")
ACCOUNTS, TOKENS = (f"{DATABASE}/{name}" for name in EARLIER)
TOKEN = "token"  # noqa: S105 a name
OPENID_SECRET = "openid-secret"  # noqa: S105 a name
BROKER_PASSWORD = "broker-password"  # noqa: S105 a name
FORBIDDEN = {
    ".gnupg": stat.S_IROTH,
    "secret.pem": stat.S_IROTH,
    OPENID_SECRET: stat.S_IROTH,
    BROKER_PASSWORD: stat.S_IROTH,
    **dict.fromkeys((DATABASE, *EARLIER, ACCOUNTS, TOKENS), stat.S_IRWXG | stat.S_IRWXO),
    TOKEN: stat.S_IRWXG | stat.S_IRWXO,
}
"""What holds secrets, and the permissions that it must not have. An administrator may let a group read a file that
was put there by hand, as those of platforms are; what only clouduploader writes is for its owner alone. The databases
may still lie where earlier versions had them."""


def exposed(home: Path, files: Iterable[HomeFile]) -> Iterator[Path]:
    """Find secrets that others on this machine can read; OBS's package installs them like that.

    What is not there, or can't be looked at, is not exposed.

    Args:
        home: The directory.
        files: Those that platforms read there.
    """
    platforms_own = {file.path: stat.S_IROTH for file in files if file.is_secret}
    for name, forbidden in (platforms_own | FORBIDDEN).items():
        path = home / name
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if mode & forbidden:
            yield path


def is_strange(home: Path) -> bool:
    """Tell whether the accounts belong to another user than the home, so that the daemons can't use them."""
    for name in (ACCOUNTS, EARLIER[0]):
        try:
            return (home / name).stat().st_uid != home.stat().st_uid
        except OSError:
            continue
    return False
