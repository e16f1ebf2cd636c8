"""What is in an image file once it is unpacked: the words that say so, and how it is read as blocks.

A platform that writes blocks into a cloud gets a `BlockSource` from `platform.UploadRequest.open_blocks`; one that
sends the disk in one piece gets an `ImageStream`.
"""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from clouduploader.util.arrival import Arrival
from clouduploader.util.frozen import frozen


class DiskFormat(enum.StrEnum):
    """What the unpacked bytes are, by magic."""

    RAW = "raw"
    VHD = "vhd"
    """A fixed one, which is the raw disk with a footer of 512 bytes behind it."""
    VHD_DYNAMIC = "vhd-dynamic"
    QCOW2 = "qcow2"
    VMDK = "vmdk"


class ZeroBlocks(enum.StrEnum):
    """What becomes of blocks that hold nothing but zeros.

    On an encrypted volume a block that was never written reads as garbage, not as zeros (coldsnap issues 395
    and 470), so only what never meant anything may be left out.
    """

    SEND = "send"
    """All are written."""
    HOLES = "holes"
    """True holes are left out, of a sparse raw file, of a .bmap, of a qcow2, VMDK or VHD map."""
    SKIP = "skip"
    """All are left out."""


MISSING_COPY = "the copy of its GPT, at the end of the disk, is missing or damaged; firmware does without it"


@frozen(kw_only=True)
class NoDisk:
    """Why what is in an image is no disk.

    Attributes:
        reason: A clause, for example "it is no raw disk, but a VHDX".
        is_known: Whether it is known to be something else; otherwise it only shows nothing that a disk would.
    """

    reason: str
    is_known: bool


@frozen(kw_only=True)
class ImageFacts:
    """What an image's first mebibytes tell.

    Attributes:
        disk_format: See DiskFormat.
        size_bytes: Of the raw disk; None if that is known only when the last byte is unpacked.
        is_size_exact: Whether size_bytes is what the format promises. Otherwise it is what partition table
            and packing suggest, and the end may tell otherwise.
            partition_table: "gpt", "mbr" or None.
        minimum_bytes: Where the last partition ends; without a table, where the file system does. 0 if neither tells.
        copy_bytes: Where a GPT's copy, at the end of the disk that it was made for, ends; else 0.
        architectures: Of the UEFI programs: "x86_64", "arm64", "i386", and others by UEFI's names ("riscv64", "arm");
            sorted. Empty if there are none, or none were found.
        boots_uefi: Whether UEFI firmware starts it by itself; None if that can't be told, as where a packed disk is
            not looked at far enough.
        boots_bios: Whether a BIOS starts it; None if that can't be told, as for boot code that is not known.
        warnings: What is wrong with it, though it may do; each a clause about the image.
        no_disk: Why it is no disk at all; None if it is one.
    """

    disk_format: DiskFormat
    size_bytes: int | None
    is_size_exact: bool
    partition_table: str | None
    minimum_bytes: int
    copy_bytes: int = 0
    architectures: tuple[str, ...]
    boots_uefi: bool | None
    boots_bios: bool | None
    warnings: tuple[str, ...] = ()
    no_disk: NoDisk | None = None

    @property
    def boot_mode(self) -> str | None:
        """Return uefi-preferred where both firmwares boot it, uefi or legacy-bios; None if that can't be told."""
        if self.boots_uefi:
            return "uefi-preferred" if self.boots_bios else "uefi"
        return "legacy-bios" if self.boots_bios and self.boots_uefi is False else None


def shortage(size_bytes: int, minimum_bytes: int) -> str | None:
    """Say that a disk ends before what is on it does; None if it does not.

    Args:
        size_bytes: Of the raw disk, exactly.
        minimum_bytes: See ImageFacts.
    """
    if size_bytes >= minimum_bytes:
        return None
    return (
        f"is cut off: its partitions, or its file system, reach to byte {minimum_bytes}, but the disk has {size_bytes}"
    )


@frozen()
class Block:
    """One block of the raw disk.

    Attributes:
        index: Its offset divided by the block size.
        is_zero: Whether it holds nothing but zeros.
    """

    index: int
    is_zero: bool


