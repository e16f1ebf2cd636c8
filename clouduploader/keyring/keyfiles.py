"""How key files come into the home: whole or not at all, never over others, and for their owner only."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError


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
    with creating(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                _secure(descriptor, mode=mode, home=path.parent)
            os.link(name, path)  # unlike a rename it refuses to overwrite
        finally:
            Path(name).unlink()
        sync(path.parent)


def secure_tree(top: Path, *, home: Path) -> None:
    """Make a directory and all in it private (0700, 0600), its owner's, and safe on disk."""
    for _path, _directories, names, directory in os.fwalk(top, topdown=False):
        for name in names:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                _secure(descriptor, mode=0o600, home=home)
            finally:
                os.close(descriptor)
        _secure(directory, mode=0o700, home=home)


def _secure(descriptor: int, *, mode: int, home: Path) -> None:
    """Set mode and owner, and wait until it is on disk.

    Root makes keys for the worker, who runs as the one to whom the home belongs (obsrun, say);
    OBS's guide forgets this, and the worker then can't read them. By descriptor: that one could
    exchange a path against a link while root works.
    """
    os.fchmod(descriptor, mode)
    if os.geteuid() == 0:
        owner = home.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    os.fsync(descriptor)


def sync(path: Path) -> None:
    """Wait until a file, or a directory's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
