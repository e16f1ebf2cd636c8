"""What a host sends of the upload of one job: its log, and its journal. Both are locked as long as the host has it."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from clouduploader.errors import LocalIOError
from clouduploader.store import spool
from clouduploader.store.journal.replica import JournalReplica
from clouduploader.util import files, privileges

MAX_LOG_BYTES = 1 << 27  # of a job, with all its tries; uploads write some KiB, a host may send what it likes
STALE_BYTES = 65_536  # in a job's log, of an attempt whose lease is over


class Intake:
    """The log and the journal of one attempt. One thread at a time.

    Args:
        log: The job's, locked; closed by `close`.
        log_start: Where in it the attempt's own lines begin.
        journal: Locked.
        stack: Closes both.
    """

    def __init__(self, log: BinaryIO, log_start: int, journal: JournalReplica, stack: contextlib.ExitStack) -> None:
        self.journal = journal
        self._log = log
        self._stack = stack
        size_bytes = os.fstat(log.fileno()).st_size
        self._taken = max(0, size_bytes - log_start)
        self._room_bytes = max(0, MAX_LOG_BYTES - size_bytes)

    def append_log(self, offset: int, data: bytes) -> int:
        """Append to the log what is new of it; what is beyond MAX_LOG_BYTES counts as sent, and is left out.

        Args:
            offset: Where the data begin, from the attempt's own first byte.
            data: Any bytes.

        Returns:
            How many bytes of this attempt are in the log, as far as the host has sent them. Less than `offset` if some
            are missing between, and nothing was appended then.

        Raises:
            LocalIOError: The log can't be written.
        """
        new = data[self._taken - offset :] if offset <= self._taken else b""
        try:
            while fitting := new[: self._room_bytes]:
                count = os.write(self._log.fileno(), fitting)
                self._taken += count
                self._room_bytes -= count
                new = new[count:]
        except OSError as exc:
            raise LocalIOError(f"the log of the job can't be written: {exc.strerror}") from exc
        self._taken += len(new)
        return min(self._taken, offset + len(data))

    def close(self) -> None:
        """Release both; again does nothing."""
        self._stack.close()


def open_intake(
    jobs: spool.Spool, name: str, *, state_dir: Path, key: str, log_start: int | None
) -> tuple[Intake, int]:
    """Open the log and the journal of a job that a host has.

    Args:
        jobs: The spool.
        name: The job; one that was killed meanwhile has its log in the archive.
        state_dir: Where the journals are.
        key: Of the journal.
        log_start: Where the attempt's own lines begin; None for the end, where a new attempt's do.

    Returns:
        Both, and where the attempt's lines begin.

    Raises:
        LockedError: Another upload has this journal, or it is being cleaned up.
        CannotCreateError, LocalIOError: One can't be opened.
    """
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(JournalReplica(state_dir, key))
        is_archived = jobs.is_archived(name)
        log = stack.enter_context(jobs.append_archived_log(name) if is_archived else jobs.open_log(name))
        if is_archived:
            files.try_lock(log.fileno())  # followers of the log see by it that more comes
        start = os.fstat(log.fileno()).st_size if log_start is None else log_start
        return Intake(log, start, journal, stack.pop_all()), start


def marked(label: str, data: bytes, room_bytes: int) -> bytes:
    """Return lines of a log, each with a label; as much as there is room for, with the last one cut off."""
    lines = b"".join(f"[{label}] ".encode() + line + b"\n" for line in data[:room_bytes].splitlines())
    return lines if len(lines) <= room_bytes else lines[: room_bytes - 1] + b"\n"


def append_lines(jobs: spool.Spool, name: str, lines: bytes) -> None:
    """Append to a job's log, which may be locked; without a log, or room for them, they are left out."""
    for path in (jobs.log_path(name), jobs.done_log_path(name)):
        with contextlib.suppress(OSError), privileges.as_owner(jobs.directory):
            descriptor = files.open_regular(path, os.O_WRONLY | os.O_APPEND)
            try:
                files.write_all(descriptor, lines)
            finally:
                os.close(descriptor)
            return