@frozen(kw_only=True)
class ReadStats:
    """What came out of an image that was read to its end.

    Attributes:
        size_bytes: Of the raw disk.
        data_blocks: Handed out, with something in them.
        zero_blocks: Handed out, all zeros.
        hole_blocks: Left out, because they are true holes.
        skipped_blocks: Left out, because they are zeros and that was asked for.
        file_sha256: Of the file as it lies there, in hex; None if it was not asked for.
        raw_sha256: Of the raw disk, in hex; None if it was not asked for.
    """

    size_bytes: int
    data_blocks: int
    zero_blocks: int
    hole_blocks: int
    skipped_blocks: int
    file_sha256: str | None
    raw_sha256: str | None


class BlockSource(Protocol):
    """A raw disk as blocks of one size, each handed out once, in ascending order, to several threads.

    Attributes:
        can_reread: Whether `reread_into` works: then a buffer is free as soon as its bytes are sent.
    """

    can_reread: bool

    def next_into(self, buffer: bytearray) -> Block | None:
        """Fill a buffer of one block with the next one; a last, short block is padded with zeros.

        Blocks while it is read or unpacked. Several threads may call it at once, each with a buffer of its own.
        A buffer's content is undefined where the block is zero.

        Returns:
            None at the end, when the packing was whole, and all digests that were given agree.

        Raises:
            ImageError: It is damaged, cut off, has garbage behind it, is too large, or is not what a digest
                promised; with the offset. Once raised, every thread gets it.
            LocalIOError: It can't be read.
            StoppedError: The stop was requested.
        """

    def reread_into(self, index: int, buffer: bytearray) -> None:
        """Fill a buffer with a block that was handed out before; only if `can_reread`."""

    def position(self) -> int:
        """Return how many bytes of the raw disk have been passed, holes included. Never blocks."""

    def stats(self) -> ReadStats:
        """Return what came out; only after `next_into` returned None."""


class Encoding(enum.StrEnum):
    """What a disk is sent as, in one piece."""

    RAW = "raw"
    """As it is."""
    VHD = "vhd"
    """A fixed VHD, with zeros up to the next MiB before the footer, as Azure takes it."""
    TAR_GZ = "tar.gz"
    """A file `disk.raw`, with zeros up to the next GiB, in a tar archive packed with gzip, as Google takes it."""
    QCOW2 = "qcow2"
    """The image file, byte by byte; only of an image that is a qcow2, and not packed."""


class ImageStream(Protocol):
    """A disk as one stream of bytes, in order, as it is sent. One thread at a time.

    Attributes:
        size_bytes: Of the whole stream; None if that is not known before its end.
    """

    size_bytes: int | None

    def read(self, size: int = -1, /) -> bytes:
        """Up to so many bytes; all that is left for -1; b"" at the end.

        Raises:
            ImageError: The image is damaged; at the latest in place of the last bytes.
            LocalIOError: It can't be read.
            StoppedError: The stop was requested.
        """

    def __iter__(self) -> Iterator[bytes]:
        """Piece by piece."""

    def hexdigest(self) -> str:
        """Digest of what has been read so far, in hex."""


class Compression(enum.StrEnum):
    """How the bytes of an image file are packed, by their magic, whatever the file is called."""

    RAW = "raw"
    XZ = "xz"
    GZIP = "gz"
    BZIP2 = "bz2"
    ZSTD = "zst"
    TAR = "tar"


@frozen()
class Image:
    """An image file that is to be uploaded.

    Attributes:
        path: Where its bytes are; in a spool this is `N.file`.
        filename: Its real base name: no slash, no control characters, not hidden.
        compression: See Compression.
        size_bytes: Of the file as it lies there.
        is_tarball: Whether what is compressed, or the file itself, is a tar archive.
        disk_format: What is inside, as far as the first bytes tell: a fixed VHD looks raw.
        identity: Device, inode, size in bytes and time of the last change in nanoseconds as they were, by which
            it is known again; None if the file was not looked at.
        arrival: Tells how much of the file is there; None for all of it.
    """

    path: Path
    filename: str
    compression: Compression
    size_bytes: int
    is_tarball: bool = False
    disk_format: DiskFormat = DiskFormat.RAW
    identity: tuple[int, int, int, int] | None = None
    arrival: Arrival | None = None
