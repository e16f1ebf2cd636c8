"""Read the image in a tarball, which is not trusted until read to its end.

Read as GNU tar 1.34 reads it, header by header: ustar and pax as in POSIX.1-2017, "pax", the rest as in GNU tar's
manual, "Tar Internals". Python's tarfile takes a wrong size for a sparse file of which more than 8 GiB are stored, and
the end of one archive for the end of all.
"""

import re
from array import array
from collections.abc import Callable, Iterator

from clouduploader.errors import ImageError
from clouduploader.image import decompress, magic
from clouduploader.model.disk import DiskFormat
from clouduploader.util.frozen import frozen

PIECE_BYTES = 1 << 17  # of the image; more is no faster
MAX_MEMBERS = 1 << 20  # ours: their headers alone take half a minute
MAX_EXTENSION_BYTES = 1 << 24  # ours: of a header that goes on in a member of its own; it is in memory
MAX_EXTENTS = 1 << 18  # ours: of one sparse file; some 30 MiB while its map is read
_BLOCK_BYTES = 512
_ZEROS = bytes(PIECE_BYTES)

_NAME, _SIZE, _TYPE, _PREFIX = slice(0, 100), slice(124, 136), slice(156, 157), slice(345, 500)
_MAGIC, _USTAR = slice(257, 263), b"ustar\0"  # only then there is a prefix
_PAX_TYPES, _GLOBAL_TYPE = (b"x", b"X"), b"g"  # the second is what Solaris calls it
_LONG_NAME, _LONG_LINK, _SPARSE, _VOLUME = b"L", b"K", b"S", b"M"
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, directories, pipes
_NO_FILES = (*_WITHOUT_DATA, b"D", b"N", b"V")  # and GNU's lists of a directory, old long names, label of a volume
_OLD_MAP, _OLD_ENTRIES, _OLD_IS_EXTENDED, _OLD_REAL_SIZE = 386, 4, 482, slice(483, 495)
_EXTENDED_ENTRIES, _EXTENDED_IS_EXTENDED = 21, 504
_STAR = (slice(508, 512), b"tar\0")  # star(5): it has its map elsewhere

_RECORD = re.compile(rb"([0-9]{1,18}) ([^=]+)=")  # "pax Extended Header": length of all, name; the value follows
_PAX_NAMES = (
    "path",
    "size",
    "GNU.sparse.name",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.size",
    "GNU.sparse.realsize",
)
_PAX_MAPS = ("GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.map")  # of 0.0 by turns, of 0.1 at once
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_NONSENSE = "a map of holes that makes no sense"
_UNPACK = "Unpack it first."

_BOOT_SIGNATURE = slice(510, 512)  # UEFI 5.2.1, table 5.1; a GPT has it too, in its protective MBR
_LINUX = slice(0x202, 0x206)  # Documentation/arch/x86/boot.rst, "header"; the boot signature lies before it
_APPLE_DOUBLE = b"\0\x05\x16\x07"  # RFC 1740: what macOS knows of a file beside its data, `._disk.raw` of `disk.raw`

ObjectTo = Callable[[str, str], None]
"""Called with message and hint for what may be damage; raises an error unless that is forced. See PackedFile."""


class _DamagedError(Exception):
    """A tarball is damaged; the message says how, in a few words."""


class _UnreadableError(Exception):
    """A tarball that may be sound is not supported; the message goes on after "is a tarball"."""


