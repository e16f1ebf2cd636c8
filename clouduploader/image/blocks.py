"""A raw disk as blocks of one size, from a stream or by random access."""

import bisect
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator

from clouduploader.errors import ImageError
from clouduploader.image.raw_disk import Extents, RawDisk
from clouduploader.model.disk import Block, ReadStats, ZeroBlocks
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen


class BlockMap:
    """The numbers of the blocks that parts of a disk lie in.

    Args:
        extents: The parts, sorted by their beginnings; they may overlap.
        block_bytes: Of one block.
    """

    def __init__(self, extents: Iterable[tuple[int, int]], block_bytes: int) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in extents:
            first, behind = start // block_bytes, -(-end // block_bytes)
            if self._ends and first <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], behind)
            else:
                self._starts.append(first)
                self._ends.append(behind)

    def __contains__(self, index: int) -> bool:
        """Return whether a part lies in this block."""
        place = bisect.bisect_right(self._starts, index)
        return place > 0 and index < self._ends[place - 1]

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers, ascending."""
        for start, end in zip(self._starts, self._ends, strict=True):
            yield from range(start, end)

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(self._ends) - sum(self._starts)


@frozen(kw_only=True)
class BlockOptions:
    """Options of a block source.

    Attributes:
        filename: Names the image in errors.
        block_bytes: Of one block.
        zero_blocks: What becomes of zeros.
        written: What was ever written, all else being true holes; None if that is not known.
        is_promise: Whether something in such a hole is an error. Otherwise it is data like all others.
        cancel: Honoured at each block.
        on_end: Called when all was read, with the statistics; may raise ImageError.
    """

    filename: str
    block_bytes: int
    zero_blocks: ZeroBlocks
    written: Extents | None
    is_promise: bool
    cancel: Cancel
    on_end: Callable[[ReadStats], None]


class _CountingSource:
    """The base of both sources: counts blocks, and raises one error in all threads."""

    def __init__(self, options: BlockOptions) -> None:
        self._options = options
        self._zeros = bytes(options.block_bytes)
        self._written = None if options.written is None else BlockMap(options.written, options.block_bytes)
        self._position = 0
        self._data = self._zero = self._holes = self._skipped = 0
        self._error: BaseException | None = None
        self._tally: ReadStats | None = None

    def _raise_if_over(self) -> None:
        """Raise an error that another thread had, or that a stop was requested."""
        if self._error:
            raise self._error
        self._options.cancel.raise_if_requested()

    def _is_unwritten(self, index: int) -> bool:
        return self._written is not None and index not in self._written

    def _judged(self, index: int, is_zero: bool) -> Block | None:
        """Count a block; None if it is not to be handed out.

        Raises:
            ImageError: It has something in it where a hole was promised.
        """
        if not is_zero:
            if self._options.is_promise and self._is_unwritten(index):
                raise ImageError(
                    f"{self._options.filename} is not what its .bmap describes: there is something in the hole at "
                    f"byte {index * self._options.block_bytes}",
                    hint="Remove the .bmap, or replace it by the image's own.",
                )
            self._data += 1
        elif self._options.zero_blocks is not ZeroBlocks.SEND and self._is_unwritten(index):
            self._holes += 1
            return None
        elif self._options.zero_blocks is ZeroBlocks.SKIP:
            self._skipped += 1
            return None
        else:
            self._zero += 1
        return Block(index, is_zero)

    def _ended(self, size_bytes: int, *, file_sha256: str | None, raw_sha256: str | None) -> ReadStats:
        stats = ReadStats(
            size_bytes=size_bytes,
            data_blocks=self._data,
            zero_blocks=self._zero,
            hole_blocks=self._holes,
            skipped_blocks=self._skipped,
            file_sha256=file_sha256,
            raw_sha256=raw_sha256,
        )
        self._options.on_end(stats)
        return stats

    def position(self) -> int:
        """See BlockSource."""
        return self._position

    def stats(self) -> ReadStats:
        """See BlockSource."""
        if self._tally is None:
            raise ValueError("the image has not been read to its end")
        return self._tally


class StreamBlockSource(_CountingSource):
    """A BlockSource of a disk that comes in order, and only once.

    Args:
        pieces: The disk, in pieces of any size. It is advanced by whichever thread asks for a block.
        options: See BlockOptions.
        digest: To be made of the raw disk, or None.
        file_sha256: Called at the end: gives the file's digest in hex, or None.
    """

    can_reread = False

    def __init__(
        self,
        pieces: Iterator[bytes],
        options: BlockOptions,
        *,
        digest: "hashlib._Hash | None",
        file_sha256: Callable[[], str | None],
    ) -> None:
        super().__init__(options)
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._file_sha256 = file_sha256
        self._digest = digest
        self._lock = threading.Lock()

    def next_into(self, buffer: bytearray) -> Block | None:
        """See BlockSource."""
        while True:  # a stop is looked for at each block: those that are left out can be millions
            with self._lock:
                self._raise_if_over()
                try:
                    block = self._advance(buffer)
                except BaseException as exc:
                    self._error = exc
                    raise
            if block or self._tally:
                return block

    def _advance(self, buffer: bytearray) -> Block | None:
        """Take the next block; None if it is not to be handed out, or there is none."""
        if self._tally:
            return None
        index = self._position // self._options.block_bytes
        size = self._fill(buffer)
        if size:
            self._position += size
            return self._judged(index, buffer == self._zeros)
        raw_sha256 = self._digest.hexdigest() if self._digest else None
        self._tally = self._ended(self._position, file_sha256=self._file_sha256(), raw_sha256=raw_sha256)
        return None

    def _fill(self, buffer: bytearray) -> int:
        """Fill a buffer; return how many bytes of it are the disk's."""
        size = 0
        with memoryview(buffer) as view:
            while size < len(view):
                if not self._rest:
                    self._rest = memoryview(next(self._pieces, b""))
                    if not self._rest:
                        break
                taken = self._rest[: len(view) - size]
                view[size : size + len(taken)] = taken
                self._rest = self._rest[len(taken) :]
                size += len(taken)
            if self._digest:
                self._digest.update(view[:size])
            view[size:] = bytes(len(view) - size)
        return size

    def reread_into(self, index: int, buffer: bytearray) -> None:
        """See BlockSource; never."""
        raise ValueError("what has been unpacked is gone")

    def close(self) -> None:
        """Wait for the thread that reads a block, and return none any more: the pieces may be closed then."""
        with self._lock:
            self._error = self._error or ValueError("the image is closed")


