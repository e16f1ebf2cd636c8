"""The token in the keyring of the user's desktop: GNOME's, KDE's or another Secret Service, by libsecret's secret-tool.

The token is under the URL of its server, so that no other gets it. What the keyring asks for, such as its password,
it asks the user for itself.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ConfigError
from clouduploader.store import token_file

PROGRAM = "secret-tool"
ATTRIBUTES = ("service", "clouduploader", "server")  # and the URL
PLACE = "the keyring"
ANSWER_SECONDS = 120.0  # the user may have to unlock it


def read(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the token for a server; None if there is none, or no keyring.

    Args:
        url: Of the server, as it is shown.
        environment: The process's: tells where the keyring is.

    Raises:
        ConfigError: What is there is no token, or the keyring does not answer.
    """
    program = shutil.which(PROGRAM)
    if program is None or not _has_bus(environment):
        return None
    try:
        done = subprocess.run(
            [program, "lookup", *ATTRIBUTES, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{PLACE} does not answer", hint="CLOUDUPLOADER_TOKEN goes before it.") from None
    except OSError as exc:
        raise ConfigError(f"{PLACE} can't be asked by {program}: {exc.strerror}") from exc
    if done.returncode or not done.stdout:
        return None
    return token_file.check(done.stdout.decode("ascii", "replace"), PLACE)


def _has_bus(environment: Mapping[str, str]) -> bool:
    """Return whether the user has a session, where a keyring could be."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    return bool(environment.get("DBUS_SESSION_BUS_ADDRESS") or (runtime and (Path(runtime) / "bus").exists()))
