"""The content of a page blob or of a managed disk: a sparse file, and where something was written."""

from collections.abc import Iterator
from pathlib import Path

PAGE_BYTES = 512
FOOTER_BYTES = 512
PIECE_BYTES = 1 << 20


class PageFile:
    """Pages on disk.

    Args:
        path: Of the file; made.
        size_bytes: Of all of it; it begins as zeros.

    Attributes:
        path: As given.
        size_bytes: As given.
        ranges: Where something was written: first byte and the one behind the last, ascending, none touching another.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.ranges: list[tuple[int, int]] = []
        with path.open("xb") as file:
            file.truncate(size_bytes)

    def write(self, offset: int, data: bytes) -> None:
        """Write whole pages."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self._mark(offset, offset + len(data), is_written=True)

    def clear(self, offset: int, size: int) -> None:
        """Make whole pages zeros again."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(size))
        self._mark(offset, offset + size, is_written=False)

    def read(self, offset: int, size: int) -> bytes:
        """Read some bytes."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def vhd_problem(self) -> str | None:
        """Say why this is no fixed VHD that Azure takes; None if it is one."""
        disk_bytes = self.size_bytes - FOOTER_BYTES
        footer = self.read(disk_bytes, FOOTER_BYTES)
        if not footer.startswith(b"conectix"):
            return "The specified cookie value in VHD footer indicates that disk is not a supported VHD."
        if int.from_bytes(footer[60:64], "big") != 2:
            return "Only fixed VHDs are supported."
        if int.from_bytes(footer[64:68], "big") != ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF:
            return "The checksum of the VHD footer is wrong."
        if int.from_bytes(footer[48:56], "big") != disk_bytes or disk_bytes % (1 << 20):
            return "The size of the VHD is not a whole number of MBs, or not that of its footer."
        return None

    def _mark(self, start: int, end: int, *, is_written: bool) -> None:
        kept = [
            piece
            for first, last in self.ranges
            for piece in ((first, min(last, start)), (max(first, end), last))
            if piece[0] < piece[1]
        ]
        self.ranges = list(_joined(sorted([*kept, (start, end)] if is_written else kept)))


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join those that touch."""
    last: tuple[int, int] | None = None
    for start, end in ranges:
        if last and start <= last[1]:
            last = (last[0], max(last[1], end))
        else:
            if last:
                yield last
            last = (start, end)
    if last:
        yield last
