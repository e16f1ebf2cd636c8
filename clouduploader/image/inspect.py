"""Inspect an image by its first mebibytes: partitions, boot loaders, size."""

from collections.abc import Callable

from clouduploader.image import bmap, boot, evidence, filesystems, partitions
from clouduploader.image import open as image_open
from clouduploader.image.boot import UefiPrograms
from clouduploader.image.partial_read import PartialReader
from clouduploader.image.partitions import PartitionTable
from clouduploader.model.disk import MISSING_COPY, Image, ImageFacts, NoDisk
from clouduploader.util.cancel import Cancel

_DMG, _TRAILER_BYTES = b"koly", 512  # Apple, DiskImages framework, UDIFResourceFile


def inspect(image: Image, cancel: Cancel, overlook: Callable[[str], None] | None = None) -> ImageFacts:
    """Inspect the beginning of an image; blocks for the few seconds that unpacking it takes.

    Args:
        image: See Image.
        cancel: Honoured while it is read.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Raises:
        ImageError: It is damaged, or can't be unpacked here.
        StoppedError: The stop was requested.
        MissingProgramError: It is of a format that needs QEMU's tools, and these are not installed.
        LocalIOError: It can't be read.
    """
    with image_open.open_reader(image, cancel, overlook) as reader:
        no_disk = _foreign_trailer(reader) or evidence.check_content(reader.read_at)
        if no_disk is None or not no_disk.is_known:
            no_disk = evidence.check_name(image) or (None if _is_vouched_for(image) else no_disk)
        table = partitions.read(reader.read_at, reader.size_bytes)
        boots_bios = boot.boots_bios(reader.read_at, table)
        found = boot.find_programs(reader.read_at, table)
        minimum_bytes = table.minimum_bytes if table else filesystems.find_end(reader.read_at)
    size_bytes, is_exact = image_open.unpacked_size(image, cancel)
    warnings = list(table.warnings) if table else []
    if is_exact and size_bytes is not None:
        no_disk = no_disk or image_open.check_sectors(size_bytes)
        if reader.size_bytes is None and table and size_bytes < table.copy_bytes:
            warnings.append(MISSING_COPY)
    boots_uefi = _boots_uefi(found, boots_bios)
    if table and table.sector_bytes != partitions.SECTOR_BYTES:
        boots_uefi = False
        warnings.append(
            f"its GPT is for disks with sectors of {table.sector_bytes} bytes; where they have "
            f"{partitions.SECTOR_BYTES}, as in clouds, nothing finds its partitions"
        )
    return ImageFacts(
        disk_format=image.disk_format,
        size_bytes=_likely_size(table) if size_bytes is None else size_bytes,
        is_size_exact=is_exact,
        partition_table=table.name if table else None,
        minimum_bytes=minimum_bytes,
        copy_bytes=table.copy_bytes if table else 0,
        architectures=tuple(sorted(found.loaders or found.kernels)),
        boots_uefi=boots_uefi,
        boots_bios=boots_bios,
        warnings=tuple(warnings),
        no_disk=no_disk,
    )


def _foreign_trailer(reader: PartialReader) -> NoDisk | None:
    """Return what an unsupported format is that shows at its end; not looked for in a packed file."""
    offset = max((reader.size_bytes or 0) - _TRAILER_BYTES, 0)
    if not offset or not reader.read_at(offset, _TRAILER_BYTES).startswith(_DMG):
        return None
    return NoDisk(reason="it is no raw disk, but a dmg of macOS", is_known=True)


def _is_vouched_for(image: Image) -> bool:
    """Return whether a block map with checksums lies beside the image: a tool for disks has made it.

    Raises:
        ImageError: There is something else in the place of a map.
        LocalIOError: It can't be read.
    """
    path = bmap.find(image.path, image.filename)
    return path is not None and bool(bmap.read(path).sums)


def _boots_uefi(found: UefiPrograms, boots_bios: bool | None) -> bool | None:
    """Return whether UEFI firmware starts it; kernels alone count if a BIOS does not start it."""
    if found.loaders or (found.kernels and not boots_bios):
        return True
    return False if found.is_whole else None


def _likely_size(table: PartitionTable | None) -> int | None:
    """Return the size of the disk by its partition table: a GPT ends with the disk."""
    return table.copy_bytes or None if table else None
