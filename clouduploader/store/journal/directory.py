"""The directory of one journal: which files it has, and the bytes of its entries."""

import os
from pathlib import Path

from clouduploader.store.journal.entries import is_key

FILE_NAME = "journal"
TARGETDATA_NAME = "targetdata"
PLATFORM_NAME = "platform"
MAX_READ_BYTES = 1 << 26  # an upload writes some 20 KB; ten regions and a hundred attempts stay below


def other_files(directory: Path) -> list[Path]:
    """Return what there is of a journal besides its entries; nothing that we may not see."""
    try:
        return [path for path in directory.iterdir() if path.name != FILE_NAME]
    except OSError:
        return []


def keys(state_dir: Path) -> list[str]:
    """Return the keys of all journals in a state directory, sorted; none if it can't be read."""
    try:
        return sorted(path.name for path in state_dir.iterdir() if is_key(path.name))
    except OSError:
        return []


def read_bytes(descriptor: int) -> bytes:
    """Return the content of an open journal, MAX_READ_BYTES at most; the position stays."""
    size_bytes = min(os.fstat(descriptor).st_size, MAX_READ_BYTES)
    data = bytearray()
    while len(data) < size_bytes and (piece := os.pread(descriptor, size_bytes - len(data), len(data))):
        data += piece
    return bytes(data)
