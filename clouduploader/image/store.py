"""A raw disk that can be read anywhere, by several threads at once."""

import os
from collections.abc import Iterator
from typing import Protocol

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.image.holes import Extents


class Store(Protocol):
    """A raw disk that can be read anywhere.

    Attributes:
        size_bytes: Of the raw disk.
        extents: Where there are data; all else is a true hole, and reads as zeros.
    """

    size_bytes: int

    @property
    def extents(self) -> Extents:
        """See above; the first time it may take a while, and raise ImageError."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a view, which must lie inside the disk, with what begins there. Several threads may call it.

        Raises:
            ImageError: The disk is shorter than it was.
            LocalIOError: It can't be read.
        """


class FileStore:
    """The beginning of a file as a store.

    Args:
        fd: Open for reading for as long as this is used.
        size_bytes: How much of the file is the disk.
        extents: See Store.
        filename: Names it in errors.
    """

    def __init__(self, fd: int, size_bytes: int, extents: Extents, filename: str) -> None:
        self.size_bytes = size_bytes
        self.extents = extents
        self._fd = fd
        self._filename = filename

    def read_into(self, offset: int, view: memoryview) -> None:
        """See Store."""
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


def pieces_of(store: Store, piece_bytes: int) -> Iterator[bytes]:
    """All of a disk in order; holes are not read, and all of them give the same object.

    Raises:
        ImageError: See Store.
        LocalIOError: See Store.
    """
    zeros = bytes(piece_bytes)
    end = 0
    for start, stop in (*store.extents, (store.size_bytes, store.size_bytes)):
        for offset in range(end, start, piece_bytes):
            yield zeros if start - offset >= piece_bytes else zeros[: start - offset]
        for offset in range(start, stop, piece_bytes):
            piece = bytearray(min(piece_bytes, stop - offset))
            store.read_into(offset, memoryview(piece))
            yield bytes(piece)
        end = stop
