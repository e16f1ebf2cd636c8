"""The list of jobs as XML, piece by piece; caches the XML of archived jobs."""

import re
from collections.abc import Iterable, Iterator

from clouduploader.errors import ClouduploaderError
from clouduploader.model import job_xml
from clouduploader.server import replies
from clouduploader.store import spool

MAX_KEPT_BYTES = 24 << 20  # of archived jobs: some 50,000, of half a KiB each
BLOCK_BYTES = 65_536
ARCHIVED = "-"  # in front of a name
HEAD = b"<clouduploadjoblist>\n"
TAIL = b"</clouduploadjoblist>\n"


class JobLists:
    """Renders lists; for one thread at a time, which may work on several lists by turns.

    Args:
        jobs: The spool.
    """

    def __init__(self, jobs: spool.Spool) -> None:
        self._jobs = jobs
        self._kept: dict[str, tuple[tuple[int, int, int], str | None, bytes]] = {}  # key, user and text
        self._kept_bytes = 0

    def names(self) -> bytes:
        """Return the names of all jobs, running and archived, sorted as texts, as OBS has it; one a line.

        Raises:
            MissingFileError: There is no spool.
            LocalIOError: It can't be read.
        """
        running = set(self._jobs.running_names())  # first: a job that is archived meanwhile is then in both
        names = sorted(running.union(self._jobs.archived_names()))
        return "\n".join(name if name in running else f"{ARCHIVED}{name}" for name in names).encode()

    def render_all(self, names: bytes, *, owner: str | None) -> Iterator[bytes]:
        """Yield the list of what `names` gave; records are read when their piece is asked for.

        Args:
            names: As they were given.
            owner: Only jobs of this user are in it; None for all.
        """
        lines = (match[0].decode() for match in re.finditer(rb"[^\n]+", names))
        return self._blocks(
            self._archived(line.removeprefix(ARCHIVED), owner) if line.startswith(ARCHIVED) else self._any(line, owner)
            for line in lines
        )

    def render(self, names: Iterable[str], *, owner: str | None) -> Iterator[bytes]:
        """Yield the list of these jobs, in this order; those that are not there, or not the owner's, are left out."""
        return self._blocks(self._any(name, owner) for name in names)

    def _blocks(self, jobs: Iterable[bytes]) -> Iterator[bytes]:
        pieces, size = [HEAD], 0
        for job in jobs:
            pieces.append(job)
            size += len(job)
            if size >= BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        yield b"".join((*pieces, TAIL))

    def _any(self, name: str, owner: str | None) -> bytes:
        try:
            job, is_archived = self._jobs.read(name)
        except ClouduploaderError:  # not there, or damaged: in OBS's list it is missing then
            return b""
        if is_archived:
            return self._archived(name, owner)
        return job_xml.serialize(replies.public_job(job), indent="  ") if owner in (None, job.user) else b""

    def _archived(self, name: str, owner: str | None) -> bytes:
        try:
            status = self._jobs.done_path(name).stat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            kept = self._kept.get(name)
            if kept and kept[0] == key:
                return kept[2] if owner in (None, kept[1]) else b""
            job = self._jobs.read_archived(name)
            text = job_xml.serialize(replies.public_job(job), indent="  ")
        except (OSError, ClouduploaderError):
            return b""
        if self._kept_bytes + len(text) > MAX_KEPT_BYTES:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept_bytes += len(text) - (len(kept[2]) if kept else 0)
        self._kept[name] = (key, job.user, text)
        return text if owner in (None, job.user) else b""
