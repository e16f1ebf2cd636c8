"""A tarball with an image in it; hostile until read to its end."""

import io
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from clouduploader.errors import ImageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 20  # read at a time: constant memory, and few calls
MAX_MEMBERS = 1000  # of a tarball; with the image lie a few checksums and texts
MAX_MEMBER_BYTES = 1 << 44  # of a tarball; no disk of a cloud is larger. tarfile would skip what is not there
MAX_EXTENSION_BYTES = 1 << 20  # of a header that goes on in a member of its own; tarfile keeps it in memory


class _ChunkFile(io.RawIOBase):
    """The chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A member whose header asks for nothing absurd."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        _check_size(member, MAX_EXTENSION_BYTES if member.type in _EXTENSIONS else MAX_MEMBER_BYTES)
        return member


def _check_size(member: tarfile.TarInfo, limit_bytes: int) -> None:
    if not 0 <= member.size <= limit_bytes:
        raise tarfile.ReadError(f"a member of {member.size} bytes")


def raw_size(chunks: Iterator[bytes], filename: str) -> int:
    """Read a tarball to its end, and tell the size of the one `.raw` file in it.

    Args:
        chunks: Its bytes, unpacked.
        filename: Its name, for errors.

    Raises:
        ImageError: It is damaged, absurd, or has not exactly one such file.
    """
    reader = io.BufferedReader(_ChunkFile(chunks), BLOCK_BYTES)
    sizes = []
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=BLOCK_BYTES, tarinfo=_Member) as archive:
            for number, member in enumerate(archive):
                _check_size(member, MAX_MEMBER_BYTES)  # an extension of its header may have changed it
                if number == MAX_MEMBERS:
                    raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
                if member.isfile() and member.name.endswith(".raw"):
                    sizes.append(member.size)
    except (tarfile.TarError, ArithmeticError, LookupError, RecursionError, ValueError) as exc:
        # the others are tarfile's own, by headers that nobody writes in earnest
        raise ImageError(f"{filename} is a damaged tarball: {exc}") from exc
    while reader.read(BLOCK_BYTES):
        pass  # tarfile stops at its end mark; the packing may still be damaged behind it
    if len(sizes) != 1:
        raise ImageError(f"{filename} is a tarball with {len(sizes)} .raw files in it, not one")
    return sizes[0]
