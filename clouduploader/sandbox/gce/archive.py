"""The archive that an image is made of, as Compute Engine takes it.

Source: "Import a boot disk image manually": a gzip of a tar of GNU tar's old format, with one file `disk.raw`, whose
size is a multiple of 1 GB.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

try:
    from isal import isal_zlib as deflate  # for a GiB of zeros 0.3 s in the place of two
except ModuleNotFoundError:
    import zlib as deflate  # type: ignore[no-redef]

MEMBER = "disk.raw"
OLD_GNU_MAGIC = b"ustar  \0"
PIECE_BYTES = 1 << 20
_GZIP_WBITS = 31
_ZEROS = bytes(PIECE_BYTES)


class BadArchiveError(Exception):
    """It is none."""


def unpack(archive: Path, disk: Path, *, alignment_bytes: int) -> int:
    """Unpack the disk into a sparse file; return its size in bytes, a multiple of the alignment. Blocks.

    Raises:
        BadArchiveError: The archive is not as Compute Engine takes it.
    """
    pieces = _unzipped(archive)
    held = bytearray()
    while len(held) < tarfile.BLOCKSIZE:
        held += next(pieces, b"") or _cut_off()
    try:
        member = tarfile.TarInfo.frombuf(bytes(held[: tarfile.BLOCKSIZE]), "utf-8", "strict")
    except (tarfile.TarError, UnicodeError) as exc:
        raise BadArchiveError(f"The tar archive is not a valid image: {exc}.") from exc
    if bytes(held[257:265]) != OLD_GNU_MAGIC or member.name != MEMBER or not member.isreg():
        raise BadArchiveError("The tar archive is not a valid image: it must hold disk.raw, in the format oldgnu.")
    if member.size % alignment_bytes or not member.size:
        raise BadArchiveError(
            f"The disk size must be a multiple of {alignment_bytes} bytes, but is {member.size} bytes."
        )
    del held[: tarfile.BLOCKSIZE]
    left = member.size
    with disk.open("wb") as file:
        while left:
            piece = bytes(held) or next(pieces, b"") or _cut_off()
            held.clear()
            used = piece[:left]
            if used == _ZEROS[: len(used)]:
                file.seek(len(used), 1)
            else:
                file.write(used)
            left -= len(used)
            held += piece[len(used) :]
        file.truncate(member.size)
    rest = bytes(held) + b"".join(pieces)
    if len(rest) < 2 * tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise BadArchiveError("The tar archive must end after disk.raw.")
    return member.size


def _cut_off() -> bytes:
    raise BadArchiveError("The tar archive is cut off.")


def _unzipped(path: Path) -> Iterator[bytes]:
    unpacker = deflate.decompressobj(wbits=_GZIP_WBITS)
    with path.open("rb") as file:
        try:
            while packed := unpacker.unconsumed_tail or file.read(PIECE_BYTES):
                if piece := unpacker.decompress(packed, PIECE_BYTES):
                    yield piece
        except deflate.error as exc:  # type: ignore[misc] # isal's stub has an instance there
            raise BadArchiveError(f"The archive is no gzip: {exc}.") from exc
    if not unpacker.eof or unpacker.unused_data:
        raise BadArchiveError("The archive is no whole gzip.")
