"""Fetch the image of a claimed job: from the server, or from the object store that the server redirects to.

A connection may break as often as it likes, as long as some bytes come from time to time: the next one goes on behind
what is here. The digest is made of what comes, so that nothing is read again. What an object store does wrong is made
good by the server, which has the image too.

The upload begins while the image still comes. What the server sends can be read at once; what an object store sends,
only when the digest of all was compared: until then it may have to be fetched anew. The last bytes of a large image
come first, for they tell what the rest is: the index of an .xz, the copy of a partition table, the footer of a VHD.

The file stays until the upload has ended, and its room is not given back before: each platform may read an image more
than once, for what is in it, for its size, or because a transfer broke.
"""

import contextlib
import functools
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.client.image import ElsewhereError, ImageAnswer
from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.util import files, threads
from clouduploader.util.arrival import ArrivalWriter
from clouduploader.util.cancel import Cancel

BUFFER_BYTES = 1 << 20  # as the server's own: smaller ones cost more CPU, larger ones do not stay in its caches
STALL_SECONDS = 300.0  # without any byte that is new; then another host may have more luck
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.25, 5.0  # after a break; it doubles as long as nothing new comes
TICK_SECONDS = 0.25  # between looks at the cancellation during a pause
BEGIN_SECONDS = 0.02  # between looks whether there is something
END_BYTES = 1 << 20  # fetched first: an index has some 10 bytes for each block of an .xz, and these have MiB
MIN_BYTES = 64 << 20  # of an image whose end comes first; a smaller one is there in a moment


def fetch(
    server: ClusterServer,
    claim: Claim,
    path: Path,
    *,
    size: int,
    sha256: str,
    cancel: Cancel,
    arrival: ArrivalWriter,
) -> None:
    """Fetch an image into a file. What is there of it after an error is of no use.

    Args:
        server: The server.
        claim: The job.
        path: The file; made.
        size: How large the image is, in bytes.
        sha256: Its digest, in hex.
        cancel: Looked at several times a second.
        arrival: Told how much of it is there, and how it ended.

    Raises:
        StoppedError: `cancel` was requested.
        LeaseLostError: The job is no longer this host's.
        CannotCreateError: It can't be written: the disk is full, for example.
        PlatformReplyError: The server has another image.
        ClouduploaderError: The server refuses, or nothing came for STALL_SECONDS.
    """
    try:
        _check_room(path.parent, size)
        with files.open_new(path, mode=files.PRIVATE_MODE) as file:
            os.ftruncate(file.fileno(), size)
            _Fetching(server, claim, file, size=size, sha256=sha256, cancel=cancel, arrival=arrival).run()
            arrival.finish(os.fstat(file.fileno()).st_mtime_ns)
    except OSError as exc:
        raise CannotCreateError(f"the image {path} can't be written: {exc.strerror}") from exc
    finally:
        arrival.fail()


class BackgroundFetch:
    """A fetch in a thread of its own; a context manager, at whose end it has ended, done or not.

    Args:
        server: For that thread.
        claim: See `fetch`, as for the other arguments.
        path: As there.
        size: As there.
        sha256: As there.
        arrival: As there.
        on_error: Called by that thread with why it failed.
    """

    def __init__(
        self,
        server: ClusterServer,
        claim: Claim,
        path: Path,
        *,
        size: int,
        sha256: str,
        arrival: ArrivalWriter,
        on_error: Callable[[str], None],
    ) -> None:
        self._cancel = Cancel()
        self._arrival = arrival
        self._on_error = on_error
        self._error: ClouduploaderError | None = None
        self._fetch = functools.partial(
            fetch, server, claim, path, size=size, sha256=sha256, cancel=self._cancel, arrival=arrival
        )
        self._thread = threading.Thread(target=self._run, name="image")

    def __enter__(self) -> "BackgroundFetch":
        """Begin."""
        threads.start(self._thread)
        return self

    def __exit__(self, *_details: object) -> None:
        """End it."""
        self._cancel.request(signal.SIGTERM)
        self._thread.join()

    def wait_begun(self, cancel: Cancel) -> None:
        """Wait until some of the image can be read.

        Raises:
            StoppedError: `cancel` was requested.
            ClouduploaderError: It has failed before; see `fetch`.
        """
        while not self._arrival.is_begun:
            cancel.raise_if_requested()
            self._thread.join(BEGIN_SECONDS)
            if not (self._thread.is_alive() or self._arrival.is_begun):
                raise self._error or TransientError("the fetch of the image has ended, and nothing came")
        cancel.raise_if_requested()

    def _run(self) -> None:
        try:
            self._fetch()
        except StoppedError:
            pass
        except ClouduploaderError as exc:
            self._error = exc
            self._on_error(exc.message)


def _check_room(directory: Path, size: int) -> None:
    """Refuse an image for which there is no room, before some of it takes up what is left.

    Raises:
        CannotCreateError: There is none.
    """
    status = os.statvfs(directory)
    if (free := status.f_bavail * status.f_frsize) < size:
        raise CannotCreateError(f"there is no room for an image of {size} bytes: {directory} has {free} bytes free")


