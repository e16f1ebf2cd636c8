"""The list of jobs as XML, quick for a long archive: what was written once is kept for the next list."""

from collections.abc import Iterable, Iterator

from clouduploader import jobxml, spool
from clouduploader.errors import ClouduploaderError

MAX_KEPT = 50_000  # archived jobs, of half a KiB each
HEAD = b"<clouduploadjoblist>\n"
TAIL = b"</clouduploadjoblist>\n"


class Listing:
    """Makes lists. One thread at a time.

    Args:
        jobs: The spool.
    """

    def __init__(self, jobs: spool.Spool) -> None:
        self._jobs = jobs
        self._kept: dict[str, tuple[tuple[int, int, int], bytes]] = {}

    def all(self) -> bytes:
        """All jobs, running and archived, in the order of their names as texts, as OBS has it.

        Raises:
            MissingFileError: There is no spool.
            LocalIOError: It can't be read.
        """
        running = set(self._jobs.running_names())  # first: a job that is archived meanwhile is then in both
        names = sorted(running.union(self._jobs.archived_names()))
        return self._joined(self._archived(name) if name not in running else self._any(name) for name in names)

    def of(self, names: Iterable[str]) -> bytes:
        """These jobs, in this order, as often as they are named; those that are not there are left out."""
        return self._joined(self._any(name) for name in names)

    def _joined(self, jobs: Iterator[bytes]) -> bytes:
        return b"".join((HEAD, *jobs, TAIL))

    def _any(self, name: str) -> bytes:
        try:
            job, is_archived = self._jobs.read(name)
        except ClouduploaderError:  # not there, or damaged: in OBS's list it is missing then
            return b""
        return self._archived(name) if is_archived else jobxml.serialize(job, indent="  ")

    def _archived(self, name: str) -> bytes:
        try:
            status = self._jobs.done_path(name).stat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            kept = self._kept.get(name)
            if kept and kept[0] == key:
                return kept[1]
            text = jobxml.serialize(self._jobs.read_archived(name), indent="  ")
        except (OSError, ClouduploaderError):
            return b""
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[name] = (key, text)
        return text
