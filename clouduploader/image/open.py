"""Open an image file of any compression and format as a raw disk: its size, its blocks, parts of it.

The bytes tell what a file is, never its name: in OBS's spool every image is `N.file`.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import ImageError, LocalIOError, MissingFileError, UnavailableError
from clouduploader.image import decompress, magic
from clouduploader.image.packed_file import PackedFile, open_packed
from clouduploader.model import vhd
from clouduploader.model.disk import BlockSource, Compression, DiskFormat, Image, NoDisk, ReadStats, ZeroBlocks
from clouduploader.plugin import Reporter
from clouduploader.util.arrival import Arrival
from clouduploader.util.cancel import Cancel

# `describe` alone need not wait for what reads blocks: that is imported where it is needed.
if TYPE_CHECKING:
    from clouduploader.image.bmap import Bmap
    from clouduploader.image.partial_read import PartialReader
    from clouduploader.image.raw_disk import RawDisk

SECTOR_BYTES = 512  # of all disks there are, or a divisor of it
DIGEST_BYTES = 1 << 20  # read at a time
AROUND_BYTES = 1 << 20  # ours: what may lie around a disk: a footer, the texts in a tarball
MAX_HASHED_HOLE_BYTES = 16 << 30  # ours: of a virtual disk, whose holes cost nothing else; some ten seconds
_MAPPED = (DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VHD_DYNAMIC)  # with a table of where the blocks are


def describe(path: Path, filename: str, cancel: Cancel, arrival: Arrival | None = None) -> Image:
    """Describe an image file by its first bytes.

    Args:
        path: The file, or a link to it.
        filename: Its real base name.
        cancel: Honoured while its beginning is unpacked.
        arrival: Tells how much of it is there; None for all of it.

    Raises:
        MissingFileError: There is no such file.
        LocalIOError: It can't be read.
        ImageError: It is empty, or no regular file.
        StoppedError: The stop was requested.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise ImageError(f"the image {path} is not a regular file")
            raise MissingFileError(f"there is no image {path}")
        with path.open("rb") as file:
            identity = _identity(os.fstat(file.fileno()))
            if arrival:
                arrival.wait(0, min(magic.HEAD_BYTES, identity[2]))
            head = file.read(magic.HEAD_BYTES)
        size_bytes = identity[2]
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
    if not size_bytes:
        raise ImageError(f"the image {filename} is empty")
    image = Image(path, filename, magic.compression_of(head), size_bytes, identity=identity, arrival=arrival)
    with open_packed(image, cancel=cancel, overlook=lambda _message: None) as packed:
        if image.compression is Compression.RAW:
            disk_format = magic.disk_format_of(head)
            if disk_format is DiskFormat.RAW and _is_fixed(vhd.parse_footer(_end_of(packed))):
                disk_format = DiskFormat.VHD
            return dataclasses.replace(image, disk_format=disk_format)
        with contextlib.suppress(ImageError, UnavailableError):  # raised again when it is unpacked
            head, _ = decompress.split_head(decompress.unpack(packed, image.compression), magic.HEAD_BYTES)
            is_tarball = magic.compression_of(head) is Compression.TAR
            disk_format = DiskFormat.RAW if is_tarball else magic.disk_format_of(head)
            return dataclasses.replace(image, is_tarball=is_tarball, disk_format=disk_format)
    return image


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def await_file(image: Image) -> None:
    """Wait until all of an image's file is there, for what opens it by its path.

    Raises:
        TransientError: It will not come.
        StoppedError: The stop was requested.
    """
    if image.arrival:
        image.arrival.wait_for_all()


