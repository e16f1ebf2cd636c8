"""What is in an image, as far as its first mebibytes tell: partitions, boot loaders, size."""

from collections.abc import Callable

from clouduploader.contents import ImageFacts
from clouduploader.image import evidence, fat, naming, packing, partitions
from clouduploader.image.partitions import Kind, ReadAt, Table
from clouduploader.image.reading import TooFarError
from clouduploader.platform import Image
from clouduploader.stop import Stop

REACH_BYTES = 1 << 28  # ours: how far a boot loader is looked for; unpacking as much takes seconds
LOADERS = {"BOOTX64.EFI": "x86_64", "BOOTAA64.EFI": "arm64", "BOOTIA32.EFI": "i386"}
"""What UEFI firmware starts by itself, each on its architecture: UEFI specification 2.10, 3.5.1.1."""

_MACHINES = {0x8664: "x86_64", 0xAA64: "arm64", 0x014C: "i386"}  # PE format, "Machine Types"
_PE_OFFSET = 0x3C  # PE format, "MS-DOS Stub"
_LOADER_BYTES = 1 << 13  # ours: the PE header begins within the first few hundred bytes
_MAX_ESPS = 4  # ours: one is the rule


def inspect(image: Image, stop: Stop, overlook: Callable[[str], None] | None = None) -> ImageFacts:
    """Look at the beginning of an image; blocks for the few seconds that unpacking it takes.

    Args:
        image: See Image.
        stop: Honoured while it is read.
        overlook: Called with what is passed over because that is forced; None if it is not.

    Raises:
        ImageError: It is damaged, or can't be unpacked here.
        StoppedError: The stop was requested.
        MissingProgramError: It is of a format that needs QEMU's tools, and these are not installed.
        LocalIOError: It can't be read.
    """
    with packing.reader(image, stop, overlook) as reader:

        def read_at(offset: int, size: int) -> bytes:
            return reader.read_at(offset, size) if size and offset + size <= REACH_BYTES else b""

        no_disk = evidence.objection(reader.read_at)
        if no_disk is None or not no_disk.is_known:
            no_disk = naming.objection(image) or no_disk
        table = partitions.read(read_at)
        try:
            architectures = loaders(read_at, table) if table else ()
        except TooFarError:
            architectures = ()  # it would be, for a disk that is badly scattered, or meant to keep us busy
    size_bytes, is_exact = packing.unpacked_size(image, stop)
    if is_exact and size_bytes is not None:
        no_disk = no_disk or packing.no_whole_sectors(size_bytes)
    return ImageFacts(
        disk_format=image.disk_format,
        size_bytes=_likely_size(table) if size_bytes is None else size_bytes,
        is_size_exact=is_exact,
        partition_table=table.name if table else None,
        minimum_bytes=table.minimum_bytes if table else 0,
        architectures=architectures,
        boots_uefi=bool(architectures),
        boots_bios=table is not None and table.boots_bios,
        no_disk=no_disk,
    )


def loaders(read_at: ReadAt, table: Table) -> tuple[str, ...]:
    """The architectures of the boot loaders in `EFI/BOOT` of the EFI system partitions, sorted.

    The name says who looks for a loader, the PE header who can run it: one of another architecture, or that is
    no PE, starts nowhere. What lies too far behind, or is damaged, isn't there.
    """
    found = set()
    for partition in [one for one in table.partitions if one.kind is Kind.ESP][:_MAX_ESPS]:
        volume = fat.Volume(read_at, partition.start)
        there = {entry.name: entry for entry in reversed(volume.list("EFI", "BOOT")) if not entry.is_directory}
        for name, architecture in LOADERS.items():
            if name in there and _machine(volume.head(there[name], _LOADER_BYTES)) == architecture:
                found.add(architecture)
    return tuple(sorted(found))


def _machine(head: bytes) -> str | None:
    """The architecture of a PE program, in Amazon's words."""
    if not head.startswith(b"MZ"):
        return None
    start = int.from_bytes(head[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if head[start : start + 4] != b"PE\0\0":
        return None
    return _MACHINES.get(int.from_bytes(head[start + 4 : start + 6], "little"))


def _likely_size(table: Table | None) -> int | None:
    """What the size is if the partition table tells the truth: a GPT ends with the disk."""
    return table.minimum_bytes if table and table.name == "gpt" else None
