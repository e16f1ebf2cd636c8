"""Disks made from nothing: partition tables, FAT file systems, boot loaders. Written from the specifications alone."""

import binascii
import struct
import uuid

ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
CODE = b"\xeb\x63\x90" + b"boot" * 20
X64, ARM64, IA32 = 0x8664, 0xAA64, 0x014C


def mbr(partitions, *, code=b""):
    """A sector; partitions are (type, first sector, sectors) or (type, first, sectors, state)."""
    entries = b"".join(
        struct.pack("<B3xB3xII", state[0] if state else 0, type_, first, count)
        for type_, first, count, *state in partitions
    )
    return code.ljust(446, b"\0") + entries.ljust(64, b"\0") + b"\x55\xaa"


def gpt(partitions, *, sectors, code=b"", hybrid=(), sector_bytes=512, entries=128, entry_bytes=128, copy=None):
    """The first 34 sectors (or what 16 KiB take); partitions are (type GUID, first, last) or (..., attributes)."""
    array = b"".join(
        struct.pack("<16s16sQQQ72x", uuid.UUID(type_).bytes_le, uuid.uuid4().bytes, first, last, *(rest or [0])).ljust(
            entry_bytes, b"\0"
        )
        for type_, first, last, *rest in partitions
    ).ljust(entries * entry_bytes, b"\0")
    last = sectors - 1 if copy is None else copy
    fields = [1, last, 34, sectors - 34, bytes(16), 2, entries, entry_bytes, binascii.crc32(array)]
    blank = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields)
    header = blank[:16] + struct.pack("<I", binascii.crc32(blank)) + blank[20:]
    protective = mbr([(0xEE, 1, min(sectors - 1, 0xFFFFFFFF)), *hybrid], code=code)
    return protective.ljust(sector_bytes, b"\0") + header.ljust(sector_bytes, b"\0") + array


def gpt_copy(table):
    """The last 33 sectors of a disk whose first 34 are these."""
    header, array = table[512:1024], table[1024:]
    (last,) = struct.unpack_from("<Q", header, 32)
    moved = header[:16] + bytes(8) + struct.pack("<QQ", last, 1) + header[40:72] + struct.pack("<Q", last - 32)
    moved += header[80:92]
    return array + (moved[:16] + struct.pack("<I", binascii.crc32(moved)) + moved[20:]).ljust(512, b"\0")


def pe(machine, *, at=0x80):
    """The beginning of a program of this architecture."""
    return (b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", at)).ljust(at, b"\0") + b"PE\0\0" + struct.pack("<H", machine)


def fat(files, *, bits, cluster_sectors=1, order=None):
    """A FAT file system; files by paths such as EFI/BOOT/BOOTX64.EFI. Each cluster has 512 bytes or a multiple.

    Args:
        order: Which cluster comes n-th, to scatter what is written; else they come as they are.
    """
    count = {12: 1000, 16: 5000, 32: 70000}[bits]
    cluster_bytes = cluster_sectors * 512
    fat_sectors = -(-(count + 2) * bits // 8 // 512) + 1
    root_entries = 0 if bits == 32 else 32
    reserved = 32 if bits == 32 else 1
    table = {0: 0x0FFFFFF8, 1: 0x0FFFFFFF}
    data = {}
    free = iter(order or range(3 if bits == 32 else 2, count))

    def store(content, first=None):
        pieces = [content[at : at + cluster_bytes] for at in range(0, len(content), cluster_bytes)] or [b""]
        numbers = [first or next(free), *(next(free) for _ in pieces[1:])]
        for number, follower, piece in zip(numbers, [*numbers[1:], 0x0FFFFFFF], pieces, strict=True):
            table[number], data[number] = follower, piece
        return numbers[0]

    def entry(name, attributes, cluster, size):
        stem, _, ending = name.rpartition(".") if "." in name else (name, "", "")
        is_short = name == name.upper() and len(stem) <= 8 and len(ending) <= 3
        short = stem.ljust(8).encode() + ending.ljust(3).encode()
        if not is_short:
            short = f"{stem[:6].upper()}~1".ljust(8).encode() + ending[:3].upper().ljust(3).encode()
        raw = struct.pack("<11sB8xH4xHI", short, attributes, cluster >> 16, cluster & 0xFFFF, size)
        return raw if is_short else long_name(name, short) + raw

    def long_name(name, short):
        checksum = 0
        for byte in short:
            checksum = (((checksum & 1) << 7) + (checksum >> 1) + byte) & 0xFF
        units = (name + "\0").encode("utf-16-le")
        units = units.ljust(-(-len(units) // 26) * 26, b"\xff") if len(name) % 13 else units[:-2]
        parts = [units[at : at + 26] for at in range(0, len(units), 26)]
        return b"".join(
            bytes([number | (0x40 if number == len(parts) else 0)]) + part[:10] + b"\x0f\0" + bytes([checksum])
            + part[10:22] + b"\0\0" + part[22:]
            for number, part in reversed(list(enumerate(parts, 1)))
        )  # fmt: skip

    def directory(tree):
        lines = [entry("LABEL", 8, 0, 0), b"\xe5" + bytes(31), entry("A?LONG", 0x0F, 0, 0)]
        for name, content in tree.items():
            if isinstance(content, dict):
                lines.append(entry(name, 0x10, store(directory(content)), 0))
            else:
                lines.append(entry(name, 0x20, store(content), len(content)))
        return b"".join(lines)

    tree = {}
    for path, content in files.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = content
    root = directory(tree)
    if bits == 32:
        store(root, first=2)
    total = reserved + 2 * fat_sectors + root_entries * 32 // 512 + count * cluster_sectors
    boot = struct.pack(
        "<11xHBHBHHBHHHIIIHHI", 512, cluster_sectors, reserved, 2, root_entries, total if total < 65536 else 0, 0xF8,
        0 if bits == 32 else fat_sectors, 0, 0, 0, total if total >= 65536 else 0, fat_sectors if bits == 32 else 0,
        0, 0, 2,
    )  # fmt: skip
    packed = 0
    for number, follower in table.items():
        packed |= (follower & (1 << min(bits, 28)) - 1) << number * bits
    one_fat = packed.to_bytes(fat_sectors * 512, "little")
    area = bytearray((max(data, default=2) - 1) * cluster_bytes)
    for number, piece in data.items():
        at = (number - 2) * cluster_bytes
        area[at : at + len(piece)] = piece
    head = boot.ljust(510, b"\0") + b"\x55\xaa"
    fixed_root = b"" if bits == 32 else root.ljust(root_entries * 32, b"\0")
    return head.ljust(reserved * 512, b"\0") + one_fat * 2 + fixed_root + bytes(area)


def reader(*pieces):
    """A ReadAt of a disk that has these bytes at these offsets, and zeros between them: (offset, bytes), ..."""
    disk = bytearray(max(offset + len(data) for offset, data in pieces))
    for offset, data in pieces:
        disk[offset : offset + len(data)] = data
    return lambda offset, size: bytes(disk[offset : offset + size])
