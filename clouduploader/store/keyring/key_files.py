"""Write key files into the home: whole or not at all, never over others, and for their owner only.

Root makes keys for the worker, which runs as the owner of the home (obsrun, say); OBS's guide forgets this, and the
worker then can't read them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError, TargetDataError
from clouduploader.util import files, privileges


@contextlib.contextmanager
def creating(path: Path) -> Iterator[None]:
    """Turn what the operating system says in the block into an error about this path.

    Raises:
        CannotCreateError: Something of that name is there, or it can't be made.
    """
    try:
        yield
    except FileExistsError as exc:
        raise CannotCreateError(
            f"{path} is there already",
            hint="Move it away first; what was encrypted for it can't be read without it.",
        ) from exc
    except OSError as exc:
        raise CannotCreateError(f"{path} can't be made: {exc.strerror}") from exc


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Make a file that must not be there yet; it appears with all its bytes.

    Raises:
        CannotCreateError: It is there, or it can't be made.
    """
    with creating(path), privileges.as_owner(path.parent):
        files.create_file(path, data, mode=mode)


def encoded(text: str) -> bytes:
    """Return the bytes of a text that is to be encrypted.

    Raises:
        TargetDataError: It has half of a surrogate pair in it, as JSON can.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass  # raised out here, for that exception carries the text
    raise TargetDataError("what is to be encrypted has something in it that is no character")
