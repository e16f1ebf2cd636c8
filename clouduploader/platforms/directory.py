"""Copies the image into a directory: for sites without a cloud, and an example for plugin authors.

The directory is named in `clouduploader.conf`; its file system must know hard links:

    [directory]
    path = /srv/images

An image appears there under its real name, complete or not at all, and never takes the place of
another one. Until then it is a hidden file that its writer keeps locked: without a lock it is left
from a run that was killed.
"""

import contextlib
import datetime
import fcntl
import filecmp
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from clouduploader import plugin
from clouduploader.errors import CannotCreateError, ConfigError, LocalIOError
from clouduploader.model.disk import Image
from clouduploader.plugin import CloudObject, Finding, JsonValue, Level, Plan, Reporter, UploadRequest
from clouduploader.util.cancel import Cancel

BLOCK_BYTES = 1 << 20  # progress is told, and a stop seen, some hundred times a second
_PARTIAL_NAME = re.compile(r"\.clouduploader-(?P<key>[0-9a-f]{32})-[0-9a-f]{8}\.part")


class DirectoryPlatform:
    """The platform `directory`; what its methods promise stands in `plugin.Platform`."""

    fields = (
        plugin.Field(
            name="filename",
            description="The image's real name, for when nothing else tells it.",
            pattern=re.compile(r"[^/\x00-\x1f\x7f]*"),
            pattern_meaning="no slash, no control characters",
        ),
        plugin.Field(
            name="force",
            description="Whether to copy what is known not to be a disk.",
            kind=plugin.FieldKind.BOOLEAN,
        ),
    )
    needs_disk = False

    def __init__(self, context: plugin.PlatformContext) -> None:
        self._setting = context.settings.get("path", "")

    def link_name(self, image: Image) -> str:
        """Leave the name as it is."""
        return image.filename

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Find nothing: there is but one field."""
        return []

    def plan(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> Plan:
        """Look whether the image is there already, or has room."""
        with _os_errors_as_ours():
            path, is_there = self._destination(request.image, cancel)
        return Plan((f"leave {path} as it is, for it is the same" if is_there else f"copy the image to {path}",))

    def upload(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> plugin.UploadResult:
        """Copy the image, or find that it is there already."""
        with _os_errors_as_ours():
            reporter.event(plugin.PhaseStarted("check"))
            path, is_there = self._destination(request.image, cancel)
            copy = CloudObject("file", str(path))
            for other in path.parent.iterdir():
                if _PARTIAL_NAME.fullmatch(other.name) and _remove_unless_locked(other):
                    reporter.line(f"Removed {other}, left from a run that was killed.")
            if is_there:
                reporter.line(f"{path} is there already, and the same.")
                return plugin.UploadResult(copy.id, (copy,))
            reporter.event(plugin.PhaseStarted("copy"))
            with _partial_file(path.parent, request.journal.key, reporter) as file:
                request.check_unchanged(_copy(request.image, file, reporter, cancel))
                cancel.raise_if_requested()
                os.link(file.name, path)  # unlike a rename it never overwrites
                reporter.event(plugin.ObjectCreated(copy))
            _sync(path.parent)
        return plugin.UploadResult(copy.id, (copy,))

    def clean_up(
        self, targetdata: Mapping[str, JsonValue], objects: Sequence[CloudObject], reporter: Reporter
    ) -> plugin.CleanUpReport:
        """Remove partial files that nobody writes any more; a complete image stays."""
        directory, removed, left = self._directory(), [], []
        for thing in objects:
            path = Path(thing.id)
            is_ours = path.parent == directory and _PARTIAL_NAME.fullmatch(path.name)
            if is_ours and _remove_unless_locked(path):
                removed.append(thing)
                reporter.event(plugin.ObjectRemoved(thing))
            else:
                reason = "it is being written, or not ours" if is_ours else "only partial files are removed"
                left.append(plugin.Leftover(thing, reason))
        return plugin.CleanUpReport(tuple(removed), tuple(left))

    def find(
        self, targetdata: Mapping[str, JsonValue], key: str | None, reporter: Reporter
    ) -> list[plugin.FoundObject]:
        """Look for partial files; an image that is complete bears no mark of its upload."""
        found = []
        with _os_errors_as_ours():
            for path in sorted(self._directory().iterdir()):
                name = _PARTIAL_NAME.fullmatch(path.name)
                if not name or key not in (None, name["key"]):
                    continue
                with contextlib.suppress(FileNotFoundError):  # its writer was quicker
                    reason = "it is being written" if _is_locked(path) else None
                    created = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
                    thing = CloudObject("partial file", str(path))
                    found.append(plugin.FoundObject(thing, name["key"], "", created, reason))
        return found

    def check(self, targetdata: Mapping[str, JsonValue] | None, region: str | None) -> Iterable[Finding]:
        """Look at the directory."""
        try:
            directory = self._directory()
        except ConfigError as exc:
            yield Finding(Level.FAILURE, "[directory]", exc.message, exc.hint)
            return
        if os.access(directory, os.W_OK | os.X_OK):
            free_gib = shutil.disk_usage(directory).free / (1 << 30)
            yield Finding(Level.OK, str(directory), f"has {free_gib:.1f} GiB free")
        else:
            yield Finding(Level.FAILURE, str(directory), "may not be written by this user")

    def _directory(self) -> Path:
        path = Path(self._setting)
        if not path.is_absolute() or not path.is_dir():
            found = f"'{path}' is no absolute path of a directory" if self._setting else "is missing"
            hint = "It says where images are copied to."
            raise ConfigError(f"the setting path in [directory] {found}", hint=hint)
        return path

    def _destination(self, image: Image, cancel: Cancel) -> tuple[Path, bool]:
        """Where the image is to be, and whether it is; raises if it can't be."""
        path = self._directory() / image.filename
        free_bytes = shutil.disk_usage(path.parent).free
        with cancel.interruptible():
            if path.is_file() and filecmp.cmp(path, image.path, shallow=False):
                return path, True
        if os.path.lexists(path):
            raise CannotCreateError(f"{path} is there already, and is not the same", hint="It stays.")
        if free_bytes < image.size_bytes:
            raise CannotCreateError(f"{path} needs {image.size_bytes} bytes, but {free_bytes} are free")
        return path, False


