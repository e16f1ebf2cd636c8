"""What is in an image, as far as its first mebibytes tell: partitions, boot loaders, size."""

from collections.abc import Callable

from clouduploader.image import (
    bios,
    bmap,
    evidence,
    fat,
    filesystems,
    iso,
    name_evidence,
    partitions,
)
from clouduploader.image import (
    open as image_open,
)
from clouduploader.image.partial_read import PartialReader, TooFarError
from clouduploader.image.partitions import PartitionTable, ReadAt, TableKind
from clouduploader.model.disk import MISSING_COPY, Image, ImageFacts, NoDisk
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

LOADERS = {
    "BOOTX64.EFI": "x86_64",
    "BOOTAA64.EFI": "arm64",
    "BOOTIA32.EFI": "i386",
    "BOOTARM.EFI": "arm",
    "BOOTIA64.EFI": "ia64",
    "BOOTRISCV32.EFI": "riscv32",
    "BOOTRISCV64.EFI": "riscv64",
    "BOOTLOONGARCH32.EFI": "loongarch32",
    "BOOTLOONGARCH64.EFI": "loongarch64",
}
"""What UEFI firmware starts by itself, each on its architecture: UEFI specification 2.10, 3.5.1.1."""

_MACHINES = {
    0x8664: "x86_64",
    0xAA64: "arm64",
    0x014C: "i386",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x0200: "ia64",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6232: "loongarch32",
    0x6264: "loongarch64",
}
"""PE format, "Machine Types"."""
_DMG, _TRAILER_BYTES = b"koly", 512  # Apple, DiskImages framework, UDIFResourceFile
_PE_OFFSET = 0x3C  # PE format, "MS-DOS Stub"
_LOADER_BYTES = 1 << 13  # ours: the PE header begins within the first few hundred bytes
_MAX_VOLUMES = 32  # ours: one is the rule, and looking at all of a hostile disk takes time
_MAX_KERNELS = 8  # ours: of EFI/Linux; a system keeps two or three


@frozen()
class Programs:
    """The programs of UEFI that are on a disk, each by its architecture in Amazon's words, or the name of PE's.

    Attributes:
        loaders: Those that firmware starts by itself.
        kernels: Unified kernel images, of `EFI/Linux`: it takes a loader, or a boot entry, to start them.
        is_whole: Whether all places were looked at.
    """

    loaders: frozenset[str]
    kernels: frozenset[str]
    is_whole: bool


def inspect(image: Image, cancel: Cancel, overlook: Callable[[str], None] | None = None) -> ImageFacts:
    """Look at the beginning of an image; blocks for the few seconds that unpacking it takes.

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
    with image_open.reader(image, cancel, overlook) as reader:
        no_disk = _foreign_trailer(reader) or evidence.objection(reader.read_at)
        if no_disk is None or not no_disk.is_known:
            no_disk = name_evidence.objection(image) or (None if _is_vouched_for(image) else no_disk)
        table = partitions.read(reader.read_at, reader.size_bytes)
        boots_bios = bios.boots(reader.read_at, table)
        found = programs(reader.read_at, table)
        minimum_bytes = table.minimum_bytes if table else filesystems.end(reader.read_at)
    size_bytes, is_exact = image_open.unpacked_size(image, cancel)
    warnings = list(table.warnings) if table else []
    if is_exact and size_bytes is not None:
        no_disk = no_disk or image_open.no_whole_sectors(size_bytes)
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
    """What a format that is none of ours has at its end; of what is packed that is not looked at."""
    offset = max((reader.size_bytes or 0) - _TRAILER_BYTES, 0)
    if not offset or not reader.read_at(offset, _TRAILER_BYTES).startswith(_DMG):
        return None
    return NoDisk(reason="it is no raw disk, but a dmg of macOS", is_known=True)


def _is_vouched_for(image: Image) -> bool:
    """Whether there is a map of it, made by a tool for disks, whose checksums whoever reads the image looks at.

    Raises:
        ImageError: There is something else in the place of a map.
        LocalIOError: It can't be read.
    """
    path = bmap.beside(image.path, image.filename)
    return path is not None and bool(bmap.read(path).sums)


def _boots_uefi(found: Programs, boots_bios: bool | None) -> bool | None:
    """Whether UEFI firmware starts it; kernels alone count where nothing else could be meant."""
    if found.loaders or (found.kernels and not boots_bios):
        return True
    return False if found.is_whole else None


def programs(read_at: ReadAt, table: PartitionTable | None) -> Programs:
    """The programs in `EFI` of the first FAT file system that has some.

    Firmware looks into each that it can read, whatever its partition's type, so all are looked at: EFI system
    partitions first. Of a loader the name says who looks for it, the PE header who can run it: one of another
    architecture, or that is no PE, starts nowhere.
    """
    is_whole = table is None or table.is_whole
    try:
        starts = _starts(read_at, table)
    except TooFarError:
        return Programs(frozenset(), frozenset(), is_whole=False)
    kernels: frozenset[str] = frozenset()
    for start in starts:
        try:
            volume = fat.FatVolume(read_at, start)
            loaders = _loaders(volume)
            kernels = kernels or _kernels(volume)
        except TooFarError:
            is_whole = False
            continue
        if loaders:
            return Programs(loaders, kernels, is_whole)
    return Programs(frozenset(), kernels, is_whole)


def _starts(read_at: ReadAt, table: PartitionTable | None) -> list[int]:
    """Where FAT file systems may be, in the order in which they are looked at."""
    images = iso.efi_images(read_at)
    if table is None:
        return [0, *images]
    ordered = sorted(table.partitions, key=lambda one: (one.kind is not TableKind.ESP, one.start))
    return list(dict.fromkeys([*(one.start for one in ordered), *images]))[:_MAX_VOLUMES]


def _loaders(volume: fat.FatVolume) -> frozenset[str]:
    found = set()
    for entry in volume.list("EFI", "BOOT"):
        wanted = LOADERS.get(entry.name)
        if wanted and not entry.is_directory and _machine(volume.head(entry, _LOADER_BYTES)) == wanted:
            found.add(wanted)
    return frozenset(found)


def _kernels(volume: fat.FatVolume) -> frozenset[str]:
    files = [one for one in volume.list("EFI", "LINUX") if one.name.endswith(".EFI") and not one.is_directory]
    machines = {_machine(volume.head(one, _LOADER_BYTES)) for one in files[:_MAX_KERNELS]}
    return frozenset(machine for machine in machines if machine)


def _machine(head: bytes) -> str | None:
    """The architecture of a PE program, in Amazon's words."""
    if not head.startswith(b"MZ"):
        return None
    start = int.from_bytes(head[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if head[start : start + 4] != b"PE\0\0":
        return None
    return _MACHINES.get(int.from_bytes(head[start + 4 : start + 6], "little"))


def _likely_size(table: PartitionTable | None) -> int | None:
    """What the size is if the partition table tells the truth: a GPT ends with the disk."""
    return table.copy_bytes or None if table else None
