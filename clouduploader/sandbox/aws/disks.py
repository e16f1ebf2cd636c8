"""What is on the disks of the account: a sparse file for each volume and each snapshot."""

import os
import shutil
from pathlib import Path

BLOCK_BYTES = 524288  # of the EBS direct APIs, which know no other
GARBAGE = b"Never written. ".ljust(16, b"\xa5") * (BLOCK_BYTES // 16)


def as_encrypted(content: bytes, written: set[int]) -> bytes:
    """Make of a snapshot's content what an encrypted volume that was made from it shows.

    There a block that was never written reads as garbage, not as zeros (coldsnap issues 395 and 470).

    Args:
        content: From its beginning.
        written: The blocks that were written.
    """
    pieces = [content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES)]
    return b"".join(piece if index in written else GARBAGE[: len(piece)] for index, piece in enumerate(pieces))


class Disks:
    """The contents of volumes and snapshots.

    A file exists once something was written. Snapshots are hard links: before a volume is written to
    whose file has another name, it must be copied (see `tools`).

    Args:
        directory: Holds ID.raw, and for a volume with partitions ID.parts/.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def content(self, object_id: str) -> Path:
        """Return where the bytes of a volume or snapshot are, or would be."""
        return self._directory / f"{object_id}.raw"

    def partitions(self, volume_id: str) -> Path:
        """Return where the directory of the file systems is, if the volume has partitions; `1` is the first."""
        return self._directory / f"{volume_id}.parts"

    def link(self, source_id: str, new_id: str) -> None:
        """Make a snapshot of a volume, or a volume of a snapshot."""
        if self.content(source_id).exists():
            os.link(self.content(source_id), self.content(new_id))

    def delete(self, object_id: str) -> None:
        """Forget a volume or snapshot; it need not have been written to."""
        self.content(object_id).unlink(missing_ok=True)
        shutil.rmtree(self.partitions(object_id), ignore_errors=True)