def create(context: plugin.PlatformContext) -> DirectoryPlatform:
    """Make the platform; this is what the entry point names."""
    return DirectoryPlatform(context)


@contextlib.contextmanager
def _os_errors_as_ours() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"{exc.filename2 or exc.filename or 'the copy'}: {exc.strerror}") from exc


@contextlib.contextmanager
def _partial_file(directory: Path, key: str, reporter: Reporter) -> Iterator[BinaryIO]:
    path = directory / f".clouduploader-{key}-{secrets.token_hex(4)}.part"
    with path.open("xb") as file:
        try:
            reporter.event(plugin.ObjectCreated(CloudObject("partial file", str(path))))
            fcntl.flock(file, fcntl.LOCK_EX)  # somebody who took it for dead before that makes the link fail
            yield file
        finally:
            path.unlink(missing_ok=True)
            reporter.event(plugin.ObjectRemoved(CloudObject("partial file", str(path))))


def _copy(image: Image, file: BinaryIO, reporter: Reporter, cancel: Cancel) -> str:
    """Copy all of it; the SHA-256 of what was copied, in hex."""
    sha256, done_bytes = hashlib.sha256(), 0
    with image.path.open("rb") as source:
        while block := source.read(BLOCK_BYTES):
            cancel.raise_if_requested()
            file.write(block)
            sha256.update(block)
            done_bytes += len(block)
            reporter.event(plugin.BytesMoved(done_bytes, image.size_bytes))
    if done_bytes != image.size_bytes:
        raise LocalIOError(f"{image.path} changed while it was read")
    file.flush()
    os.fsync(file.fileno())
    reporter.line(f"SHA-256: {sha256.hexdigest()}")
    return sha256.hexdigest()


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove_unless_locked(path: Path) -> bool:
    """Remove a partial file that nobody writes any more; say whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:  # locked, or not ours to touch
        return False
    return True


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
