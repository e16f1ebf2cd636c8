"""The images of a spool's jobs in an object store, from where hosts get them in the place of the server.

Before anything is asked from the store, `.N.stored` in the spool says where in it the image of job N will be; the name
there is random, so that nothing else can bear it. So a server that was killed leaves nothing: the next one removes what
is there of jobs that are over. What the store can't take is sent by the server.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clouduploader.cluster.settings import StorePlace
from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    JobFileError,
    LocalIOError,
    PlatformReplyError,
    TransientError,
)
from clouduploader.store import spool
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # the SDK takes a while to import, and most servers have no store
    from clouduploader.cluster.dispatch.object_store import ObjectStore

THREADS = 2  # ours: each holds a part of an image in memory
PAUSE_SECONDS = 60.0  # until a store that took no image gets the next one, or an image is removed that could not be
MAX_RECORD_BYTES = 1 << 14  # ours have some 300
KEY_BYTES = 16  # of chance in an object's name


@frozen(kw_only=True)
class StoredImage:
    """Where the image of a job is, or is about to be.

    Attributes:
        place: In which store.
        key: The object's name.
        sha256: Of the image, in hex.
        is_whole: Whether all of it is there.
    """

    place: StorePlace
    key: str
    sha256: str
    is_whole: bool


class _UnwantedError(ClouduploaderError):
    """The image need not be put any more."""


class StoredImages:
    """Puts images into a store, and removes them. One thread may call the methods, any thread `lend`.

    Args:
        jobs: The spool.
        home: With the credentials.
        place: Returns where images are put, as it is now; None for no store.
        wake: Called, in a thread of its own, when an image was put, or could not be.
        on_trouble: Called with a job and what is the matter, in a thread of its own.
    """

    def __init__(
        self,
        jobs: spool.Spool,
        home: Path,
        *,
        place: Callable[[], StorePlace | None],
        wake: Callable[[], None],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._jobs, self._home = jobs, home
        self._place, self._wake, self._on_trouble = place, wake, on_trouble
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "stored-images")
        self._remover = concurrent.futures.ThreadPoolExecutor(1, "removed-images")  # holds up no image that is put
        self._stores: dict[StorePlace, ObjectStore] = {}
        self._lock = threading.Lock()  # of `_stores`
        self._putting: dict[str, tuple[concurrent.futures.Future[bool], threading.Event]] = {}
        self._removing: dict[str, concurrent.futures.Future[bool]] = {}
        self._names = set(jobs.stored_names())
        self._untaken: set[str] = set()  # jobs whose images the store could not take
        self._pause_until = 0.0  # no image is put until then
        self._remove_at: dict[str, float] = {}  # when what could not be removed is removed

    def take(self, name: str, sha256: str) -> bool:
        """Put the image of a job into the store, if there is one and it is not there yet.

        Args:
            name: The job.
            sha256: Of its image, in hex.

        Returns:
            Whether the job can be published: False while the image is put, and `wake` is called then.
        """
        if name in self._putting:
            work, _ = self._putting[name]
            if not work.done():
                return False
            del self._putting[name]
            if not work.result():
                self._untaken.add(name)
            return True
        place = self._place()
        if place is None or name in self._untaken or self._is_there(name, place, sha256):
            return True
        if time.monotonic() < self._pause_until:
            return True
        is_unwanted = threading.Event()
        self._names.add(name)
        work = self._threads.submit(self._put, name, place, sha256, is_unwanted)
        self._putting[name] = work, is_unwanted
        work.add_done_callback(lambda _work: self._wake())
        return False

    def lend(self, name: str) -> str | None:
        """Return a URL by which a host can read the image of a job for some minutes, a secret; None for none.

        Raises:
            ClouduploaderError: None can be made.
        """
        found = self._read(name)
        return self._store(found.place).lend(found.key) if found and found.is_whole else None

    def sweep(self) -> None:
        """Have the images of jobs that are over removed; does not wait for it."""
        now = time.monotonic()
        for name in [name for name, work in self._removing.items() if work.done()]:
            if self._removing.pop(name).result():
                self._names.discard(name)
                self._untaken.discard(name)
                self._remove_at.pop(name, None)
            else:
                self._remove_at[name] = now + PAUSE_SECONDS
        for name in self._names - self._removing.keys():
            if self._remove_at.get(name, now) > now or self._jobs.job_path(name).exists():
                continue
            if name in self._putting:
                work, is_unwanted = self._putting[name]
                is_unwanted.set()
                if not (work.cancel() or work.done()):
                    continue
                del self._putting[name]
            self._removing[name] = self._remover.submit(self._remove, name, is_told=name in self._remove_at)

    def close(self) -> None:
        """End all threads; what is being put is given up."""
        for _, is_unwanted in self._putting.values():
            is_unwanted.set()
        for threads in (self._threads, self._remover):
            threads.shutdown(cancel_futures=True)

    def _is_there(self, name: str, place: StorePlace, sha256: str) -> bool:
        """Return whether the image of a job is there, all of it."""
        try:
            found = self._read(name)
        except ClouduploaderError:
            return False
        return found is not None and found.is_whole and (found.place, found.sha256) == (place, sha256)

    # --- in the threads

    def _put(self, name: str, place: StorePlace, sha256: str, is_unwanted: threading.Event) -> bool:
        """Put the image of a job; return whether it is there."""

        def check() -> None:
            if is_unwanted.is_set():
                raise _UnwantedError("the image is wanted no more")

        if time.monotonic() < self._pause_until:
            return False
        try:
            self._remove_object(name)  # of a server that was killed, or another image or place
            key = f"{place.prefix}{name}-{secrets.token_hex(KEY_BYTES)}"
            image = StoredImage(place=place, key=key, sha256=sha256, is_whole=False)
            self._write(name, image)
            with self._open(name) as file, self._pausing():
                self._store(place).put(key, file, os.fstat(file.fileno()).st_size, check=check)
            self._write(name, dataclasses.replace(image, is_whole=True))
        except _UnwantedError:
            return False
        except ClouduploaderError as exc:
            self._on_trouble(name, f"hosts get the image from this server: {exc.message}")
            return False
        return True

    @contextlib.contextmanager
    def _pausing(self) -> Iterator[None]:
        """Give a store that can't be used no image for a while."""
        try:
            yield
        except (TransientError, PlatformReplyError):
            self._pause_until = time.monotonic() + PAUSE_SECONDS
            raise

    def _remove(self, name: str, *, is_told: bool) -> bool:
        """Remove what is in the store of a job that is over; return whether that was done."""
        try:
            self._remove_object(name)
        except ClouduploaderError as exc:
            if not is_told:
                self._on_trouble(name, f"its image in the object store can't be removed yet: {exc.message}")
            return False
        return True

    def _remove_object(self, name: str) -> None:
        """Remove what is in the store of a job.

        Raises:
            ClouduploaderError: That can't be done.
        """
        found = self._read(name)
        if found is None:
            return
        self._store(found.place).remove(found.key)
        path = self._jobs.stored_path(name)
        try:
            with privileges.as_owner(self._jobs.directory):
                path.unlink(missing_ok=True)
        except OSError as exc:
            raise CannotCreateError(f"{path} can't be removed: {exc.strerror}") from exc

    # --- in any thread

    def _store(self, place: StorePlace) -> "ObjectStore":
        from clouduploader.cluster.dispatch.object_store import ObjectStore

        with self._lock:
            if place not in self._stores:
                self._stores[place] = ObjectStore(place, self._home)
            return self._stores[place]

    def _open(self, name: str) -> BinaryIO:
        path = self._jobs.file_path(name)
        try:
            with privileges.as_owner(self._jobs.directory):
                return files.open_read(path)
        except OSError as exc:
            raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc

    def _read(self, name: str) -> StoredImage | None:
        """Read where the image of a job is; None if it is not in a store.

        Raises:
            JobFileError: The file is damaged.
            LocalIOError: It can't be read.
        """
        path = self._jobs.stored_path(name)
        try:
            with privileges.as_owner(self._jobs.directory), files.open_read(path) as file:
                data = file.read(MAX_RECORD_BYTES)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
        try:
            found = json.loads(data)
            return StoredImage(**{**found, "place": StorePlace(**found["place"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise JobFileError(f"{path} is damaged: it does not say where the image is") from None

    def _write(self, name: str, image: StoredImage) -> None:
        path = self._jobs.stored_path(name)
        data = json.dumps(dataclasses.asdict(image)).encode()
        try:
            with privileges.as_owner(self._jobs.directory):
                files.replace_file(path, data, mode=files.GROUP_MODE)
        except OSError as exc:
            raise self._jobs.cannot_create(path, exc) from exc