def check_unchanged(image: Image, sha256: str | None = None, expected_sha256: str | None = None) -> None:
    """Check that a file that was read is the one that was described, and unchanged.

    Args:
        image: See Image.
        sha256: Of what was read, in hex, or None.
        expected_sha256: What the file is to have, in hex, or None.

    One that still comes must have come whole, which its writer says once it has compared the digest.

    Raises:
        ImageError: It was written to, or replaced; or has another digest.
        LocalIOError: That can't be told.
        TransientError: It did not come whole.
        StoppedError: The stop was requested while it came.
    """
    expected = image.identity
    if expected and image.arrival:
        expected = (*expected[:3], image.arrival.wait_for_all())
    try:
        identity = _identity(image.path.stat())
    except OSError as exc:
        raise LocalIOError(f"the image {image.path} can't be read: {exc.strerror}") from exc
    if expected and identity != expected:
        raise ImageError(
            f"{image.filename} changed while it was read: it was written to, or replaced",
            hint="Upload it once it is complete.",
        )
    if sha256 and expected_sha256:
        from clouduploader.image import file_digest

        file_digest.check(image.filename, sha256, expected_sha256)


def _end_of(packed: PackedFile) -> bytes:
    """Return the last bytes of a file, where the footer of a VHD is."""
    return packed.peek(max(packed.size_bytes - vhd.FOOTER_BYTES, 0), vhd.FOOTER_BYTES)


def _is_fixed(footer: vhd.VhdFooter | None) -> bool:
    return footer is not None and footer.kind is vhd.VhdKind.FIXED


def unpacked_size(image: Image, cancel: Cancel) -> tuple[int | None, bool]:
    """Return the size of the raw disk, as far as headers tell without unpacking.

    What is packed can turn out to be no disk, or damaged.

    Args:
        image: See Image.
        cancel: Honoured while it is read.

    Returns:
        The size, or None if it is not known: gz (whose end has the size of the last member only), bz2, zstd from a
        pipe, tarballs. And whether the disk can't turn out larger: a packed file of whole MiB and 512 bytes looks like
        a fixed VHD, and only reading the blocks shows whether these are its footer.

    Raises:
        ImageError: It is cut off, damaged, or has garbage behind its end.
        LocalIOError: It can't be read.
        MissingProgramError: It takes a program that is not there.
        StoppedError: The stop was requested.
    """
    if image.is_tarball or image.compression in (Compression.GZIP, Compression.BZIP2):
        return None, False
    if image.compression is Compression.RAW:
        with _disk(image, cancel) as disk:
            return disk.size_bytes, True
    from clouduploader.image import xz, zstd

    with open_packed(image, cancel=cancel) as packed:
        if image.compression is Compression.ZSTD:
            size = zstd.unpacked_size(packed)
        else:
            found = xz.read_streams(packed)
            size = None if found is None else xz.unpacked_size(found)
    if size is not None and size % vhd.ALIGNMENT_BYTES == vhd.FOOTER_BYTES:
        return size - vhd.FOOTER_BYTES, False
    return size, size is not None


def measure(
    image: Image,
    *,
    on_bytes: Callable[[int], None],
    cancel: Cancel,
    expected_sha256: str | None = None,
    max_size_bytes: int | None = None,
    is_by_name: bool = True,
    in_sectors: bool = False,
    overlook: Callable[[str], None] | None = None,
) -> int:
    """Unpack an image to its end, keeping nothing, so that damage shows before anything is sent.

    Blocks for as long as unpacking takes; constant memory.

    Args:
        image: Any. One that is not packed has nothing that could show damage, and is only read if it is to have
            a digest.
        on_bytes: Called after each read with how many bytes of the file were read.
        cancel: Honoured between two pieces.
        expected_sha256: What the file is to have, in hex.
        max_size_bytes: The most it may unpack to.
        is_by_name: Whether the image in a tarball is what is called `.raw`, as for a program that goes by names.
        in_sectors: Whether one that ends in the middle of a sector is refused.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Returns:
        The size of the file in the packing: with a fixed VHD's footer, and whatever the format of the disk. Of a
        tarball that of the image in it.

    Raises:
        ImageError: Truncated, damaged, with garbage behind its end, too large, not what the digest promised, or
            a tarball without exactly one image.
        LocalIOError: It can't be read.
        StoppedError: `cancel` was requested.
        UnavailableError: It can't be unpacked here.
    """
    if image.compression is Compression.RAW and not expected_sha256:
        check_unchanged(image)
        _check_size(image, image.size_bytes, max_size_bytes)
        return image.size_bytes
    with open_packed(image, cancel=cancel, on_bytes=on_bytes, overlook=overlook) as packed:
        with contextlib.closing(_unpacked(packed, image, None)) as pieces:
            inside = _file_inside(pieces, image, max_size_bytes, packed, cancel, is_by_name=is_by_name)
            disk = _bounded(inside, image, max_size_bytes, cancel)
            size_bytes = sum(map(len, _whole_sectors(disk, image) if in_sectors else disk))
        check_unchanged(image, packed.sha256(), expected_sha256)
        return size_bytes


