"""The directory of one journal: which files it has, the bytes of its entries, and what is not needed any more."""

import contextlib
import os
from pathlib import Path

from clouduploader.store.journal.entries import JournalState, is_key
from clouduploader.util import files, privileges

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


def tidy(directory: Path, state: JournalState) -> None:
    """Remove target data and the platform's files, unless they may be needed.

    Where the disk does not let us, they stay until the next try, or until the journal goes.

    Args:
        directory: Of the journal, which the caller has locked.
        state: What all of its entries come to.
    """
    if state.is_open:
        return
    is_repeatable = state.is_by_hand and not state.has_succeeded
    with privileges.as_owner(directory), contextlib.suppress(OSError):
        for path in other_files(directory):
            if not (is_repeatable and path.name == TARGETDATA_NAME):
                files.remove_tree(path)


def keep_targetdata(directory: Path, data: bytes) -> None:
    """Write the target data of a try.

    Raises:
        OSError: They can't be written.
    """
    with privileges.as_owner(directory):
        files.replace_file(directory / TARGETDATA_NAME, data, mode=files.PRIVATE_MODE)


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