class DiskBlockSource(_CountingSource):
    """A BlockSource of a disk that can be read anywhere, so that several threads read at once.

    Args:
        disk: The disk.
        options: See BlockOptions; `written` is the disk's own extents, or what a map says.
        file_sha256: See StreamBlockSource.
    """

    can_reread = True

    def __init__(self, disk: RawDisk, options: BlockOptions, *, file_sha256: Callable[[], str | None]) -> None:
        super().__init__(options)
        self._file_sha256 = file_sha256
        self._disk = disk
        self._extents = BlockMap(disk.extents, options.block_bytes)
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_awaited = False  # whether a thread waits for blocks that are under way
        self._block_ended = threading.Condition(self._lock)
        total = -(-disk.size_bytes // options.block_bytes)
        if options.zero_blocks is ZeroBlocks.SEND or not disk.is_map_binding:
            self._indices = iter(range(total))
        else:
            # What is in neither is a hole of both. What was written and is not in the disk's extents was zeros.
            wanted = BlockMap(sorted((*disk.extents, *(options.written or ()))), options.block_bytes)
            self._holes = total - len(wanted)
            self._indices = iter(wanted)

    def next_into(self, buffer: bytearray) -> Block | None:
        """See BlockSource."""
        while True:
            with self._lock:
                self._raise_if_over()
                index = next(self._indices, None)
                if index is None:
                    self._end()
                    return None
                self._position = min((index + 1) * self._options.block_bytes, self._disk.size_bytes)
                self._under_way += 1
            try:
                is_zero = self._is_hole(index) or self._is_read_as_zeros(index, buffer)
                with self._lock:
                    block = self._judged(index, is_zero)
            except BaseException as exc:
                self._error = exc  # before the end can be seen
                raise
            finally:
                with self._lock:
                    self._under_way -= 1
                    if self._is_awaited:
                        self._block_ended.notify_all()
            if block:
                return block

    def _end(self) -> None:
        """Wait for threads that still read: they may have an error."""
        self._await(lambda: not self._under_way or self._error)
        if self._error:
            raise self._error
        self._position = self._disk.size_bytes
        try:
            self._tally = self._ended(self._disk.size_bytes, file_sha256=self._file_sha256(), raw_sha256=None)
        except BaseException as exc:
            self._error = exc
            raise

    def _await(self, is_met: Callable[[], object]) -> None:
        self._is_awaited = True
        self._block_ended.wait_for(is_met)

    def close(self) -> None:
        """Wait for all threads that read a block, and return none any more: the disk may be closed then."""
        with self._lock:
            self._error = self._error or ValueError("the image is closed")
            self._await(lambda: not self._under_way)

    def _is_hole(self, index: int) -> bool:
        if index in self._extents:
            return False
        offset, size = index * self._options.block_bytes, self._options.block_bytes
        return self._disk.is_map_binding or self._disk.is_hole(offset, min(size, self._disk.size_bytes - offset))

    def _is_read_as_zeros(self, index: int, buffer: bytearray) -> bool:
        self.reread_into(index, buffer)
        return buffer == self._zeros

    def reread_into(self, index: int, buffer: bytearray) -> None:
        """See BlockSource."""
        offset = index * self._options.block_bytes
        size = min(len(buffer), self._disk.size_bytes - offset)
        with memoryview(buffer)[:size] as view:
            self._disk.read_into(offset, view)
        buffer[size:] = bytes(len(buffer) - size)
