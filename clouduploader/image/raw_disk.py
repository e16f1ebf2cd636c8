"""A raw disk that can be read anywhere, by several threads at once, and where it holds data."""

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from typing import Protocol

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.util.arrival import Arrival

Extents = tuple[tuple[int, int], ...]
"""The parts with data as (start, end) in bytes: sorted, disjoint, none empty, none touching the next."""

MAX_EXTENTS = 1 << 18  # ours: some 30 MB; a map that has more is cut short, and the rest counts as data


class RawDisk(Protocol):
    """A raw disk that can be read anywhere.

    Attributes:
        size_bytes: Of the raw disk.
        extents: Where there are data; all else is a true hole, and reads as zeros.
        is_map_binding: Whether that is so by the disk's own format. Otherwise a file system says so, and may err: some
            have called data a hole (openzfs issue 15526, for one), so that only `is_hole` decides.
    """

    size_bytes: int
    is_map_binding: bool

    @property
    def extents(self) -> Extents:
        """See above; the first use may take a while, and raise ImageError."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a view, which must lie inside the disk, with what begins there. Several threads may call it.

        Raises:
            ImageError: The disk is shorter than it was.
            LocalIOError: It can't be read.
        """

    def is_hole(self, offset: int, size: int) -> bool:
        """Return whether a part that lies outside the extents is zeros. Several threads may call it.

        Raises:
            ImageError: The disk is shorter than it was.
            LocalIOError: It can't be read.
        """


class RawFile:
    """The beginning of a file as a RawDisk.

    Holes are read past the page cache (O_DIRECT): through it each would be zeroed, mapped and copied in memory, which
    takes a hundred times as long, and would evict other pages.

    Args:
        fd: Open for reading for as long as this is used.
        size_bytes: How much of the file is the disk.
        extents: See RawDisk.
        filename: Names it in errors.
        arrival: Tells how much of the file is there; None for all of it.
    """

    is_map_binding = False

    def __init__(
        self, fd: int, size_bytes: int, extents: Extents, filename: str, arrival: Arrival | None = None
    ) -> None:
        self.size_bytes = size_bytes
        self.extents = extents
        self._fd = fd
        self._filename = filename
        self._arrival = arrival
        self._own = threading.local()  # its buffer
        try:
            self._direct: int | None = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:  # its file system has no such thing
            self._direct = None

    def close(self) -> None:
        """Close what this object has opened; no reads after that."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def is_hole(self, offset: int, size: int) -> bool:
        """See RawDisk."""
        buffer = getattr(self._own, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._own.buffer = mmap.mmap(-1, size)  # aligned, as open(2) demands for O_DIRECT
            self._own.zeros = bytearray(size)
        with memoryview(buffer)[:size] as view:
            if not self._is_read_directly(offset, view):
                self.read_into(offset, view)
            zeros = self._own.zeros
            return bool(
                (zeros if len(zeros) == size else bytearray(size)) == view
            )  # the comparison of bytearray is memcmp

    def _is_read_directly(self, offset: int, view: memoryview) -> bool:
        if self._direct is None:
            return False
        try:
            return os.preadv(self._direct, [view], offset) == len(view)
        except OSError:  # of another alignment; what else there may be comes up again without
            return False

    def read_into(self, offset: int, view: memoryview) -> None:
        """See RawDisk."""
        if self._arrival:
            self._arrival.wait(offset, offset + len(view))
        while view:
            try:
                size = os.preadv(self._fd, [view], offset)
            except OSError as exc:
                raise LocalIOError(
                    f"the image {self._filename} can't be read at byte {offset}: {exc.strerror}"
                ) from exc
            if not size:
                raise ImageError(f"{self._filename} became shorter while it was read: it ends at byte {offset}")
            view = view[size:]
            offset += size


def read_pieces(disk: RawDisk, piece_bytes: int) -> Iterator[bytes]:
    """Yield all of a disk in order; all holes are the same object.

    Raises:
        ImageError: See RawDisk.
        LocalIOError: See RawDisk.
    """
    zeros = bytes(piece_bytes)
    end = 0
    for start, data_end in (*disk.extents, (disk.size_bytes, disk.size_bytes)):
        for offset in range(end, start, piece_bytes):
            size = min(piece_bytes, start - offset)
            is_hole = disk.is_map_binding or disk.is_hole(offset, size)
            yield zeros[:size] if is_hole else _read(disk, offset, size)
        for offset in range(start, data_end, piece_bytes):
            yield _read(disk, offset, min(piece_bytes, data_end - offset))
        end = data_end


def _read(disk: RawDisk, offset: int, size: int) -> bytes:
    piece = bytearray(size)
    disk.read_into(offset, memoryview(piece))
    return bytes(piece)


def file_extents(fd: int, size_bytes: int) -> Extents:
    """Ask the file system where a file has data; lseek(2), SEEK_DATA and SEEK_HOLE.

    A file system that does not know its holes calls the whole file data.

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
        return without_holes(size_bytes)
    return tuple(found)


def without_holes(size_bytes: int) -> Extents:
    """Return a disk without holes."""
    return ((0, size_bytes),) if size_bytes else ()
