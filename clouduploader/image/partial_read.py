"""Read a few parts of a raw disk, by random access or from a stream."""

from collections.abc import Callable, Iterator
from typing import Protocol

from clouduploader.errors import ImageError
from clouduploader.image.raw_disk import RawDisk

REACH_BYTES = 1 << 28  # ours: how far a stream is read for what is there; unpacking as much takes seconds
MAX_BYTES = 512 << 20  # ours: unpacked in all, beginning again included; some seconds


class TooFarError(ImageError):
    """What is wanted lies too far from the beginning of a stream."""


class PartialReader(Protocol):
    """A raw disk of which a few parts are wanted; for one thread.

    Attributes:
        size_bytes: Of the disk; None if that is known only at its end, and what lies far behind is not read.
    """

    size_bytes: int | None

    def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on; fewer where the disk ends.

        Going back may unpack again from the beginning.

        Raises:
            ImageError: It is damaged.
            TooFarError: Too much would have to be unpacked.
            LocalIOError: It can't be read.
        """


class RawDiskReader:
    """A PartialReader by random access."""

    def __init__(self, disk: RawDisk) -> None:
        self.size_bytes: int | None = disk.size_bytes
        self._disk = disk

    def read_at(self, offset: int, size: int) -> bytes:
        """See PartialReader."""
        data = bytearray(max(min(size, self._disk.size_bytes - offset), 0))
        self._disk.read_into(offset, memoryview(data))
        return bytes(data)


class StreamReader:
    """A PartialReader of a stream.

    Args:
        begin: Returns the pieces of the disk from its beginning.
        filename: Names it in errors.
    """

    def __init__(self, begin: Callable[[], Iterator[bytes]], filename: str) -> None:
        self.size_bytes: int | None = None
        self._begin = begin
        self._filename = filename
        self._pieces: Iterator[bytes] = iter(())
        self._piece = b""
        self._offset = 0  # of the piece
        self._left_bytes = MAX_BYTES
        self._is_begun = False

    def read_at(self, offset: int, size: int) -> bytes:
        """See PartialReader."""
        if offset + size > REACH_BYTES:
            raise self._too_far(REACH_BYTES)
        if not self._is_begun or offset < self._offset:
            self._pieces, self._piece, self._offset, self._is_begun = self._begin(), b"", 0, True
        found = bytearray()
        while True:
            start = offset + len(found) - self._offset
            found += self._piece[start : start + size - len(found)]
            if len(found) == size:
                return bytes(found)
            piece = next(self._pieces, b"")
            if not piece:
                return bytes(found)
            self._offset += len(self._piece)
            self._piece = piece
            self._left_bytes -= len(piece)
            if self._left_bytes < 0:
                raise self._too_far(MAX_BYTES)

    def _too_far(self, limit_bytes: int) -> TooFarError:
        return TooFarError(f"{self._filename} is not read further than {limit_bytes >> 20} MiB to see what is in it")
