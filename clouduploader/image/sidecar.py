"""Files beside an image that are about it: `FILE.sha256`, `FILE.bmap`."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from clouduploader.errors import ImageError, LocalIOError


def find(image_path: Path, names: Sequence[str]) -> Path | None:
    """Find the first of these names beside an image, or beside the target if the image is a link."""
    directories = dict.fromkeys((image_path.parent.absolute(), Path(os.path.realpath(image_path)).parent))
    paths = (directory / name for directory in directories for name in names)
    return next(filter(_is_file, paths), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, or the directory closed to us
        return False


def read(path: Path, max_bytes: int) -> bytes:
    """Read a small file whole.

    Raises:
        ImageError: It is larger than `max_bytes`, or no regular file.
        LocalIOError: It can't be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 a pipe would block
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(f"{path} is not a regular file")
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    if len(data) > max_bytes:
        raise ImageError(f"{path} has more than {max_bytes} bytes")
    return data
