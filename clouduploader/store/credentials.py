"""Secrets that a service manager hands to a service as files: systemd's `LoadCredential=`, a container's secrets.

CREDENTIALS_DIRECTORY names their directory (systemd.exec(5)), which other users can't look into; so nothing is said of
the modes of the files.
"""

from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ConfigError
from clouduploader.util import files

VARIABLE = "CREDENTIALS_DIRECTORY"
MAX_BYTES = 4096


def read(name: str, environment: Mapping[str, str]) -> str | None:
    """Return a secret without the white space around it; None if none of this name was handed over.

    Args:
        name: Of its file.
        environment: The process's.

    Raises:
        ConfigError: It can't be read.
    """
    directory = environment.get(VARIABLE)
    return read_file(Path(directory) / name) if directory else None


def read_file(path: Path) -> str | None:
    """Return the secret in a file without the white space around it; None if there is none.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        with files.open_read(path, is_followed=True) as file:
            return file.read(MAX_BYTES).decode().strip() or None
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"the secret in {path} can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        pass  # raised out here, for that exception carries the secret
    raise ConfigError(f"the secret in {path} is not UTF-8")