@contextlib.contextmanager
def open_blocks(
    image: Image,
    *,
    block_bytes: int,
    zero_blocks: ZeroBlocks,
    expected_sha256: str | None,
    max_size_bytes: int | None,
    cancel: Cancel,
    reporter: Reporter,
    on_bytes: Callable[[int], None] | None = None,
    with_digests: bool = False,
    in_sectors: bool = False,
    overlook: Callable[[str], None] | None = None,
) -> Iterator[BlockSource]:
    """Open the raw disk in an image as blocks, in constant memory and without a temporary file.

    A `.bmap` beside the image says what was ever written, otherwise the map of a sparse file or of a qcow2, VMDK
    or VHD does. A file that is packed is unpacked once, while its blocks are asked for. One that is not packed
    can be read anywhere, unless digests are wanted: these need it in order.

    Args:
        image: See Image.
        block_bytes: Of a block.
        zero_blocks: What becomes of zeros.
        expected_sha256: What the file is to have, in hex.
        max_size_bytes: The most that the disk may have.
        cancel: Honoured at each block.
        reporter: Gets what people should know of this image.
        on_bytes: Called after each read of a packed file with how many bytes of it were read.
        with_digests: Whether the stats is to have both digests; that of a packed file it always has, and that of the
            disk in a qcow2, VMDK or VHD only if hashing its holes does not take longer than all else.
        in_sectors: Whether one that ends in the middle of a sector is refused.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Yields:
        The source. What it needs is gone when the context ends.

    Raises:
        ImageError: It can't be a disk, as far as that can be told now.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
        UnavailableError: It can't be unpacked here.
    """
    from clouduploader.image.blocks import BlockOptions, DiskBlockSource, StreamBlockSource
    from clouduploader.image.raw_disk import read_pieces

    written = _bmap_beside(image, reporter)

    def on_end(stats: ReadStats) -> None:
        check_unchanged(image, stats.file_sha256, expected_sha256)
        if image.compression is not Compression.RAW and written is None and zero_blocks is ZeroBlocks.HOLES:
            _advise(image, stats, block_bytes, reporter)

    options = BlockOptions(
        filename=image.filename,
        block_bytes=block_bytes,
        zero_blocks=zero_blocks,
        written=written.extents if written else None,
        is_promise=written is not None,
        cancel=cancel,
        on_end=on_end,
    )

    with contextlib.ExitStack() as stack:
        if image.compression is Compression.RAW:
            disk = stack.enter_context(_disk(image, cancel))
            _check_size(image, disk.size_bytes, max_size_bytes)
            if written is None:
                options = dataclasses.replace(options, written=disk.extents)
            elif written.size_bytes != disk.size_bytes:
                raise _other_size(image, written, disk.size_bytes)
            has_digest = with_digests or expected_sha256 is not None
            is_mapped = image.disk_format in _MAPPED
            has_raw_digest = with_digests and _is_worth_a_digest(disk) if is_mapped else has_digest
            raw = hashlib.sha256() if has_raw_digest else None

            def file_sha256() -> str | None:
                return _file_sha256(image, None if is_mapped else raw, disk.size_bytes, cancel) if has_digest else None

            if raw is None and not (written and written.sums):
                yield stack.enter_context(contextlib.closing(DiskBlockSource(disk, options, file_sha256=file_sha256)))
                return
            pieces = _as_mapped(read_pieces(disk, decompress.PIECE_BYTES), image, written)
            source = StreamBlockSource(pieces, options, digest=raw, file_sha256=file_sha256)
        else:
            packed = stack.enter_context(open_packed(image, cancel=cancel, on_bytes=on_bytes, overlook=overlook))
            unpacked = stack.enter_context(contextlib.closing(_unpacked(packed, image, reporter)))
            pieces = _raw_disk(_file_inside(unpacked, image, max_size_bytes, packed, cancel), image)
            disk_pieces = _as_mapped(_bounded(pieces, image, max_size_bytes, cancel, written), image, written)
            source = StreamBlockSource(
                _whole_sectors(disk_pieces, image) if in_sectors else disk_pieces,
                options,
                digest=hashlib.sha256() if with_digests else None,
                file_sha256=packed.sha256,
            )
        yield stack.enter_context(contextlib.closing(source))


