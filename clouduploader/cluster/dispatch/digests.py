"""The SHA-256 of images, computed by threads of their own before their jobs are published."""

import concurrent.futures
import hashlib
import os
import threading
from collections.abc import Callable

from clouduploader.errors import LocalIOError
from clouduploader.store import spool
from clouduploader.store.spool import leases
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

THREADS = 2  # each takes a core: of an image of 20 GiB some 15 s
PIECE_BYTES = 1 << 20


@frozen()
class ImageDigest:
    """What is known of an image file.

    Attributes:
        sha256: In hexadecimal digits.
        identity: See `leases.identity_of`.
    """

    sha256: str
    identity: tuple[int, int, int]


class Digests:
    """Computes digests, each once. One thread may call the methods.

    Args:
        jobs: The spool.
        wake: Called, in a thread of its own, when one is there.
    """

    def __init__(self, jobs: spool.Spool, wake: Callable[[], None]) -> None:
        self._jobs = jobs
        self._wake = wake
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "digests")
        self._work: dict[str, tuple[concurrent.futures.Future[ImageDigest | None], threading.Event]] = {}

    def names(self) -> list[str]:
        """Return the jobs whose digests are wanted, or are there."""
        return list(self._work)

    def get(self, name: str) -> ImageDigest | None:
        """Return the digest of a job's image, until it is discarded; None if it is to come: `wake` is called then.

        Raises:
            LocalIOError: The image can't be read.
        """
        if name not in self._work:
            is_unwanted = threading.Event()
            self._work[name] = self._threads.submit(self._compute, name, is_unwanted), is_unwanted
            self._work[name][0].add_done_callback(lambda _work: self._wake())
        work, _ = self._work[name]
        if not work.done():
            return None
        try:
            return work.result()
        except LocalIOError:
            del self._work[name]
            raise

    def discard(self, name: str) -> None:
        """Want the digest of a job no more; a thread that is at it ends early."""
        if found := self._work.pop(name, None):
            work, is_unwanted = found
            is_unwanted.set()
            work.cancel()

    def close(self) -> None:
        """End all threads."""
        for name in self.names():
            self.discard(name)
        self._threads.shutdown()

    def _compute(self, name: str, is_unwanted: threading.Event) -> ImageDigest | None:
        """Compute a digest; None if it is wanted no more."""
        path = self._jobs.file_path(name)
        digest, piece = hashlib.sha256(), bytearray(PIECE_BYTES)
        try:
            with privileges.as_owner(self._jobs.directory):
                file = files.open_read(path)
            with file:
                before = os.fstat(file.fileno())
                while count := os.readv(file.fileno(), [piece]):
                    if is_unwanted.is_set():
                        return None
                    digest.update(memoryview(piece)[:count])
                after = os.fstat(file.fileno())
        except OSError as exc:
            raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
        if leases.identity_of(before) != leases.identity_of(after):
            raise LocalIOError(f"the image {path} was written to while it was read")
        return ImageDigest(digest.hexdigest(), leases.identity_of(before))
