"""A tarball with an image in it; hostile until read to its end."""

import io
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clouduploader.contents import DiskFormat
from clouduploader.errors import ImageError
from clouduploader.image import magic

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 17  # read at a time: tarfile copies what it has read ahead at each read
MAX_MEMBERS = 1000  # of a tarball; with the image lie a few checksums and texts
MAX_MEMBER_BYTES = 1 << 44  # of a tarball; no disk of a cloud is larger. tarfile would skip what is not there
MAX_EXTENSION_BYTES = 1 << 20  # of a header that goes on in a member of its own; tarfile keeps it in memory
MAX_HEADER_BYTES = 8 << 20  # of all headers with what goes with them; as lists, tarfile takes ten times as much
_BOOT_SIGNATURE = slice(510, 512)  # UEFI 5.2.1, table 5.1; a GPT has it too, in its protective MBR
_LINUX = slice(0x202, 0x206)  # Documentation/arch/x86/boot.rst, "header"; the boot signature lies before it


class _ChunkFile(io.RawIOBase):
    """The chunks as a file.

    Attributes:
        limit: How much may be read, or None.
        done_bytes: How much was read.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.done_bytes = 0
        self.limit: int | None = MAX_HEADER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if self.limit is not None and self.done_bytes > self.limit:
            raise tarfile.ReadError(f"headers of more than {MAX_HEADER_BYTES} bytes")
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self.done_bytes += size
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
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if any(buf):  # it would be taken for the end of the archive
                raise tarfile.ReadError(str(exc)) from exc
            raise
        _check_size(member, MAX_EXTENSION_BYTES if member.type in _EXTENSIONS else MAX_MEMBER_BYTES)
        return member


def _check_size(member: tarfile.TarInfo, limit_bytes: int) -> None:
    if not 0 <= member.size <= limit_bytes:
        raise tarfile.ReadError(f"a member of {member.size} bytes")


def image(chunks: Iterator[bytes], filename: str, *, is_by_name: bool) -> Iterator[bytes]:
    """The one image in a tarball, in pieces; the tarball is read to its end.

    An image is what is called `.raw`; as long as there was none, also what begins as a disk does.

    Args:
        chunks: Its bytes, unpacked.
        filename: Its name, for errors.
        is_by_name: Whether only what is called `.raw` is one, as for ec2uploadimg.

    Raises:
        ImageError: It is damaged, absurd, cut off, or has not exactly one image; perhaps after the last piece.
    """
    source = _ChunkFile(chunks)
    reader = io.BufferedReader(source, BLOCK_BYTES)
    found = ""
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=BLOCK_BYTES, tarinfo=_Member) as archive:
            for member in _members(archive, source):
                is_raw = member.name.endswith(".raw")
                if not member.isfile() or (not is_raw and (is_by_name or found.endswith(".raw"))):
                    continue
                pieces = _contents(archive, member)
                head = b"" if is_raw else next(pieces, b"")
                if not is_raw and not _is_disk(head):
                    continue
                if found:
                    raise ImageError(
                        f"{filename} is a tarball with two images in it, {found} and, at byte {member.offset_data} of "
                        f"that, {member.name}",
                        hint="Leave one of them out.",
                    )
                found = member.name
                if head:
                    yield head
                yield from pieces
            source.limit = None
            _check_end(archive, filename)
    except (tarfile.TarError, ArithmeticError, LookupError, RecursionError, ValueError) as exc:
        # the others are tarfile's own, by headers that nobody writes in earnest
        raise ImageError(f"{filename} is a damaged tarball: {exc}, before byte {source.done_bytes} of that") from exc
    if not found:
        what = "is called .raw" if is_by_name else "is called .raw or begins as a disk does"
        raise ImageError(f"{filename} is a tarball of {source.done_bytes} bytes in which nothing {what}")


def _is_disk(head: bytes) -> bool:
    """Whether a file begins as a virtual disk, or with a boot sector, as Linux does too, which has a magic."""
    if len(head) < magic.HEAD_BYTES or head[_LINUX] == b"HdrS":
        return False
    return head[_BOOT_SIGNATURE] == b"\x55\xaa" or magic.disk_format_of(head) is not DiskFormat.RAW


def _members(archive: tarfile.TarFile, source: _ChunkFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tarball; each may be read until the next is asked for."""
    limit = MAX_HEADER_BYTES
    number = 0
    while (member := archive.next()) is not None:
        _check_size(member, MAX_MEMBER_BYTES)  # an extension of its header may have changed it
        if number == MAX_MEMBERS:
            raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
        source.limit = None
        yield member
        limit += archive.offset - member.offset_data
        source.limit = limit
        archive.members.clear()  # type: ignore[attr-defined] # it would keep them all; typeshed has no word of it
        number += 1


def _check_end(archive: tarfile.TarFile, filename: str) -> None:
    """Read the end mark, a block of zeros at least, zeros that fill the last record, and the end of the packing."""
    stream: Any = archive.fileobj  # that of a pipe; typeshed does not know that it is one
    if stream.tell() == archive.offset:
        raise tarfile.ReadError("it has no end mark, so that it may be cut off")
    while padding := stream.read(BLOCK_BYTES):
        if garbage := padding.lstrip(b"\0"):
            where = stream.tell() - len(garbage)
            raise ImageError(f"{filename} has garbage behind the end of its tarball, at byte {where} of that")


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    sparse: Any = member  # typeshed has its map as a number
    if sparse.sparse is not None:
        sparse.sparse = [(offset, size) for offset, size in sparse.sparse if size]  # the others fill up a header
        end = 0
        for offset, size in sparse.sparse:
            if offset < end or size < 0 or offset + size > member.size:
                raise tarfile.ReadError("a map of holes that makes no sense")
            end = offset + size
    file = archive.extractfile(member)
    while file and (piece := file.read(BLOCK_BYTES)):
        yield piece