@contextlib.contextmanager
def open_reader(
    image: Image, cancel: Cancel, overlook: Callable[[str], None] | None = None
) -> Iterator["PartialReader"]:
    """Open the raw disk in an image to read a few parts of it; the beginning costs least.

    Args:
        image: See Image.
        cancel: Honoured while it is read.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Raises:
        ImageError: It can't be a disk, as far as that can be told now.
        LocalIOError: It can't be read.
        StoppedError: The stop was requested.
        UnavailableError: It can't be unpacked here.
    """
    from clouduploader.image import partial_read

    with contextlib.ExitStack() as stack:
        if image.compression is Compression.RAW:
            yield partial_read.RawDiskReader(stack.enter_context(_disk(image, cancel)))
            return

        def begin() -> Iterator[bytes]:
            stack.close()  # what the call before has opened
            packed = stack.enter_context(open_packed(image, cancel=cancel, overlook=overlook))
            unpacked = stack.enter_context(contextlib.closing(decompress.unpack(packed, image.compression)))
            return _raw_disk(_file_inside(unpacked, image, partial_read.MAX_BYTES, packed, cancel), image)

        yield partial_read.StreamReader(begin, image.filename)


@contextlib.contextmanager
def _disk(image: Image, cancel: Cancel) -> Iterator["RawDisk"]:
    """Open the disk in a file that is not packed.

    Raises:
        ImageError: It is damaged.
        LocalIOError: It can't be read.
        MissingProgramError: It takes a program that is not there.
        StoppedError: The stop was requested.
    """
    if image.disk_format in _MAPPED:
        from clouduploader.image import qemu

        await_file(image)
        with qemu.open_disk(image.path, image.disk_format, cancel, filename=image.filename) as disk:
            yield disk
        return
    from clouduploader.image.raw_disk import RawFile, file_extents, without_holes

    with open_packed(image, cancel=cancel) as packed:
        size_bytes = image.size_bytes - _footer_bytes(image, _end_of(packed), image.size_bytes)
        _check_not_empty(image, size_bytes)
        # What has not come looks like a hole.
        extents = without_holes(size_bytes) if image.arrival else file_extents(packed.fd, size_bytes)
        with contextlib.closing(RawFile(packed.fd, size_bytes, extents, image.filename, image.arrival)) as disk:
            yield disk


