"""A disk as one stream of bytes: raw, as a fixed VHD, as a tar.gz for Google, or the qcow2 file that it lies in."""

import contextlib
import hashlib
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, cast

from clouduploader.errors import ImageError
from clouduploader.image import decompress, packed_file
from clouduploader.model import vhd
from clouduploader.model.disk import BlockSource, Compression, DiskFormat, Encoding, Image, ImageStream, ZeroBlocks
from clouduploader.plugin import CheckUnchanged
from clouduploader.util.cancel import Cancel

PIECE_BYTES = 1 << 20  # of the disk; three of them are in memory at most
GOOGLE_ALIGNMENT_BYTES = 1 << 30  # "size in an increment of 1 GB", Compute Engine, "Import a boot disk image manually"
GOOGLE_MEMBER = "disk.raw"  # in the same place, and that it is `tar --format=oldgnu`
GZIP_LEVEL = 1  # on programs, isal packs no better with 2; zlib does by 8% with 6, in three times the time
UNIQUE_ID_BYTES = 16  # of a VHD
_ZEROS = bytes(PIECE_BYTES)
_GZIP_WBITS = 16 + zlib.MAX_WBITS  # 16: a gzip header, zlib manual; it has neither time nor name

OpenBlocks = Callable[[int, ZeroBlocks], AbstractContextManager[BlockSource]]
"""See UploadRequest."""


class _Compressor(Protocol):
    """As zlib has it."""

    def compress(self, data: bytes, /) -> bytes:
        """Take some bytes, give some packed ones, or none."""

    def flush(self) -> bytes:
        """The end of the packed ones."""


class _Stream:
    """See ImageStream.

    Args:
        pieces: Its bytes; the last piece comes only once all is known to be well.
        size_bytes: Of all of them, or None.
        digest: Its name, as hashlib has it.
    """

    def __init__(self, pieces: Iterator[bytes], size_bytes: int | None, digest: str) -> None:
        self.size_bytes = size_bytes
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._digest = hashlib.new(digest, usedforsecurity=False)
        self._error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        """See ImageStream; fewer bytes than asked for come only at the end."""
        data = b"".join(self._taken(sys.maxsize if size < 0 else size))
        self._digest.update(data)
        return data

    def _taken(self, size: int) -> Iterator[memoryview]:
        while size and (self._rest or self._has_next()):
            part = self._rest[:size]
            self._rest = self._rest[len(part) :]
            size -= len(part)
            yield part

    def _has_next(self) -> bool:
        """Take the next piece; tell whether there is one."""
        if self._error:  # what is missing behind it must not look like the end
            raise self._error
        try:
            self._rest = memoryview(next(self._pieces, b""))
        except BaseException as exc:
            self._error = exc
            raise
        return bool(self._rest)

    def __iter__(self) -> Iterator[bytes]:
        """See ImageStream; all pieces but the last have one size.

        One that has it already is not copied: the pages that a copy is given cost a third of what its SHA-512 does.
        """
        while self._rest or self._has_next():
            whole = self._rest.obj
            if isinstance(whole, bytes) and len(whole) == len(self._rest) == PIECE_BYTES:
                self._rest = memoryview(b"")
                self._digest.update(whole)
                yield whole
            else:
                yield self.read(PIECE_BYTES)

    def hexdigest(self) -> str:
        """See ImageStream."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Give no bytes any more."""
        self._rest = memoryview(b"")
        self._error = self._error or ValueError("the stream is closed")


@contextlib.contextmanager
def open_stream(
    open_blocks: OpenBlocks,
    *,
    image: Image,
    check_unchanged: CheckUnchanged,
    cancel: Cancel,
    encoding: str = Encoding.RAW,
    digest: str = "sha256",
    size_bytes: int | None = None,
) -> Iterator[ImageStream]:
    """Give a disk as one stream; each call begins anew, and gives the same bytes again.

    Args:
        open_blocks: Opens the disk; see UploadRequest.
        image: The same disk.
        check_unchanged: See UploadRequest; called where the image file itself is sent.
        cancel: Honoured where the image file itself is sent; what `open_blocks` gives has its own.
        encoding: One of Encoding. For tar.gz an image whose size is not known is read to its end first; that blocks
            for as long as unpacking takes.
        digest: Of the bytes of the stream; its name, as hashlib has it.
        size_bytes: Of the raw disk, exactly; None if that is not known.

    Yields:
        The stream. Its last bytes come only after the whole image was found to be well. Memory: a few MiB.

    Raises:
        ImageError: It can't be a disk, as far as that can be told now; it is no qcow2, where that was asked for.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
        UnavailableError: It can't be unpacked here.
        ValueError: There is no such encoding, or digest.
    """
    with contextlib.ExitStack() as stack:

        def opened_disk() -> Iterator[bytes]:
            return _disk(stack.enter_context(open_blocks(PIECE_BYTES, ZeroBlocks.SEND)), size_bytes, image.filename)

        stream_bytes = None
        match Encoding(encoding):
            case Encoding.RAW:
                pieces, stream_bytes = opened_disk(), size_bytes
            case Encoding.VHD:
                pieces = _vhd(opened_disk())
                if size_bytes is not None:
                    stream_bytes = vhd.padded_bytes(size_bytes) + vhd.FOOTER_BYTES
            case Encoding.TAR_GZ:
                if size_bytes is None:
                    size_bytes = _measured(open_blocks)
                pieces = _packed(_tarball(opened_disk(), size_bytes))
            case Encoding.QCOW2:
                _require_qcow2(image, open_blocks)
                file = stack.enter_context(packed_file.open_packed(image, cancel=cancel))
                pieces, stream_bytes = _file(file, check_unchanged), image.size_bytes
        yield stack.enter_context(contextlib.closing(_Stream(pieces, stream_bytes, digest)))