class _TarBytes:
    """The bytes of a tarball in order.

    Attributes:
        offset: How many were taken.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.offset = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes; fewer only at the end."""
        return b"".join(self._pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next bytes in pieces.

        Raises:
            _DamagedError: It ends before.
        """
        end = self.offset + size
        for piece in self._pieces(size):
            yield bytes(piece)
        if self.offset < end:
            raise _DamagedError("unexpected end of data")

    def skip_to(self, offset: int) -> None:
        """Skip to an offset.

        Raises:
            _DamagedError: It ends before.
        """
        for _ in self.pieces(offset - self.offset):
            pass

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size > 0:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    return
            piece = self._rest[: min(size, PIECE_BYTES)]
            self._rest = self._rest[len(piece) :]
            self.offset += len(piece)
            size -= len(piece)
            yield piece


@frozen(kw_only=True)
class _Member:
    """A member of a tarball.

    Attributes:
        name: As it is there.
        is_file: Whether it is a regular file.
        size_bytes: Of the file.
        extents: Of a sparse file where it has data, two numbers each: offset and size; None of any other.
        end: Where its data end in the tarball, with what fills up the last block.
    """

    name: str
    is_file: bool
    size_bytes: int
    extents: "array[int] | None"
    end: int


def read_image(chunks: Iterator[bytes], filename: str, *, is_by_name: bool, object_to: ObjectTo) -> Iterator[bytes]:
    """Yield the one image in a tarball, in pieces; reads the tarball to its end.

    An image is what is called `.raw`; as long as there was none, also what begins as a disk does.

    Args:
        chunks: Its bytes, unpacked.
        filename: Its name, for errors.
        is_by_name: Whether only what is called `.raw` is one, as for a program that goes by names.
        object_to: Called with what GNU tar passes, but may be damage.

    Raises:
        ImageError: It is damaged, absurd, cut off, or has not exactly one image; perhaps after the last piece.
    """
    source = _TarBytes(chunks)
    found = ""
    try:
        for member in _members(source, filename, object_to):
            is_raw = member.name.endswith(".raw")
            if not member.is_file or (not is_raw and (is_by_name or found.endswith(".raw"))):
                continue
            where = source.offset
            head, pieces = decompress.split_head(_contents(source, member), _BLOCK_BYTES)
            if not (is_raw or _is_disk(head)) or (not is_by_name and head.startswith(_APPLE_DOUBLE)):
                continue
            if found:
                raise ImageError(
                    f"{filename} is a tarball with two images in it, {found} and, at byte {where} of that, "
                    f"{member.name}",
                    hint="Leave one of them out.",
                )
            found = member.name
            yield from pieces
    except _DamagedError as exc:
        raise ImageError(f"{filename} is a damaged tarball: {exc}, before byte {source.offset} of that") from exc
    except _UnreadableError as exc:
        raise ImageError(f"{filename} is a tarball {exc}", hint=_UNPACK) from exc
    if not found:
        what = "is called .raw" if is_by_name else "is called .raw or begins as a disk does"
        raise ImageError(f"{filename} is a tarball of {source.offset} bytes in which nothing {what}")


def _is_disk(head: bytes) -> bool:
    """Return whether a file begins as a virtual disk, or with a boot sector that is not a Linux kernel's."""
    if len(head) < _BLOCK_BYTES or head[_LINUX] == b"HdrS":
        return False
    return head[_BOOT_SIGNATURE] == b"\x55\xaa" or magic.disk_format_of(head) is not DiskFormat.RAW


def _members(source: _TarBytes, filename: str, object_to: ObjectTo) -> Iterator[_Member]:
    """Yield the members of a tarball, and of others behind it; each may be read until the next is asked for.

    The end mark is two blocks of zeros, and GNU tar passes one, or none. What is behind them it does not look at,
    unless it is told to (--ignore-zeros). If that is another tarball, it is read too: whatever is in there, an image
    is not overlooked, nor a second one.
    """
    extensions, common = _Extensions(), _Extensions()
    number, is_ended = 0, False
    while block := source.take(_BLOCK_BYTES):
        if not block.strip(b"\0"):
            is_ended = is_ended or len(block) == _BLOCK_BYTES
            continue
        if is_ended and not magic.is_tar_header(block):
            where = source.offset - len(block.lstrip(b"\0"))
            object_to(f"{filename} has something else behind the end of its tarball, at byte {where} of that", _UNPACK)
            while source.take(PIECE_BYTES):
                pass
            return
        if len(block) < _BLOCK_BYTES:
            raise _DamagedError("unexpected end of data")
        number, is_ended = number + 1, False
        if number > MAX_MEMBERS:
            raise _UnreadableError(f"of more than {MAX_MEMBERS} members")
        if not magic.is_tar_header(block):
            raise _DamagedError("a header whose checksum is wrong")
        kind, size_bytes = block[_TYPE], _number(block[_SIZE])
        if kind in _PAX_TYPES or kind in (_GLOBAL_TYPE, _LONG_NAME, _LONG_LINK):
            of = common if kind == _GLOBAL_TYPE else extensions
            of.add(kind, _extension(source, size_bytes, of))
            continue
        member = _member(block, source, extensions, common)
        extensions = _Extensions()
        yield member
        source.skip_to(member.end)
    if not is_ended:
        object_to(
            f"{filename} is a tarball without an end mark, so that it may be cut off, at byte {source.offset} of that",
            _UNPACK,
        )


def _extension(source: _TarBytes, size_bytes: int, of: "_Extensions") -> bytes:
    """Return the contents of a header that goes on in a member of its own."""
    if size_bytes + of.size_bytes > MAX_EXTENSION_BYTES:
        raise _UnreadableError(f"with extended headers of more than {MAX_EXTENSION_BYTES} bytes")
    end = source.offset + _padded(size_bytes)
    body = b"".join(source.pieces(size_bytes))
    source.skip_to(end)
    return body


class _Extensions:
    """What extended headers say of the next member, or of all.

    Attributes:
        size_bytes: What they take.
        values: Of pax, as far as they count.
        extents: Of a sparse file, see _Member; in the formats 0.0 and 0.1 of GNU tar. None if they say nothing of it.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self.values: dict[str, str] = {}
        self.extents: array[int] | None = None

    def add(self, kind: bytes, body: bytes) -> None:
        """Read one extended header.

        Raises:
            _DamagedError: It makes no sense.
        """
        self.size_bytes += _BLOCK_BYTES + len(body)
        if kind == _LONG_NAME:
            self.values.setdefault("path", _text(body.split(b"\0", 1)[0]))
        elif kind != _LONG_LINK:
            self._add_records(body)

    def _add_records(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            record = _RECORD.match(body, at)
            end = at + int(record[1]) if record else 0
            if not record or end <= record.end() - 1 or body[end - 1 : end] != b"\n":
                raise _DamagedError("an extended header that makes no sense")
            name, value = _text(record[2]), body[record.end() : end - 1]
            if name in _PAX_MAPS:
                self._add_extents(value)
            elif name in _PAX_NAMES:
                self.values[name] = _text(value)
            at = end

    def _add_extents(self, numbers: bytes) -> None:
        """Read numbers with commas between them, or none."""
        self.extents = array("Q") if self.extents is None else self.extents
        _check_count((len(self.extents) + numbers.count(b",")) // 2)
        self.extents.extend(_decimal(number) for number in numbers.split(b",") if numbers)


def _member(block: bytes, source: _TarBytes, extensions: _Extensions, common: _Extensions) -> _Member:
    """Read a header with all that belongs to it; the source is at the data then.

    What is stored is as large as the pax header says, or else the header; a sparse file as large as one of the names
    that GNU tar has had for that says. A map that is among the data counts into what is stored.

    Raises:
        _DamagedError: It makes no sense.
        _UnreadableError: It is of a kind that is not read here.
    """
    kind = block[_TYPE]
    values = {name: value for name, value in {**common.values, **extensions.values}.items() if value}
    stored_bytes = _decimal(_bytes(values["size"])) if "size" in values else _number(block[_SIZE])
    if kind == _VOLUME:
        raise _UnreadableError("in several volumes")
    if kind in _WITHOUT_DATA:
        stored_bytes = 0
    end = source.offset + _padded(stored_bytes)
    name = values.get("GNU.sparse.name") or values.get("path") or _name(block)
    size_bytes, data_bytes, extents = stored_bytes, stored_bytes, extensions.extents
    version = values.get("GNU.sparse.major", "0"), values.get("GNU.sparse.minor", "0")
    if kind == _SPARSE:
        if block[_STAR[0]] == _STAR[1]:
            raise _UnreadableError(f"of star, in which {name} is a sparse file")
        extents = _old_map(block, source)
        size_bytes = _number(block[_OLD_REAL_SIZE])
        end = source.offset + _padded(stored_bytes)
    elif version == ("1", "0"):
        extents, map_bytes = _map_among_data(source, stored_bytes)
        data_bytes -= map_bytes
    elif version not in (("0", "0"), ("0", "1")):
        raise _UnreadableError(f"in which {name} is a sparse file of the unknown version {'.'.join(version)}")
    real_size = values.get("GNU.sparse.realsize") or values.get("GNU.sparse.size")
    if real_size is not None and kind != _SPARSE:
        size_bytes = _decimal(_bytes(real_size))
        extents = array("Q") if extents is None else extents
    if extents is not None:
        extents = _checked(extents, size_bytes, data_bytes)
    return _Member(name=name, is_file=kind not in _NO_FILES, size_bytes=size_bytes, extents=extents, end=end)


def _old_map(block: bytes, source: _TarBytes) -> "array[int]":
    """Return the map of GNU tar's old format, in the header and in blocks behind it."""
    extents = array("Q")
    at, entries, is_extended = _OLD_MAP, _OLD_ENTRIES, block[_OLD_IS_EXTENDED]
    while True:
        for place in range(at, at + 24 * entries, 24):
            if not block[place + 12]:
                break
            extents.extend((_number(block[place : place + 12]), _number(block[place + 12 : place + 24])))
        if not is_extended:
            return extents
        _check_count(len(extents) // 2)
        block = b"".join(source.pieces(_BLOCK_BYTES))
        at, entries, is_extended = 0, _EXTENDED_ENTRIES, block[_EXTENDED_IS_EXTENDED]


def _map_among_data(source: _TarBytes, stored_bytes: int) -> tuple["array[int]", int]:
    """Return the map of version 1.0: before the data, a number a line; the first is how many pairs follow."""
    extents, wanted = array("Q"), None
    used_bytes, rest = 0, b""
    while wanted is None or len(extents) < wanted:
        used_bytes += _BLOCK_BYTES
        if used_bytes > stored_bytes:
            raise _DamagedError(_NONSENSE)
        *lines, rest = (rest + b"".join(source.pieces(_BLOCK_BYTES))).split(b"\n")
        for line in lines:
            if wanted is None:
                wanted = 2 * _decimal(line)
                _check_count(wanted // 2)
            elif len(extents) < wanted:
                extents.append(_decimal(line))
    return extents, used_bytes


def _check_count(count: int) -> None:
    if count > MAX_EXTENTS:
        raise _UnreadableError(f"with a sparse file of more than {MAX_EXTENTS} parts")


def _checked(extents: "array[int]", size_bytes: int, data_bytes: int) -> "array[int]":
    """Return the parts of a sparse file that are not empty; they must be in order, and sum up to what is stored."""
    found = array("Q")
    end = 0
    if len(extents) % 2:
        raise _DamagedError(_NONSENSE)
    for offset, size in zip(extents[::2], extents[1::2], strict=True):
        if size:
            if offset < end:
                raise _DamagedError(_NONSENSE)
            end = offset + size
            found.extend((offset, size))
    if end > size_bytes or sum(found[1::2]) != data_bytes:
        raise _DamagedError(_NONSENSE)
    return found


def _contents(source: _TarBytes, member: _Member) -> Iterator[bytes]:
    if member.extents is None:
        yield from source.pieces(member.size_bytes)
        return
    end = 0
    for offset, size in zip(member.extents[::2], member.extents[1::2], strict=True):
        yield from _hole(offset - end)
        yield from source.pieces(size)
        end = offset + size
    yield from _hole(member.size_bytes - end)


def _hole(size: int) -> Iterator[bytes]:
    for left in range(size, 0, -PIECE_BYTES):
        yield _ZEROS if left >= PIECE_BYTES else _ZEROS[:left]


def _name(block: bytes) -> str:
    name = block[_NAME].split(b"\0", 1)[0]
    prefix = block[_PREFIX].split(b"\0", 1)[0] if block[_MAGIC] == _USTAR else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    """Return the bytes that `_text` decoded."""
    return text.encode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    """Return a number of a header: octal, or where its first bit is set binary, as GNU tar has it for large ones."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        text = field.split(b"\0", 1)[0].strip(b" ")
        if text.strip(b"01234567"):
            raise _DamagedError("a header with a number that is none, or below zero")
        value = int(text or b"0", 8)
    return _bounded(value)


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise _DamagedError("a header with a number that is none, or below zero")
    return _bounded(int(text))


def _bounded(value: int) -> int:
    if value >= 1 << 63:  # of off_t, in which all programs have them
        raise _DamagedError("a header with a number that is too large")
    return value


def _padded(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
