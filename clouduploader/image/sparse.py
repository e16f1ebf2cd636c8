"""Which parts of a disk hold data by somebody's books; all else is a true hole, which was never written."""

import errno
import os

from clouduploader.errors import LocalIOError

Extents = tuple[tuple[int, int], ...]
"""The parts with data as (start, end) in bytes: sorted, disjoint, none empty, none touching the next."""

MAX_EXTENTS = 1 << 18  # ours: some 30 MB; a map that has more is cut short, and the rest counts as data


def of_file(fd: int, size_bytes: int) -> Extents:
    """Ask the file system where a file has data; lseek(2), SEEK_DATA and SEEK_HOLE.

    A file system that keeps no such books calls the whole file data.

    Args:
        fd: Open for reading; its position is moved.
        size_bytes: Of the file; what lies behind is left out.

    Raises:
        LocalIOError: It can't be asked.
    """
    found: list[tuple[int, int]] = []
    end = 0
    try:
        while end < size_bytes:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                break  # a hole up to the end
            if start >= size_bytes:
                break
            is_last = len(found) == MAX_EXTENTS - 1
            end = size_bytes if is_last else min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
            found.append((start, end))
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise LocalIOError(f"the holes of the image can't be found: {exc.strerror}") from exc
        return everything(size_bytes)
    return tuple(found)


def everything(size_bytes: int) -> Extents:
    """A disk without holes."""
    return ((0, size_bytes),) if size_bytes else ()