def _measured(open_blocks: OpenBlocks) -> int:
    """The size of the raw disk, by reading it to its end."""
    buffer = bytearray(PIECE_BYTES)
    with open_blocks(PIECE_BYTES, ZeroBlocks.SKIP) as source:
        while source.next_into(buffer):
            pass
        return source.stats().size_bytes


def _disk(source: BlockSource, size_bytes: int | None, filename: str) -> Iterator[bytes]:
    """The raw disk; its last piece only when the source has said that all is well.

    Raises:
        ImageError: It has another size than was said.
    """
    buffer = bytearray(PIECE_BYTES)
    passed_bytes, held = 0, b""
    while block := source.next_into(buffer):
        if size_bytes is not None and passed_bytes + len(held) >= size_bytes:
            raise _other_size(filename, f"more than {size_bytes}", size_bytes)
        if held:
            yield held
            passed_bytes += len(held)
        held = _ZEROS if block.is_zero else bytes(buffer)
    found_bytes = source.stats().size_bytes
    if size_bytes is not None and found_bytes != size_bytes:
        raise _other_size(filename, str(found_bytes), size_bytes)
    yield held[: found_bytes - passed_bytes]


def _other_size(filename: str, found: str, expected_bytes: int) -> ImageError:
    return ImageError(f"{filename} holds a disk of {found} bytes, not of {expected_bytes} as it seemed")


def _padded(size_bytes: int, alignment_bytes: int) -> int:
    return -(-size_bytes // alignment_bytes) * alignment_bytes


def _zeros(size_bytes: int) -> Iterator[bytes]:
    for left in range(size_bytes, 0, -PIECE_BYTES):
        yield _ZEROS[:left]


def _vhd(disk: Iterator[bytes]) -> Iterator[bytes]:
    """A fixed VHD, the same in each try: its id is made from the beginning of the disk, where a GPT has its own."""
    head, disk = decompress.split_head(disk, 1)
    unique_id = hashlib.sha256(head).digest()[:UNIQUE_ID_BYTES]
    size_bytes = 0
    for piece in disk:
        size_bytes += len(piece)
        yield piece
    padded_bytes = vhd.padded_bytes(size_bytes)
    yield from _zeros(padded_bytes - size_bytes)
    yield vhd.fixed_footer(padded_bytes, unique_id)


def _tarball(disk: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """A tar archive of GNU tar's old format, without owner and time.

    Holes are in it as zeros, not in a map: packed they take a thousandth, and their map would take another reading.
    """
    member = tarfile.TarInfo(GOOGLE_MEMBER)
    member.size = _padded(size_bytes, GOOGLE_ALIGNMENT_BYTES)
    header = member.tobuf(tarfile.GNU_FORMAT)
    yield header
    yield from disk
    end_bytes = _padded(len(header) + member.size + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
    yield from _zeros(end_bytes - len(header) - size_bytes)


def _packed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, packed with gzip; no piece is empty."""
    compressor = _compressor()
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()


def _compressor() -> _Compressor:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WBITS)
    return cast("_Compressor", isal_zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WBITS))


def _require_qcow2(image: Image, open_blocks: OpenBlocks) -> None:
    """See that a file can be sent as it is: that it is whole, stands alone, and holds no larger disk than is allowed.

    Raises:
        ImageError: It is something else, or packed, or not that.
    """
    if image.compression is not Compression.RAW or image.disk_format is not DiskFormat.QCOW2:
        kind = f"a {image.disk_format}" if image.compression is Compression.RAW else f"packed with {image.compression}"
        raise ImageError(
            f"{image.filename} can't be sent as a qcow2: it is {kind}",
            hint="Unpack it, or convert it with `qemu-img convert -O qcow2`.",
        )
    with open_blocks(PIECE_BYTES, ZeroBlocks.HOLES):
        pass


def _file(file: packed_file.PackedFile, check_unchanged: CheckUnchanged) -> Iterator[bytes]:
    """A file, as much of it as was described; the last piece only when that is found to be all, and unchanged."""
    held = b""
    while piece := file.read(min(PIECE_BYTES, file.size_bytes - file.offset)):
        if held:
            yield held
        held = piece
    check_unchanged(file.sha256())
    yield held
