"""Images that come in pieces, in `.images` in the spool: kept until a job is made of one, or it has expired.

    ID         what is here of the image; locked while more of it comes
    ID.json    the record: whose it is, how large it is to be, how much of it is safely on the disk

The record is replaced each time after what it tells of was synced. So all that it says is there after a crash, of the
program or the machine; what the file has besides is cut off before more comes. A job gets the image by a second link,
and the record keeps the job's name until it expires: of one image there is one job, however often that is asked for.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from clouduploader.errors import (
    CannotCreateError,
    LocalIOError,
    LockedError,
    MissingFileError,
)
from clouduploader.util import files, privileges, processes
from clouduploader.util.frozen import frozen

DIRECTORY = ".images"
ID = re.compile(r"[0-9a-f]{32}")
_RECORD = re.compile(rf"({ID.pattern})\.json")
MAX_RECORD_BYTES = 1 << 16


@frozen(kw_only=True)
class StoredImage:
    """An image, or what is here of it.

    Attributes:
        id: Its name in the store; the user can't choose it.
        owner: The user whose it is; None if it came without one.
        size_bytes: How large it is to be.
        offset_bytes: How much of it is safely on the disk.
        metadata: What its sender says of it, by names.
        created: When it was begun, aware, UTC.
        changed: When some of it came last; aware, UTC.
        job: The job that was made of it; None if there is none yet.
        asked: A digest of what that job was asked for with; None if that is not known.
    """

    id: str
    owner: str | None
    size_bytes: int
    offset_bytes: int
    metadata: Mapping[str, str]
    created: datetime.datetime
    changed: datetime.datetime
    job: str | None
    asked: str | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.offset_bytes == self.size_bytes


class ImageStore:
    """The images of one spool. Making it touches nothing; its methods block, and any thread may call them.

    Args:
        spool: The directory of the spool.

    Attributes:
        directory: Where the images are.
    """

    def __init__(self, spool: Path) -> None:
        self.directory = spool / DIRECTORY

    def path(self, image: StoredImage) -> Path:
        """Return the path of what is here of an image."""
        return self.directory / image.id

    def create(
        self, owner: str | None, size_bytes: int, *, metadata: Mapping[str, str], now: datetime.datetime
    ) -> StoredImage:
        """Begin an image of which nothing is here.

        Raises:
            CannotCreateError: It can't be written.
        """
        now = now.astimezone(datetime.UTC).replace(microsecond=0)
        image = StoredImage(
            id=secrets.token_hex(16),
            owner=owner,
            size_bytes=size_bytes,
            offset_bytes=0,
            metadata=dict(metadata),
            created=now,
            changed=now,
            job=None,
            asked=None,
        )
        with privileges.as_owner(self.directory.parent):
            try:
                files.make_directory(self.directory, mode=files.PRIVATE_DIRECTORY_MODE)
                files.write_file(self.path(image), b"", mode=files.PRIVATE_MODE)
            except OSError as exc:
                raise CannotCreateError(f"{self.path(image)} can't be made: {exc.strerror}") from exc
            self._write(image)
        return image

    def find(self, name: str) -> StoredImage:
        """Return what is known of an image.

        Args:
            name: Its id; of any form.

        Raises:
            MissingFileError: There is none of that id.
            LocalIOError: Its record can't be read.
        """
        if not ID.fullmatch(name):
            raise MissingFileError("there is no such image")
        path = self._record_path(name)
        try:
            with privileges.as_owner(self.directory.parent), files.open_read(path) as file:
                data = file.read(MAX_RECORD_BYTES)
        except FileNotFoundError:
            raise MissingFileError("there is no such image") from None
        except OSError as exc:
            raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
        try:
            return _parsed(name, data)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise LocalIOError(f"{path} is damaged") from None

    def images(self) -> list[StoredImage]:
        """Return all images that can be read, the newest first."""
        found = []
        for name in self._names():
            with contextlib.suppress(MissingFileError, LocalIOError):
                found.append(self.find(name))
        return sorted(found, key=lambda image: (image.created, image.id), reverse=True)

    def open(self, name: str) -> "OpenImage":
        """Open an image to append to what is safely here of it; a context manager.

        Raises:
            MissingFileError: There is none of that id, or it has become a job's.
            LockedError: Another process is writing it.
            LocalIOError: It can't be written.
        """
        image = self.find(name)
        path = self.path(image)
        with contextlib.ExitStack() as undo:
            try:
                with privileges.as_owner(self.directory.parent):
                    file = undo.enter_context(os.fdopen(files.open_regular(path, os.O_WRONLY), "wb", buffering=0))
                if not files.try_lock(file.fileno()):
                    raise LockedError("another process is writing this image", hint="Try again.")
                image = self.find(name)  # as its last writer left it
                file.truncate(image.offset_bytes)
                file.seek(image.offset_bytes)
            except FileNotFoundError:
                raise MissingFileError("there is no such image") from None
            except OSError as exc:
                raise LocalIOError(f"{path} can't be written: {exc.strerror}") from exc
            undo.pop_all()
        return OpenImage(self, image, file)

    def note(self, image: StoredImage, *, offset_bytes: int, now: datetime.datetime) -> StoredImage:
        """Note how much of an image is on the disk.

        Raises:
            CannotCreateError: It can't be written.
        """
        return self._replace(image, offset_bytes=offset_bytes, changed=now.astimezone(datetime.UTC))

    def bind(self, image: StoredImage, job: str, *, asked: str | None = None) -> StoredImage:
        """Note that a job is made of an image.

        Args:
            image: The image.
            job: The job's name.
            asked: See `StoredImage`.

        Raises:
            CannotCreateError: It can't be written.
        """
        return self._replace(image, job=job, asked=asked)

    def give_up(self, image: StoredImage) -> None:
        """Remove an image whose job has a link to it by now, and keep its record."""
        with privileges.as_owner(self.directory.parent):
            files.discard(self.path(image))

    def remove(self, name: str) -> None:
        """Remove an image, and its record.

        Raises:
            LockedError: It is being written; its writer would note what came of it, and there would be a record again.
            LocalIOError: It can't be removed.
        """
        try:
            with privileges.as_owner(self.directory.parent), contextlib.ExitStack() as stack:
                with contextlib.suppress(FileNotFoundError):  # a job has it
                    descriptor = files.open_regular(self.directory / name, os.O_RDONLY)
                    stack.callback(os.close, descriptor)
                    if not files.try_lock(descriptor):
                        raise LockedError("some of this image is on its way in", hint="Try again.")
                (self.directory / name).unlink(missing_ok=True)  # first: what has no record is removed in any case
                self._record_path(name).unlink(missing_ok=True)
                if self.directory.is_dir():
                    files.sync_directory(self.directory)
        except OSError as exc:
            raise LocalIOError(f"{exc.filename or self.directory} can't be removed: {exc.strerror}") from exc

    def expire(self, *, seconds: float, now: datetime.datetime) -> list[StoredImage]:
        """Remove the images of which nothing has come for so long, and what has no record.

        Returns:
            Those that were never a job's.

        Raises:
            LocalIOError: One can't be removed.
        """
        limit = now - datetime.timedelta(seconds=seconds)
        expired = []
        for image in self.images():
            if image.changed < limit:
                with contextlib.suppress(LockedError):
                    self.remove(image.id)
                    expired += [] if image.job else [image]
        self._remove_parts(limit)
        return expired

    def _names(self) -> Iterator[str]:
        for entry in self._entries():
            if match := _RECORD.fullmatch(entry.name):
                yield match[1]

    def _entries(self) -> list[Path]:
        try:
            with privileges.as_owner(self.directory.parent):
                return list(self.directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise LocalIOError(f"{self.directory} can't be read: {exc.strerror}") from exc

    def _is_written(self, name: str) -> bool:
        """Return whether a process has an image open to write it."""
        return processes.is_locked(self.directory / name)

    def _remove_parts(self, limit: datetime.datetime) -> None:
        """Remove what a crash left: an image without its record, and records that were never moved to their place."""
        known = set(self._names())
        for entry in self._entries():
            if entry.name in known or entry.name.removesuffix(".json") in known:
                continue
            with contextlib.suppress(OSError), privileges.as_owner(self.directory.parent):
                if entry.lstat().st_mtime < limit.timestamp() and not self._is_written(entry.name):
                    entry.unlink()

    def _record_path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _replace(self, image: StoredImage, **changes: Any) -> StoredImage:  # noqa: ANN401 its fields
        changed = dataclasses.replace(image, **changes)
        with privileges.as_owner(self.directory.parent):
            self._write(changed)
        return changed

    def _write(self, image: StoredImage) -> None:
        document = {
            "owner": image.owner,
            "size": image.size_bytes,
            "offset": image.offset_bytes,
            "metadata": dict(image.metadata),
            "created": int(image.created.timestamp()),
            "changed": int(image.changed.timestamp()),
            "job": image.job,
            "asked": image.asked,
        }
        path = self._record_path(image.id)
        try:
            files.replace_file(path, json.dumps(document).encode(), mode=files.PRIVATE_MODE)
        except OSError as exc:
            raise CannotCreateError(f"{path} can't be written: {exc.strerror}") from exc


class OpenImage:
    """An image that is open to be appended to, and locked; made by `ImageStore.open`. One thread at a time.

    Attributes:
        image: As it was when it was opened, or when it was last synced.
        offset_bytes: How much of it was written.
    """

    def __init__(self, store: ImageStore, image: StoredImage, file: BinaryIO) -> None:
        self.image = image
        self.offset_bytes = image.offset_bytes
        self._store = store
        self._file = file

    def __enter__(self) -> Self:
        """Do nothing: it is open."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it; what was written since the last `sync` is lost."""
        self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            LocalIOError: They can't be written.
        """
        left = memoryview(data)
        try:
            while left:
                written = self._file.write(left) or 0
                self.offset_bytes += written
                left = left[written:]
        except OSError as exc:
            raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc

    def sync(self) -> None:
        """Write to the disk what was appended, and note it.

        Raises:
            LocalIOError: It can't be written.
            CannotCreateError: It can't be noted.
        """
        if self.offset_bytes == self.image.offset_bytes:
            return
        try:
            os.fdatasync(self._file.fileno())
        except OSError as exc:
            raise LocalIOError(f"the image can't be written: {exc.strerror}") from exc
        now = datetime.datetime.now(datetime.UTC)
        self.image = self._store.note(self.image, offset_bytes=self.offset_bytes, now=now)


def _parsed(name: str, data: bytes) -> StoredImage:
    """Read a record.

    Raises:
        ValueError, KeyError, TypeError, OverflowError, RecursionError: It is none.
    """
    found = json.loads(data)
    image = StoredImage(
        id=name,
        owner=found["owner"],
        size_bytes=found["size"],
        offset_bytes=found["offset"],
        metadata={str(key): str(text) for key, text in found["metadata"].items()},
        created=datetime.datetime.fromtimestamp(found["created"], datetime.UTC),
        changed=datetime.datetime.fromtimestamp(found["changed"], datetime.UTC),
        job=found["job"],
        asked=found.get("asked"),
    )
    if not 0 <= image.offset_bytes <= image.size_bytes:
        raise ValueError(name)
    return image
