"""The file of a packed image, read once from its beginning to its end, and the errors that its data can have."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from clouduploader.errors import ImageError, LocalIOError, TransientError
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

READ_BYTES = 1 << 17  # more is no faster, and damage is told to within this
XZ_MEMORY_BYTES = 1 << 28  # four times what `xz -9` needs to unpack, xz(1); a header can ask for 4 GiB


class PackedFile:
    """A file that is read once, from its first byte to its last.

    Attributes:
        filename: Names it in errors.
        offset: How much was read.
        size_bytes: How large it was when it was described.
    """

    def __init__(
        self,
        file: BinaryIO,
        image: Image,
        on_bytes: Callable[[int], None] | None,
        cancel: Cancel,
        overlook: Callable[[str], None] | None,
    ) -> None:
        self.filename = image.filename
        self.size_bytes = image.size_bytes
        self.offset = 0
        self._file = file
        self._path = image.path
        self._arrival = image.arrival
        self._on_bytes = on_bytes
        self._cancel = cancel
        self._overlook = overlook
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next bytes; fewer only at the end.

        Raises:
            LocalIOError: They can't be read.
            StoppedError: The stop was requested.
        """
        self._await(self.offset, size)
        with _translated(self._path):
            data = self._file.read(size)
        self.offset += len(data)
        self._digest.update(data)
        if self._on_bytes:
            self._on_bytes(self.offset)
        return data

    def peek(self, offset: int, size: int) -> bytes:
        """Return bytes from anywhere, fewer only at the end; `read` is not affected.

        Raises:
            LocalIOError: They can't be read.
            StoppedError: The stop was requested.
        """
        self._await(offset, size)
        with _translated(self._path):
            return os.pread(self.fd, size, offset)

    def _await(self, offset: int, size: int) -> None:
        """Wait for bytes that are to be read, if the file still comes."""
        self._cancel.raise_if_requested()
        if self._arrival:
            self._arrival.wait(offset, min(offset + size, self.size_bytes))

    def object_to(self, message: str, hint: str) -> None:
        """Raise an error for what other programs may pass, unless that is forced.

        Raises:
            ImageError: It is not forced.
        """
        if self._overlook is None:
            raise ImageError(message, hint=f"{hint} Or give force, if you know better.")
        self._overlook(message)

    @property
    def fd(self) -> int:
        """Its descriptor, open as long as the file is."""
        return self._file.fileno()

    def sha256(self) -> str:
        """Return the digest, in hex, of what was read."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def open_packed(
    image: Image,
    *,
    cancel: Cancel,
    on_bytes: Callable[[int], None] | None = None,
    overlook: Callable[[str], None] | None = None,
) -> Iterator[PackedFile]:
    """Open an image's file; closed when the context ends.

    Args:
        image: See Image.
        cancel: Honoured at each read.
        on_bytes: Called after each read with how many bytes were read.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Raises:
        LocalIOError: It can't be opened.
    """
    with contextlib.ExitStack() as stack:
        with _translated(image.path):
            file = stack.enter_context(image.path.open("rb"))
        yield PackedFile(file, image, on_bytes, cancel, overlook)


@contextlib.contextmanager
def _translated(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror or exc}") from exc


def damage_error(filename: str, compression: Compression, where: str, exc: Exception) -> ImageError:
    """Return the error for what a decoder said of its data."""
    reason = str(exc)
    if "emory" in reason:  # "Memory usage limit exceeded", of lzma
        return memory_limit_error(filename, XZ_MEMORY_BYTES)
    if "nsupported options" in reason:
        return ImageError(
            f"{filename} can't be unpacked: its {compression} data {where} need a filter that is not known here",
            hint="Unpack it first, with a newer xz.",
        )
    return ImageError(f"{filename} is damaged: bad {compression} data {where} ({reason})")


def memory_limit_error(filename: str, limit_bytes: int) -> ImageError:
    """Return the error for data that may be sound, but need more memory than is allowed."""
    return ImageError(
        f"{filename} needs more than {limit_bytes >> 20} MiB of memory to be unpacked, the most that is allowed here",
        hint="Unpack it first, or pack it anew in a way that needs less, such as `xz -9` or `zstd -19`.",
    )


def memory_error(filename: str) -> TransientError:
    """Return the error for a machine without the memory that is allowed."""
    return TransientError(f"there is not enough memory on this machine to unpack {filename}", hint="Unpack it first.")


def truncation_error(file: PackedFile, compression: Compression) -> ImageError:
    """Return the error for packed data that end too early."""
    return ImageError(f"{file.filename} is cut off: the {compression} data end too early, at byte {file.size_bytes}")


def garbage_error(file: PackedFile, compression: Compression, where: int) -> ImageError:
    """Return the error for data behind the end that are no further stream."""
    message, hint = trailing_data(file, compression, where)
    return ImageError(message, hint=hint)


def trailing_data(file: PackedFile, compression: Compression, where: int) -> tuple[str, str]:
    """Return message and hint for data behind the end that are no further stream."""
    return (
        f"{file.filename} has something else behind the end of its {compression} data, at byte {where}: "
        "a signature, or more data that are damaged",
        cut_hint(where),
    )


def cut_hint(where: int) -> str:
    """Return how to get rid of what lies behind a byte."""
    return f"If the image ends there, `head -c {where}` makes a file without it; or unpack it first."
