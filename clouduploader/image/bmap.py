"""Block maps of bmap-tools: which blocks of a raw image were ever written.

Versions 1.0 to 2.0, as bmaptool's BmapCreate.py writes and BmapCopy.py reads them: from 1.3 on there is a checksum
of the map itself, and one of each range. The reader of an image checks that all else is zeros.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from clouduploader.errors import ImageError
from clouduploader.image import sidecar
from clouduploader.image.raw_disk import MAX_EXTENTS, Extents
from clouduploader.util.frozen import frozen

SUFFIX = ".bmap"
MAX_BYTES = 1 << 24  # ours: a range is a line of about 100 bytes, and few images have more than some 1,000
_PACKING_SUFFIX = re.compile(r"\.(?:xz|gz|bz2|zst|zstd)$")
_NUMBER = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"([0-9]{1,18})(?:\s*-\s*([0-9]{1,18}))?")
_OWN_CHECKSUM = {"BmapFileSHA1", "BmapFileChecksum"}  # 1.3; from 1.4 on
_DIGESTS = {"sha1": 40, "sha256": 64, "sha512": 128}  # ChecksumType, and its hexadecimal digits
_SUMS_OF_1_3 = ("sha1", "sha1")  # the attribute of a range, and the kind; since 1.4 it is "chksum", of any kind
_NO_SUM = (1 << 64, 1 << 64, "")  # behind all disks
_COUNTS = ("BlocksCount", "MappedBlocksCount")  # of the image, and in the ranges
_SINGLE = frozenset({"ImageSize", "BlockSize", "ChecksumType", *_COUNTS, *_OWN_CHECKSUM})
_DEPTH = 8  # ours: a map has three levels


@frozen()
class Bmap:
    """A block map.

    Attributes:
        size_bytes: Of the raw image.
        extents: What was written.
        sums: Of ranges, in order: start and end in bytes, and the checksum in hex.
        kind: Of the checksums, as hashlib has it.
    """

    size_bytes: int
    extents: Extents
    sums: tuple[tuple[int, int, str], ...] = ()
    kind: str = "sha256"


def find(path: Path, filename: str) -> Path | None:
    """Find the block map of an image: `FILENAME.bmap`, or that of the name without `.xz` and the like."""
    names = dict.fromkeys((filename, _PACKING_SUFFIX.sub("", filename)))
    return sidecar.find(path, [name + SUFFIX for name in names])


def read(path: Path) -> Bmap:
    """Read a block map.

    Raises:
        ImageError: It is no block map, is damaged, or of a version that is not known.
        LocalIOError: It can't be read.
    """
    data = sidecar.read(path, MAX_BYTES)
    try:
        return parse(data)
    except ImageError as exc:
        raise ImageError(
            f"{path} is not a sound block map: {exc.message}", hint="Remove it, or replace it by the image's own."
        ) from exc


def parse(data: bytes) -> Bmap:
    """Read the XML of a block map.

    Raises:
        ImageError: What is wrong with it, in a few words.
    """
    document = _Document(data)
    fields = document.fields
    version = re.fullmatch(r"([12])(?:\.([0-9]{1,3}))?(?:\.[0-9]{1,3})?", document.version)
    if not version:
        raise ImageError(f"its version {document.version[:20]!r} is not known")
    _check_digest(data, fields)
    sum_name, kind = _SUMS_OF_1_3 if document.version == "1.3" else ("chksum", fields.get("ChecksumType", "sha256"))
    has_sums = (int(version[1]), int(version[2] or 0)) >= (1, 3)
    size_bytes = _number(fields, "ImageSize")
    block_bytes = _number(fields, "BlockSize")
    if not block_bytes:
        raise ImageError("its blocks have no size")
    ranges = _ranges([text for text, _ in document.ranges], size_bytes, block_bytes)
    extents = _joined(ranges)
    sums = [
        (*part, _sum(attributes[sum_name], kind, sum_name))
        for part, (_, attributes) in zip(ranges, document.ranges, strict=True)
        if has_sums and sum_name in attributes
    ]
    mapped = sum(-(-end // block_bytes) - start // block_bytes for start, end in extents)
    for name, count in zip(_COUNTS, (-(-size_bytes // block_bytes), mapped), strict=True):
        if name in fields and _number(fields, name) != count:  # maps before version 1.3 have no checksum of their own
            raise ImageError(f"{name} is {fields[name]}, but there are {count}")
    return Bmap(size_bytes, extents, tuple(sums), kind)


def check_pieces(pieces: Iterator[bytes], written: Bmap, filename: str) -> Iterator[bytes]:
    """Yield the pieces of a disk; raise an error where a range is not what its checksum says.

    Args:
        pieces: The disk in order.
        written: Its map.
        filename: For errors.

    Raises:
        ImageError: See above.
    """
    sums = iter(written.sums)
    start, end, digest = next(sums, _NO_SUM)
    found = _hash(written.kind)
    offset = 0
    for piece in pieces:
        piece_end = offset + len(piece)
        while start < piece_end:
            found.update(memoryview(piece)[max(start - offset, 0) : end - offset])
            if end > piece_end:
                break
            if found.hexdigest() != digest:
                raise ImageError(
                    f"{filename} is not what its .bmap describes: the {written.kind} of the bytes {start} to {end - 1} "
                    f"is {found.hexdigest()}, not {digest}",
                    hint="Get the image anew, or replace the .bmap by the image's own.",
                )
            start, end, digest = next(sums, _NO_SUM)
            found = _hash(written.kind)
        yield piece
        offset = piece_end


def _hash(kind: str) -> "hashlib._Hash":
    return hashlib.new(kind, usedforsecurity=False)


def _sum(text: str, kind: str, name: str) -> str:
    """Return a checksum of this kind, in lower case."""
    if kind not in _DIGESTS:
        raise ImageError(f"its checksums are of the unknown kind {kind[:20]!r}")
    if not re.fullmatch(f"[0-9a-fA-F]{{{_DIGESTS[kind]}}}", text):
        raise ImageError(f"{name} is not a checksum")
    return text.lower()


def _ranges(texts: list[str], size_bytes: int, block_bytes: int) -> list[tuple[int, int]]:
    """Return the beginnings and ends of ranges, in bytes; they must be in order."""
    found: list[tuple[int, int]] = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if not match:
            raise ImageError(f"{text[:40]!r} is not a range of blocks")
        first, last = int(match[1]), int(match[2] or match[1])
        start, end = first * block_bytes, (last + 1) * block_bytes
        if first > last or last * block_bytes >= size_bytes or (found and start < found[-1][1]):
            raise ImageError(f"the range {text} is out of order, or outside the image")
        found.append((start, min(end, size_bytes)))
    return found


def _joined(ranges: list[tuple[int, int]]) -> Extents:
    found: list[tuple[int, int]] = []
    for start, end in ranges:
        if found and start == found[-1][1]:
            start, _ = found.pop()
        found.append((start, end))
    return tuple(found)


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ImageError(f"it has no {name}" if not text else f"{name} is no number")
    return int(text)


def _check_digest(data: bytes, fields: dict[str, str]) -> None:
    """Compare the file with the digest in it, which was computed with zeros in its place."""
    for name in _OWN_CHECKSUM & fields.keys():
        kind = "sha1" if name == "BmapFileSHA1" else fields.get("ChecksumType", "sha256")
        wanted = _sum(fields[name], kind, name)
        found = _hash(kind)
        found.update(data.replace(fields[name].encode(), b"0" * len(wanted), 1))
        if found.hexdigest() != wanted:
            raise ImageError("it was changed or damaged: its own checksum does not fit")


class _Document:
    """The elements of the XML that are used, bounded in depth and number; no DTD, so no entities.

    Attributes:
        version: Of the format; "" if there is none.
        fields: Texts of the elements that come once.
        ranges: Texts and attributes of the ranges, as they come.
    """

    def __init__(self, data: bytes) -> None:
        self.version = ""
        self.fields: dict[str, str] = {}
        self.ranges: list[tuple[str, dict[str, str]]] = []
        self._attributes: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = _refuse_doctype
        try:
            parser.Parse(data, True)
        except expat.ExpatError as exc:
            raise ImageError(f"line {exc.lineno} is not XML: {expat.ErrorString(exc.code)}") from exc
        except (LookupError, ValueError) as exc:
            raise ImageError(f"it is not XML: {exc}") from exc  # an unknown encoding

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._path:
            if name != "bmap":
                raise ImageError(f"it is an XML of {name[:40]!r}")
            self.version = attributes.get("version", "").strip()
        self._path.append(name)
        self._attributes = attributes
        self._text.clear()
        if len(self._path) > _DEPTH:
            raise ImageError("its elements are nested too deeply")

    def _end(self, name: str) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        parents = self._path[:-1]
        self._path.pop()
        if parents == ["bmap"] and name in _SINGLE:
            if name in self.fields:
                raise ImageError(f"it has {name} twice")
            self.fields[name] = text
        elif parents == ["bmap", "BlockMap"] and name == "Range":
            self.ranges.append((text, self._attributes))
            if len(self.ranges) > MAX_EXTENTS:
                raise ImageError(f"it has more than {MAX_EXTENTS} ranges")


def _refuse_doctype(*_arguments: object) -> None:
    raise ImageError("it has a document type declaration")