def _unpacked(packed: PackedFile, image: Image, reporter: Reporter | None) -> Generator[bytes, None, None]:
    """Return an iterator over the contents of a packed file; all cores unpack an xz with several blocks."""
    cores = len(os.sched_getaffinity(0))
    if image.compression is not Compression.XZ or cores == 1:
        return decompress.unpack(packed, image.compression)
    from clouduploader.image import xz

    found = None
    with contextlib.suppress(ImageError):  # reading it in order tells better what is wrong with it
        found = xz.read_streams(packed)
    threads = xz.thread_count(found, cores) if found else 1
    if threads > 1:
        return xz.unpack(packed, found or [], threads)
    if found and reporter and xz.unpacked_size(found) > xz.MAX_BLOCK_BYTES:  # else it is unpacked in a moment
        blocks = "blocks that are too large" if xz.block_count(found) > 1 else "a single block"
        reporter.line(f"{image.filename} has {blocks}, so one core unpacks it; xz -T0 makes files that several can.")
    return decompress.unpack(packed, image.compression)


def _file_inside(
    unpacked: Iterator[bytes],
    image: Image,
    max_size_bytes: int | None,
    packed: PackedFile,
    cancel: Cancel,
    *,
    is_by_name: bool = False,
) -> Iterator[bytes]:
    """Return an iterator over the unpacked file, or the image in the tarball that it is."""
    limit = None if max_size_bytes is None else max_size_bytes + AROUND_BYTES
    pieces = _bounded(unpacked, image, limit, cancel)
    if not image.is_tarball:
        return pieces
    from clouduploader.image import tarball

    return tarball.read_image(pieces, image.filename, is_by_name=is_by_name, object_to=packed.object_to)


def _raw_disk(pieces: Iterator[bytes], image: Image) -> Iterator[bytes]:
    """Yield the disk without a footer behind it; refuse formats that can't be read in order.

    Raises:
        ImageError: It takes more than this, or its footer does not fit.
    """
    head, pieces = decompress.split_head(pieces, magic.HEAD_BYTES)
    disk_format = magic.disk_format_of(head)
    if disk_format is not DiskFormat.RAW:
        raise ImageError(
            f"{image.filename} holds a {disk_format} in its {image.compression} packing, and such a disk can't be read "
            "while it is unpacked",
            hint="Unpack it first.",
        )
    held: deque[bytes] = deque()  # as much of the end as a footer may be
    held_bytes = passed_bytes = 0
    for piece in pieces:
        held.append(piece)
        held_bytes += len(piece)
        while held_bytes - len(held[0]) >= vhd.FOOTER_BYTES:
            held_bytes -= len(held[0])
            passed_bytes += len(held[0])
            yield held.popleft()
    rest = b"".join(held)
    footer_bytes = _footer_bytes(image, rest[-vhd.FOOTER_BYTES :], passed_bytes + len(rest))
    rest = rest[: len(rest) - footer_bytes]
    _check_not_empty(image, passed_bytes + len(rest))
    if rest:
        yield rest


def _bounded(
    pieces: Iterator[bytes], image: Image, max_size_bytes: int | None, cancel: Cancel, written: "Bmap | None" = None
) -> Iterator[bytes]:
    """Yield the same pieces; raise an error if they are too many, or do not fit a map."""
    size_bytes = 0
    for piece in pieces:
        cancel.raise_if_requested()
        size_bytes += len(piece)
        _check_size(image, size_bytes, max_size_bytes)
        yield piece
    if written and written.size_bytes != size_bytes:
        raise _other_size(image, written, size_bytes)


def _check_not_empty(image: Image, size_bytes: int) -> None:
    if not size_bytes:
        raise ImageError(f"{image.filename} holds an empty disk")


def _check_size(image: Image, size_bytes: int, max_size_bytes: int | None) -> None:
    if max_size_bytes is not None and size_bytes > max_size_bytes:
        raise ImageError(
            f"{image.filename} is larger than {max_size_bytes} bytes unpacked: it has {size_bytes} at least",
            hint="Raise --max-size if it is meant to be so large.",
        )


