"""Bring the log and the journal of an attempt to the server, as they grow.

The server has what another host needs to go on: before the uploader does what its journal tells of, the journal is
there. The files of the platform go first, for the journal may speak of them.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.cluster import protocol
from clouduploader.errors import LocalIOError, PlatformReplyError
from clouduploader.store import journal
from clouduploader.store.journal import replica
from clouduploader.util import files


class _Source:
    """A file that is only appended to, or replaced by another. Held open: then no other file gets its inode.

    Args:
        path: The file.
        sent: How many bytes of it the server has.
        is_other: Whether the server has another file of that name, whose place it takes.
    """

    def __init__(self, path: Path, sent: int = 0, *, is_other: bool = False) -> None:
        self.file = files.open_read(path)
        self.sent = sent
        self.is_other = is_other

    def is_still(self, path: Path) -> bool:
        """Return whether this is the file at a path."""
        return os.path.samestat(os.fstat(self.file.fileno()), path.stat(follow_symlinks=False))

    def size_bytes(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def read(self) -> bytes:
        """Return the next bytes that the server has not got; b"" for none."""
        return os.pread(self.file.fileno(), protocol.MAX_PIECE_BYTES, self.sent)


class Mirror:
    """Sends what the server has not got of an attempt's files. For one thread; a context manager.

    Its methods raise LeaseLostError, and TransientErrors, after which they may be called again; LocalIOError if a file
    can't be read.

    Args:
        server: The server.
        claim: The job.
        journal_dir: Of the upload; need not exist.
        log: Of the attempt.
    """

    def __init__(self, server: ClusterServer, claim: Claim, *, journal_dir: Path, log: Path) -> None:
        self._server = server
        self._claim = claim
        self._journal_dir = journal_dir
        self._log = log
        self._log_source: _Source | None = None
        self._sources: dict[str, _Source] = {}

    def __enter__(self) -> "Mirror":
        """Begin with nothing sent."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the files."""
        for source in (*self._sources.values(), *([self._log_source] if self._log_source else [])):
            source.file.close()

    def fetch(self, there: Mapping[str, int]) -> None:
        """Fetch the journal that an earlier attempt has left.

        Args:
            there: The files that the server has, with their sizes.
        """
        if not there:
            return
        with _local_errors(self._journal_dir):
            (self._journal_dir / journal.PLATFORM_NAME).mkdir(parents=True, mode=files.PRIVATE_DIRECTORY_MODE)
            for name in there:
                path = self._journal_dir / name
                files.write_file(path, self._server.read_journal(self._claim, name), mode=files.PRIVATE_MODE)
                self._sources[name] = _Source(path, path.stat().st_size)

    def send_journal(self) -> None:
        """Send what has come into the journal and the platform's files, and remove what is gone."""
        with _local_errors(self._journal_dir):
            names = self._names()
            for name in names:
                self._send_file(name)
            for name in set(self._sources) - set(names):
                self._server.remove_journal(self._claim, name)
                self._sources.pop(name).file.close()

    def send_log(self) -> None:
        """Send what has come into the log."""
        with _local_errors(self._log):
            if self._log_source is None:
                self._log_source = _Source(self._log)
            source = self._log_source
            while data := source.read():
                have = self._server.append_log(self._claim, offset=source.sent, data=data)
                self._took(source, have, len(data))

    def _names(self) -> list[str]:
        """Return the files of the journal that are there; the journal is the last."""
        found: list[Path] = []
        with contextlib.suppress(FileNotFoundError):
            found = sorted((self._journal_dir / journal.PLATFORM_NAME).iterdir())
        names = [f"{journal.PLATFORM_NAME}/{path.name}" for path in found]
        names = [name for name in names if replica.PLATFORM_FILE.fullmatch(name)]  # none that is being written
        return [*names, *([journal.FILE_NAME] if (self._journal_dir / journal.FILE_NAME).exists() else [])]

    def _send_file(self, name: str) -> None:
        path = self._journal_dir / name
        source = self._sources.get(name)
        try:
            if source is None or not source.is_still(path) or source.size_bytes() < source.sent:
                made = _Source(path, is_other=source is not None)
                if source:
                    source.file.close()
                self._sources[name] = source = made
        except FileNotFoundError:
            return  # removed meanwhile: seen at the next look
        while (data := source.read()) or source.is_other:
            if name == journal.FILE_NAME:
                data = data[: data.rfind(b"\n") + 1]  # what is torn may be taken back
                if not data:
                    return
            have = self._server.append_journal(
                self._claim, name, offset=source.sent, data=data, is_whole=source.is_other
            )
            source.is_other = False
            self._took(source, have, len(data))

    def _took(self, source: _Source, have: int, sent_bytes: int) -> None:
        """Take note of how much of a file the server has after so many bytes more."""
        if (sent_bytes and have == source.sent) or have > source.size_bytes():
            raise PlatformReplyError(f"the server has {have} bytes of a file of the job {self._claim.job}: not ours")
        source.sent = have


@contextlib.contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read, or not be written: {exc.strerror}") from exc
