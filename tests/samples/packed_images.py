"""Image files made from nothing, in every packing, and how all of their blocks are taken out."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import threading
import zlib

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

from clouduploader.image import open as image_open
from clouduploader.model.disk import Compression, ZeroBlocks
from clouduploader.plugin.testing.fakes import RecordingReporter
from clouduploader.util.cancel import Cancel

BLOCK = 4096


def pack_xz(raw):
    """As xz -0: for its default, memory of 100 MB is asked for each time, which takes longer than the packing."""
    return lzma.compress(raw, preset=0)


COMPRESS = {
    Compression.XZ: pack_xz,
    Compression.GZIP: gzip.compress,
    Compression.BZIP2: bz2.compress,
    Compression.ZSTD: zstd.compress,
    Compression.RAW: bytes,
}
PACKED = [kind for kind in COMPRESS if kind is not Compression.RAW]


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)  # noqa: S311 it need not be secret


def header(**fields):
    """The header of a tar member that claims whatever is wanted."""
    info = tarfile.TarInfo(fields.pop("name", "a.raw"))
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def tarball(members, *, end=1024, form=tarfile.GNU_FORMAT):
    """The bytes of a tar archive; the values of `members` are contents."""
    file = io.BytesIO()
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.write(info.tobuf(form) + content + bytes(-len(content) % 512))
    return file.getvalue() + bytes(end)


def vhd_footer(size_bytes, *, kind=2):
    fields = (b"conectix", 2, 0x10000, (1 << 64) - 1, 1, b"qem2", 7, b"Wi2k", size_bytes, size_bytes, 99, kind)
    data = struct.pack(">8sIIQI4sI4sQQII", *fields).ljust(512, b"\0")
    return data[:64] + struct.pack(">I", ~sum(data) & 0xFFFFFFFF) + data[68:]


def multi_block_xz(contents, *, check=lzma.CHECK_CRC64):
    """One xz stream with a block for each of the contents, put together from streams of one block each."""
    blocks, records, flags = b"", b"", bytes([0, check])
    for content in contents:
        stream = lzma.compress(content, check=check, preset=0)
        index_bytes = (int.from_bytes(stream[-8:-4], "little") + 1) * 4
        body, index = stream[12 : -12 - index_bytes], stream[-12 - index_bytes : -12]
        records += index[2 : 2 + len(xz_number(xz_unpadded(index))) + len(xz_number(len(content)))]
        blocks += body
    body = b"\0" + xz_number(len(contents)) + records
    body += bytes(-len(body) % 4)
    return xz_stream(blocks, body, flags=flags)


def xz_stream(blocks, index, *, flags=b"\0\4", header_flags=None):
    """A stream with this index, its digest not included; the digests are right whatever it says."""
    size = (len(index) // 4).to_bytes(4, "little") + flags
    head = header_flags or flags
    return b"\xfd7zXZ\0" + head + crc(head) + blocks + index + crc(index) + crc(size) + size + b"YZ"


def xz_number(value):
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def xz_unpadded(index):
    """The first record's size, of an index as liblzma writes it."""
    value = shift = 0
    for byte in index[2:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
    raise AssertionError("an index without an end")


def crc(data):
    return zlib.crc32(data).to_bytes(4, "little")


def open_blocks(image, **options):
    defaults = {
        "block_bytes": BLOCK,
        "zero_blocks": ZeroBlocks.SEND,
        "expected_sha256": None,
        "max_size_bytes": None,
        "cancel": Cancel(),
        "reporter": RecordingReporter(),
    }
    return image_open.open_blocks(image, **{**defaults, **options})


def drained(source, *, threads=1, block_bytes=BLOCK):
    """All that a source hands out: the contents by the numbers of the blocks, zeros as None."""
    found, errors = {}, []

    def work():
        buffer = bytearray(block_bytes)
        try:
            while block := source.next_into(buffer):
                assert block.index not in found
                found[block.index] = None if block.is_zero else bytes(buffer)
        except BaseException as exc:  # noqa: BLE001 it is raised again below
            errors.append(exc)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return found


def blocks_of(raw, *, block_bytes=BLOCK):
    """What is to come out of a raw disk if everything is sent."""
    padded = raw + bytes(-len(raw) % block_bytes)
    parts = (padded[place : place + block_bytes] for place in range(0, len(padded), block_bytes))
    zeros = bytes(block_bytes)
    return {index: None if part == zeros else part for index, part in enumerate(parts)}
