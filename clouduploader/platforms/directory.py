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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar

from clouduploader.errors import CannotCreateError, ClouduploaderError, ConfigError, LocalIOError, NotOwnerError
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    Context,
    Field,
    FieldKind,
    Finding,
    FoundObject,
    Level,
    ObjectCreated,
    ObjectRemoved,
    Platform,
    Reporter,
    UploadContext,
    UploadResult,
)

BLOCK_BYTES = 1 << 20  # progress is told, and a cancellation seen, some hundred times a second
PARTIAL = "partial file"
_PARTIAL_NAME = re.compile(r"\.clouduploader-(?P<key>[0-9a-f]{32})-[0-9a-f]{8}\.part")


class DirectoryPlatform(Platform):
    """The platform `directory`."""

    description = "Copies the image into a directory; the result is its path."
    fields = (
        Field.FILENAME,
        Field.SHA256,
        Field(
            name="force",
            description="Whether to copy what is known not to be a disk.",
            kind=FieldKind.BOOLEAN,
            help="Copy IMAGE even if it is known not to be a disk.",
        ),
    )
    settings_defaults: ClassVar[Mapping[str, str]] = {"path": ""}
    needs_disk = False

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Name the file that an error of the system is about."""
        if isinstance(exc, OSError):
            return LocalIOError(f"{exc.filename2 or exc.filename or subject}: {exc.strerror}")
        return None

    def plan(self, ctx: UploadContext) -> Iterable[str]:
        """Look whether the image is the one that was promised, is there already, or has room."""
        with ctx.translated("the copy"):
            path, is_there = self._destination(ctx)
            ctx.request.check_unchanged(_sha256(ctx))
        yield f"leave {path} as it is, for it is the same" if is_there else f"copy the image to {path}"

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Copy the image, or find that it is there already."""
        with ctx.phase("check"):
            path, is_there = self._destination(ctx)
            copy = CloudObject("file", str(path))
            self._remove_dead(path.parent, ctx.reporter)
        if is_there:
            ctx.request.check_unchanged(_sha256(ctx))
            ctx.reporter.line(f"{path} is there already, and the same.")
            return UploadResult(copy.id, (copy,), is_already_there=True)
        with ctx.phase("copy"):
            partial = path.with_name(f".clouduploader-{ctx.request.journal.key}-{secrets.token_hex(4)}.part")
            with contextlib.ExitStack() as stack:
                with ctx.creating(PARTIAL) as created:
                    file = stack.enter_context(_open_locked(partial))
                    made = created(str(partial))
                ctx.request.check_unchanged(_copy(ctx, file))
                ctx.cancel.raise_if_requested()
                os.link(partial, path)  # unlike a rename it never overwrites
                ctx.reporter.event(ObjectCreated(copy))
                partial.unlink(missing_ok=True)
                ctx.reporter.event(ObjectRemoved(made))
            _sync(path.parent)
        return UploadResult(copy.id, (copy,))

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Remove a partial file that no run writes any more; a complete image stays."""
        path = Path(thing.id)
        if path.parent != self._directory() or not _PARTIAL_NAME.fullmatch(path.name):
            raise NotOwnerError("only partial files are removed")
        if not _remove_unless_locked(path):
            raise NotOwnerError("it is being written, or not ours")

    def find(self, ctx: Context, key: str | None) -> Iterator[FoundObject]:
        """Look for partial files; an image that is complete bears no mark of its upload."""
        with ctx.translated("the directory"):
            for path in sorted(self._directory().iterdir()):
                name = _PARTIAL_NAME.fullmatch(path.name)
                if not name or key not in (None, name["key"]):
                    continue
                with contextlib.suppress(FileNotFoundError):  # its writer was quicker
                    reason = "it is being written" if _is_locked(path) else None
                    created = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
                    yield FoundObject(CloudObject(PARTIAL, str(path)), name["key"], "", created, reason)

    def check(self, ctx: Context) -> Iterator[Finding]:
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
        setting = self.settings["path"]
        path = Path(setting)
        if not path.is_absolute() or not path.is_dir():
            found = f"'{path}' is no absolute path of a directory" if setting else "is missing"
            hint = "It says where images are copied to."
            raise ConfigError(f"the setting path in [directory] {found}", hint=hint)
        return path

    def _destination(self, ctx: UploadContext) -> tuple[Path, bool]:
        """Return where the image is to be, and whether it is; raise if it can't be."""
        image = ctx.request.image
        path = self._directory() / image.filename
        free_bytes = shutil.disk_usage(path.parent).free
        with ctx.cancel.interruptible():
            if path.is_file() and filecmp.cmp(path, image.path, shallow=False):
                return path, True
        if os.path.lexists(path):
            raise CannotCreateError(f"{path} is there already, and is not the same", hint="It stays.")
        if free_bytes < image.size_bytes:
            raise CannotCreateError(f"{path} needs {image.size_bytes} bytes, but {free_bytes} are free")
        return path, False

    @staticmethod
    def _remove_dead(directory: Path, reporter: Reporter) -> None:
        """Remove the partial files of runs that were killed."""
        for path in directory.iterdir():
            if _PARTIAL_NAME.fullmatch(path.name) and _remove_unless_locked(path):
                reporter.line(f"Removed {path}, left from a run that was killed.")


def _sha256(ctx: UploadContext) -> str:
    """Read all of the image; return its SHA-256 in hex."""
    with ctx.request.image.path.open("rb") as file, ctx.cancel.interruptible():
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(ctx: UploadContext, file: BinaryIO) -> str:
    """Copy all of the image; return the SHA-256 of what was copied, in hex."""
    image, sha256, done_bytes = ctx.request.image, hashlib.sha256(), 0
    with image.path.open("rb") as source:
        while block := source.read(BLOCK_BYTES):
            ctx.cancel.raise_if_requested()
            file.write(block)
            sha256.update(block)
            done_bytes += len(block)
            ctx.reporter.event(BytesMoved(done_bytes, image.size_bytes))
    if done_bytes != image.size_bytes:
        raise LocalIOError(f"{image.path} changed while it was read")
    file.flush()
    os.fsync(file.fileno())
    ctx.reporter.line(f"SHA-256: {sha256.hexdigest()}")
    return sha256.hexdigest()


def _open_locked(path: Path) -> BinaryIO:
    """Make a partial file and lock it; made again if another run took it for dead before it was locked."""
    while True:
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(path.open("xb"))
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                undo.pop_all()
                return file


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove_unless_locked(path: Path) -> bool:
    """Remove a partial file that no run writes any more; return whether it is gone."""
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
