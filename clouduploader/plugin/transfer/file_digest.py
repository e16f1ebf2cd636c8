"""The SHA-256 of an image file, made beside the transfer where that does not make it by itself.

A file that can be read anywhere is sent by several threads at once, a block here and a block there, and holes are not
read at all; SHA-256 needs every byte in order. That is 0.6 s of CPU a GiB of the file, holes included, where the whole
transfer of a GiB without holes takes 2.5 (bench/README.rst): too much to be done unasked.
"""

import hashlib
import threading
from pathlib import Path

from clouduploader.errors import LocalIOError
from clouduploader.plugin.transfer.threads import ThreadGroup
from clouduploader.util.cancel import Cancel

PIECE_BYTES = 1 << 20
LOOK_SECONDS = 0.25  # between looks at the cancellation


class FileDigest:
    """Reads a file to its end in a thread of its own; a context manager, at whose end the thread has ended.

    Args:
        path: Of the file.
        cancel: Honoured while waiting.
    """

    def __init__(self, path: Path, cancel: Cancel) -> None:
        self._path = path
        self._cancel = cancel
        self._is_cancelled = threading.Event()
        self._threads = ThreadGroup()
        self._digest = hashlib.sha256()

    def __enter__(self) -> "FileDigest":
        """Begin."""
        self._threads.start(self._read)
        return self

    def __exit__(self, *_details: object) -> None:
        """End, finished or not."""
        self._is_cancelled.set()
        self._threads.leave()

    def result(self) -> str:
        """Wait for the end of the file, and return the digest in hex.

        Raises:
            LocalIOError: It can't be read.
            StoppedError: The upload was cancelled.
        """
        while not self._threads.wait(LOOK_SECONDS):
            self._cancel.raise_if_requested()
        return self._digest.hexdigest()

    def _read(self) -> None:
        piece = memoryview(bytearray(PIECE_BYTES))
        try:
            with self._path.open("rb", buffering=0) as file:
                while (size := file.readinto(piece)) and not self._is_cancelled.is_set():
                    self._digest.update(piece[:size])
        except OSError as exc:
            raise LocalIOError(f"the image {self._path} can't be read: {exc.strerror}") from exc
