"""Inspect an image file: how it is packed, what is in it, whether it is whole."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from clouduploader.errors import ImageError
from clouduploader.image import bmap, file_digest, inspect
from clouduploader.image import open as image_open
from clouduploader.model.disk import MISSING_COPY, Compression, Image, ImageFacts, ReadStats, ZeroBlocks, shortage
from clouduploader.plugin import BytesMoved, PhaseStarted, Reporter
from clouduploader.util.cancel import Cancel
from clouduploader.util.filenames import base_name
from clouduploader.util.frozen import frozen

BLOCK_BYTES = 1 << 19  # ours: as small as the pieces that clouds take a disk in


@frozen()
class ImageInspection:
    """All that is known of an image.

    Attributes:
        image: See Image.
        facts: What its beginning tells; the size is exact once it was read to its end.
        promised_sha256: What a file beside it promises, in hex, or None. If it was read to its end, it is so.
        bmap_path: The block map beside it, or None.
        stats: With true holes left out, and both digests, as far as open_blocks makes them; None if it was not read to
            its end.
    """

    image: Image
    facts: ImageFacts
    promised_sha256: str | None
    bmap_path: Path | None
    stats: ReadStats | None


def inspect_image(
    path: Path, *, max_size_bytes: int, is_whole: bool, is_forced: bool, reporter: Reporter, cancel: Cancel
) -> ImageInspection:
    """Look at an image, and read it to its end. Blocks for as long as that takes.

    Args:
        path: The file.
        max_size_bytes: The most that the raw disk may have.
        is_whole: Whether it is read to its end; else what its first mebibytes tell must do.
        is_forced: Whether what an upload with `force` would pass over is a warning.
        reporter: Told how it goes.
        cancel: Requested to stop the work.

    Raises:
        MissingFileError: There is no such file.
        ImageError: It is no disk, damaged, cut off, too large, or not what the files beside it say.
        LocalIOError: It can't be read.
        UnavailableError: It takes a program that is not there.
        StoppedError: The stop was requested.
    """
    passed_over: list[str] = []
    overlook = passed_over.append if is_forced else None

    def object_to(error: ImageError) -> None:
        if not is_forced:
            raise error
        passed_over.append(error.message)

    with cancel.interruptible():
        image = image_open.describe(path, base_name(path.name), cancel)
        found = inspect.inspect(image, cancel, overlook)
        promised = file_digest.find(path, image.filename)
        map_path = bmap.find(path, image.filename)
    if found.size_bytes is not None and found.is_size_exact and found.size_bytes > max_size_bytes:
        raise ImageError(
            f"{image.filename} has {found.size_bytes} bytes unpacked, and {max_size_bytes} are allowed",
            hint="Raise --max-size if it is meant to be so large.",
        )
    if found.no_disk:
        object_to(image_open.no_disk_error(image, found.no_disk))
    stats = None
    if is_whole:
        stats = _read(image, found, promised, max_size_bytes, overlook, reporter, cancel)
        if not found.is_size_exact and stats.size_bytes < found.copy_bytes:
            found = dataclasses.replace(found, warnings=(*found.warnings, MISSING_COPY))
        found = dataclasses.replace(found, size_bytes=stats.size_bytes, is_size_exact=True)
    if found.is_size_exact and (problem := shortage(found.size_bytes or 0, found.minimum_bytes)):
        object_to(ImageError(f"{image.filename} {problem}", hint="Get a new copy; --force inspects it as it is."))
    found = dataclasses.replace(found, warnings=(*found.warnings, *dict.fromkeys(passed_over)))
    return ImageInspection(image, found, promised, map_path, stats)


def _read(
    image: Image,
    found: ImageFacts,
    promised: str | None,
    max_size_bytes: int,
    overlook: Callable[[str], None] | None,
    reporter: Reporter,
    cancel: Cancel,
) -> ReadStats:
    """Read all of it once, and count."""
    reporter.event(PhaseStarted("read image"))
    is_packed = image.compression is not Compression.RAW

    def tell_packed(done_bytes: int) -> None:
        reporter.event(BytesMoved(done_bytes, image.size_bytes))

    with image_open.open_blocks(
        image,
        block_bytes=BLOCK_BYTES,
        zero_blocks=ZeroBlocks.HOLES,
        expected_sha256=promised,
        max_size_bytes=max_size_bytes,
        cancel=cancel,
        reporter=reporter,
        on_bytes=tell_packed if is_packed else None,
        with_digests=True,
        in_sectors=overlook is None,
        overlook=overlook,
    ) as source:
        buffer = bytearray(BLOCK_BYTES)
        while source.next_into(buffer):
            if not is_packed:
                reporter.event(BytesMoved(source.position(), found.size_bytes))
        return source.stats()


def left_out(stats: ReadStats) -> dict[ZeroBlocks, tuple[int, int]]:
    """Return how many blocks each mode sends and leaves out, by the stats of a read that left out true holes."""
    total = stats.data_blocks + stats.zero_blocks + stats.hole_blocks
    sent = {
        ZeroBlocks.SEND: total,
        ZeroBlocks.HOLES: total - stats.hole_blocks,
        ZeroBlocks.SKIP: stats.data_blocks,
    }
    return {mode: (count, total - count) for mode, count in sent.items()}
