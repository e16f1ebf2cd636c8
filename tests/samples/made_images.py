"""Image files of every kind, made for tests."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from samples import minimal_disk

try:
    from compression import zstd  # Python 3.14
except ImportError:
    from backports import zstd

NOISE_BYTES = 1 << 20
SECTOR = 512
PAGE = 4096  # what a file system tells data from holes by
TARBALLS = ("tar.gz", "tar.xz", "tar.bz2")
# What qemu-img calls them. force_size: else a disk is as long as cylinders, heads and sectors can say.
QEMU = {
    "qcow2": ("qcow2", "compat=1.1"),
    "vmdk": ("vmdk", "subformat=streamOptimized"),
    "vhd": ("vpc", "subformat=fixed,force_size=on"),
    "vhd-dynamic": ("vpc", "subformat=dynamic,force_size=on"),
}
ENDINGS = (*TARBALLS, "xz", "gz", "bz2", "zst", "qcow2", "vmdk", "vhd")


@dataclasses.dataclass(frozen=True)
class MadeImage:
    """An image file.

    Attributes:
        path: The file, of the name that was asked for.
        raw: What is in it, unpacked.
    """

    path: Path
    raw: bytes


def sample(size_bytes: int, seed: int) -> bytes:
    """A disk of whole sectors with noise, a hole, and a last sector that says so, if they fit."""
    noise = random.Random(seed).randbytes(min(NOISE_BYTES, size_bytes // 2))  # noqa: S311
    rest = bytes(max(0, size_bytes - len(noise) - SECTOR)) + b"The last sector.".ljust(SECTOR, b".")
    return minimal_disk.as_disk((noise + rest)[:size_bytes])


def with_holes(size_bytes: int, extents: Sequence[tuple[int, int]], seed: int) -> bytes:
    """Noise in these extents, which are from byte to byte, and zeros elsewhere."""
    raw = bytearray(size_bytes)
    for number, (start, end) in enumerate(extents):
        raw[start:end] = random.Random(f"{seed} {number}").randbytes(end - start)  # noqa: S311
    return bytes(raw)


def packing_of(name: str) -> str:
    """What a file name promises."""
    return next((ending for ending in ENDINGS if name.endswith(f".{ending}")), "raw")


def write(path: Path, raw: bytes, packing: str) -> None:
    """Write an image file.

    Args:
        path: Where.
        raw: What goes in; for a disk format it must be whole sectors.
        packing: raw, sparse, xz, xz-blocks (several), gz, bz2, zst, one of TARBALLS or of QEMU.
    """
    if packing == "sparse":
        _write_sparse(path, raw)
    elif packing in QEMU:
        source = path.with_name(f"{path.name}.source")
        _write_sparse(source, raw)
        kind, options = QEMU[packing]
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", kind, "-o", options, source, path],
            check=True,
            capture_output=True,
        )
        source.unlink()
    else:
        path.write_bytes(_packed(raw, packing))


def write_bmap(path: Path, raw: bytes) -> None:
    """Write the block map that bmaptool would have written for a raw image: its pages without zeros."""
    pages = [index for index in range(-(-len(raw) // PAGE)) if any(raw[index * PAGE : (index + 1) * PAGE])]
    ranges = "".join(f'<Range chksum="{"0" * 64}"> {index} </Range>' for index in pages)
    text = (
        '<?xml version="1.0" ?>\n<bmap version="2.0">'
        f"<ImageSize> {len(raw)} </ImageSize><BlockSize> {PAGE} </BlockSize>"
        f"<BlocksCount> {-(-len(raw) // PAGE)} </BlocksCount><MappedBlocksCount> {len(pages)} </MappedBlocksCount>"
        "<ChecksumType> sha256 </ChecksumType><BmapFileChecksum> @ </BmapFileChecksum>"
        f"<BlockMap>{ranges}</BlockMap></bmap>\n"
    )
    digest = hashlib.sha256(text.replace("@", "0" * 64).encode()).hexdigest()
    path.write_text(text.replace("@", digest))


def _write_sparse(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(raw), PAGE):
            page = raw[start : start + PAGE]
            if any(page):
                file.seek(start)
                file.write(page)
        file.truncate(len(raw))


def _packed(raw: bytes, packing: str) -> bytes:
    if packing in TARBALLS:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=f"w:{packing.removeprefix('tar.')}") as archive:
            member = tarfile.TarInfo("disk.raw")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        return buffer.getvalue()
    if packing == "xz-blocks":
        argv = ["xz", "-0", "-T2", f"--block-size={NOISE_BYTES}", "-c"]
        return subprocess.run(argv, input=raw, check=True, capture_output=True).stdout
    pack = {
        "raw": bytes,
        "gz": lambda data: gzip.compress(data, 1),
        "bz2": lambda data: bz2.compress(data, 1),
        "zst": zstd.compress,
        "xz": lambda data: lzma.compress(data, preset=0),
    }
    return pack[packing](raw)