class _Fetching:
    """The state of one fetch; see `fetch`.

    Args:
        server: See `fetch`.
        claim: See `fetch`.
        file: Empty, open for writing.
        size: See `fetch`.
        sha256: See `fetch`.
        cancel: See `fetch`.
        arrival: See `fetch`.
    """

    def __init__(
        self,
        server: ClusterServer,
        claim: Claim,
        file: BinaryIO,
        *,
        size: int,
        sha256: str,
        cancel: Cancel,
        arrival: ArrivalWriter,
    ) -> None:
        self._server, self._claim, self._cancel, self._arrival = server, claim, cancel, arrival
        self._descriptor = file.fileno()
        self._size, self._sha256, self._etag = size, sha256, f'"{sha256}"'
        self._digest = hashlib.sha256()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._position = self._furthest = 0
        self._moved_at = time.monotonic()  # when the last byte came that is new
        self._end = b""  # the last bytes, once readers were told of them
        self._etag_elsewhere: str | None = None
        self._is_from_elsewhere = False  # whether some of what is here is
        self._is_direct = False
        self._is_end_wanted = size >= MIN_BYTES

    def run(self) -> None:
        """Fetch it, and compare its digest."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            moved_at, error = self._moved_at, self._try()
            if error is None:
                return
            if self._moved_at > moved_at:
                pause_seconds = FIRST_PAUSE_SECONDS
            elif time.monotonic() - moved_at >= STALL_SECONDS:
                raise error
            self._wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LAST_PAUSE_SECONDS)

    def _try(self) -> ClouduploaderError | None:
        """Receive what is missing; return what went wrong, if another try may help."""
        moved_at, is_elsewhere = self._moved_at, False
        try:
            if self._is_end_wanted:
                self._fetch_end()
            with self._ask(self._position) as answer:
                is_elsewhere = answer.is_elsewhere
                self._receive(answer)
            self._check_digest()
        except ElsewhereError as exc:
            self._is_direct = True
            return exc
        except TransientError as exc:
            if is_elsewhere and self._moved_at == moved_at:
                self._is_direct = True
            return exc
        return None

    def _ask(self, start: int) -> contextlib.AbstractContextManager[ImageAnswer]:
        return self._server.image(
            self._claim, start=start, etag=self._etag, is_direct=self._is_direct, cancel=self._cancel
        )

    def _fetch_end(self) -> None:
        """Fetch the last bytes, unless an object store has the image: what that sends can't be used yet."""
        self._is_end_wanted = False
        start, end = self._size - END_BYTES, bytearray()
        with self._ask(start) as answer:
            if answer.is_elsewhere or (answer.etag, answer.size_bytes, answer.start) != (self._etag, self._size, start):
                return
            while count := answer.read_into(self._buffer, check=self._cancel.raise_if_requested):
                end += self._buffer[:count]
        self._end = bytes(end)
        self._write(memoryview(self._end), start)
        self._arrival.have_end(start)

    def _write(self, piece: memoryview, offset: int) -> None:
        while piece:
            count = os.pwrite(self._descriptor, piece, offset)
            piece, offset = piece[count:], offset + count

    def _receive(self, answer: ImageAnswer) -> None:
        """Receive the bytes of an answer.

        Raises:
            ElsewhereError: The object store has another image.
            PlatformReplyError: The server has.
        """
        etag = self._etag
        if answer.is_elsewhere:
            etag = self._etag_elsewhere = self._etag_elsewhere or answer.etag
        if (answer.etag, answer.size_bytes) != (etag, self._size) or answer.start not in (0, self._position):
            raise _other_image(answer.is_elsewhere)
        if answer.start != self._position:
            self._begin_anew()
        self._is_from_elsewhere |= answer.is_elsewhere
        end_offset = self._size - len(self._end)
        while count := answer.read_into(self._buffer, check=self._cancel.raise_if_requested):
            piece = self._buffer[:count]
            new_bytes = max(0, min(count, end_offset - self._position))
            known = slice(self._position + new_bytes - end_offset, self._position + count - end_offset)
            piece[new_bytes:] = self._end[known]  # a reader may have it: it stays, and has to be right
            self._write(piece, self._position)
            self._digest.update(piece)
            self._position += count
            if self._position > self._furthest:
                self._furthest, self._moved_at = self._position, time.monotonic()
            if not self._is_from_elsewhere:
                self._arrival.have(self._position)

    def _check_digest(self) -> None:
        """Compare the digest of what is here; what is wrong is fetched anew from the server if it is a store's.

        Raises:
            ElsewhereError: It is another one, and perhaps by the fault of the object store.
            PlatformReplyError: It is another one.
        """
        if self._digest.hexdigest() != self._sha256:
            error = _other_image(self._is_from_elsewhere)
            self._begin_anew()
            self._furthest = 0  # nothing of it was any good
            raise error

    def _begin_anew(self) -> None:
        self._position, self._digest, self._is_from_elsewhere = 0, hashlib.sha256(), False

    def _wait(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            self._cancel.raise_if_requested()
            time.sleep(min(left, TICK_SECONDS))
        self._cancel.raise_if_requested()


def _other_image(is_elsewhere: bool) -> ClouduploaderError:
    """Make the error for what is not the image of the job."""
    if is_elsewhere:
        return ElsewhereError("the object store has not the image of the job")
    return PlatformReplyError("the server has another image than that of the job")