def _footer_bytes(image: Image, end: bytes, size_bytes: int) -> int:
    """Return the size of the footer of a fixed VHD at a file's end: FOOTER_BYTES, or 0.

    Args:
        image: See Image.
        end: Its last bytes, unpacked.
        size_bytes: Of the whole, unpacked.

    Raises:
        ImageError: It is a footer, but of another disk, or damaged.
    """
    if not end.startswith(vhd.COOKIE) or len(end) < vhd.FOOTER_BYTES:
        return 0
    offset = size_bytes - vhd.FOOTER_BYTES
    footer = vhd.parse_footer(end)
    if footer is None or not _is_fixed(footer):
        what = "damaged" if footer is None else "not that of a fixed disk"
        raise ImageError(f"{image.filename} is damaged: its VHD footer at byte {offset} is {what}")
    if footer.size_bytes != offset:
        raise ImageError(
            f"{image.filename} is damaged: its VHD footer at byte {offset} is that of {footer.size_bytes} bytes"
        )
    return vhd.FOOTER_BYTES


def check_sectors(size_bytes: int) -> NoDisk | None:
    """Return why a file of this size is no disk; None if it may be one."""
    if not size_bytes % SECTOR_BYTES:
        return None
    return NoDisk(reason=f"its {size_bytes} bytes are no multiple of {SECTOR_BYTES}", is_known=False)


def no_disk_error(image: Image, no_disk: NoDisk) -> ImageError:
    """Return the error that says why an image is no disk."""
    return ImageError(
        f"{image.filename} is not the image of a disk: {no_disk.reason}",
        hint="Convert it with `qemu-img convert -O raw`, unpack it, or get it anew; force uploads it as it is.",
    )


def _whole_sectors(pieces: Iterator[bytes], image: Image) -> Iterator[bytes]:
    """Yield the same pieces; raise an error at the end if that is not the end of a sector."""
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece)
        yield piece
    if no_disk := check_sectors(size_bytes):
        raise no_disk_error(image, no_disk)


def _is_worth_a_digest(disk: "RawDisk") -> bool:
    """Return whether the holes of a virtual disk are few enough to be hashed."""
    return disk.size_bytes - sum(end - start for start, end in disk.extents) <= MAX_HASHED_HOLE_BYTES


def _advise(image: Image, stats: ReadStats, block_bytes: int, reporter: Reporter) -> None:
    """Report what a .bmap would save."""
    if stats.zero_blocks:
        mib = stats.zero_blocks * block_bytes >> 20
        total = stats.data_blocks + stats.zero_blocks
        reporter.line(
            f"{stats.zero_blocks} of {total} blocks ({mib} MiB) are zeros. What is packed does not tell which of them "
            f"were never written and could be left out; {image.filename}.bmap beside it does, which `bmaptool create` "
            "makes of the raw image before it is packed."
        )


def _file_sha256(image: Image, raw: "hashlib._Hash | None", disk_bytes: int, cancel: Cancel) -> str:
    """Return the digest of a file that is not packed; where it begins with a raw disk, that is not read again."""
    digest, offset = (raw.copy(), disk_bytes) if raw else (hashlib.sha256(), 0)
    with open_packed(image, cancel=cancel) as packed:
        while data := packed.peek(offset, DIGEST_BYTES):
            cancel.raise_if_requested()
            digest.update(data)
            offset += len(data)
    return digest.hexdigest()


def _bmap_beside(image: Image, reporter: Reporter) -> "Bmap | None":
    from clouduploader.image import bmap

    path = bmap.find(image.path, image.filename)
    if path is None:
        return None
    reporter.line(f"{path.name} says which parts of the image were ever written.")
    return bmap.read(path)


def _as_mapped(pieces: Iterator[bytes], image: Image, written: "Bmap | None") -> Iterator[bytes]:
    """Return the same pieces, checked by the checksums of a map."""
    if written is None or not written.sums:
        return pieces
    from clouduploader.image import bmap

    return bmap.check_pieces(pieces, written, image.filename)


def _other_size(image: Image, written: "Bmap", size_bytes: int) -> ImageError:
    return ImageError(
        f"{image.filename} is not what its .bmap describes: it has {size_bytes} bytes, not {written.size_bytes}",
        hint="Remove the .bmap, or replace it by the image's own.",
    )
