import hashlib
import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError
from clouduploader.image import bmap

DIGITS = {"sha1": 40, "sha256": 64, "sha512": 128}


def document(
    ranges,
    *,
    size=10 * 4096,
    block=4096,
    version="2.0",
    kind="sha256",
    field="BmapFileChecksum",
    head="",
    tail="",
    counts="",
    sums=(),
):
    """A block map with its own checksum, as bmaptool writes it; field None for none."""
    name = "sha1" if version == "1.3" else "chksum"
    given = itertools.chain((f' {name}="{value}"' for value in sums), itertools.repeat(""))
    lines = "".join(f"    <Range{attribute}> {text} </Range>\n" for text, attribute in zip(ranges, given, strict=False))
    own = f"  <{field}> @ </{field}>\n" if field else ""
    kinds = f"  <ChecksumType> {kind} </ChecksumType>\n" if field == "BmapFileChecksum" else ""
    text = (
        f'<?xml version="1.0" ?>\n<!-- a <comment> of "people" -->\n{head}\n<bmap version="{version}">\n'
        f"  <ImageSize> {size} </ImageSize>\n  <BlockSize> {block} </BlockSize>\n{kinds}{own}"
        f"{counts}\n  <BlockMap>\n{lines}  </BlockMap>\n{tail}</bmap>\n"
    )
    blank = text.replace("@", "0" * DIGITS[kind])
    return text.replace("@", hashlib.new(kind, blank.encode()).hexdigest()).encode()


@pytest.mark.parametrize(
    ("version", "kind", "field"),
    [
        ("1.0", "sha1", None),
        ("1.2", "sha1", None),
        ("1.3", "sha1", "BmapFileSHA1"),
        ("1.4", "sha256", "BmapFileChecksum"),
        ("2.0", "sha256", "BmapFileChecksum"),
        ("2.0", "sha512", "BmapFileChecksum"),
    ],
)
def test_map_of_each_version_is_read(version, kind, field):
    data = document(["0-1", "3", "5-9"], version=version, kind=kind, field=field)
    assert bmap.parse(data) == bmap.Bmap(
        40960, ((0, 8192), (12288, 16384), (20480, 40960)), kind=kind if field else "sha256"
    )


def counts(blocks, mapped):
    return f"<BlocksCount> {blocks} </BlocksCount><MappedBlocksCount> {mapped}    </MappedBlocksCount>"


@pytest.mark.parametrize("version", ["1.0", "1.2", "2.0"])
def test_map_that_lost_a_range_is_refused(version):
    def parse(ranges, blocks=10, mapped=8):
        field = "BmapFileChecksum" if version == "2.0" else None
        return bmap.parse(document(ranges, size=40_000, version=version, field=field, counts=counts(blocks, mapped)))

    assert parse(["0-1", "2", "5-9"]).extents == ((0, 12288), (20480, 40_000))
    with pytest.raises(ImageError, match="MappedBlocksCount is 8, but there are 7"):
        parse(["0-1", "5-9"])
    with pytest.raises(ImageError, match="BlocksCount is 11, but there are 10"):
        parse(["0-1", "2", "5-9"], blocks=11)
    with pytest.raises(ImageError, match="MappedBlocksCount is no number"):
        parse(["0-1"], mapped="-1")


def test_last_block_ends_with_the_image():
    assert bmap.parse(document(["9"], size=9 * 4096 + 1)).extents == ((9 * 4096, 9 * 4096 + 1),)


def test_ranges_that_touch_are_one():
    assert bmap.parse(document(["0-1", "2", "3-4", "6"])).extents == ((0, 20480), (24576, 28672))


def test_map_without_ranges_is_all_holes():
    assert bmap.parse(document([])).extents == ()
    assert bmap.parse(document([], size=0)) == bmap.Bmap(0, ())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not XML"),
        (b"\x89PNG", "not XML"),
        (b"<html></html>", "XML of 'html'"),
        (document(["0"])[:-9], "not XML"),
        (document(["0"], version="3.0"), "version '3.0' is not known"),
        (document(["0"], version=""), "version '' is not known"),
        (document(["0"], block=0), "no size"),
        (document(["0"], block=-1), "BlockSize is no number"),
        (document(["0"], size="1" * 19), "ImageSize is no number"),
        (document(["0"], size="9 9"), "ImageSize is no number"),
        (document(["a"]), "'a' is not a range"),
        (document(["1-"]), "'1-' is not a range"),
        (document(["2-1"]), "2-1 is out of order"),
        (document(["2", "1"]), "1 is out of order"),
        (document(["1-3", "3"]), "3 is out of order"),
        (document(["9-10"]), "outside the image"),
        (document(["10"]), "outside the image"),
        (document(["0"], tail="<ImageSize> 1 </ImageSize>"), "ImageSize twice"),
        (document(["0"], head='<!DOCTYPE bmap [<!ENTITY a "aaaa">]>'), "document type declaration"),
        (document(["0"], head='<!DOCTYPE bmap SYSTEM "http://127.0.0.1/">'), "document type declaration"),
        (document(["0"], tail="<a>" * 20 + "</a>" * 20), "nested too deeply"),
        (document(["0"]).replace(b"<ImageSize>", b"<ImageSizes>").replace(b"</ImageSize>", b"</ImageSizes>"), "own"),
        (document(["0-1"]).replace(b" 0-1 ", b" 0-2 "), "own checksum does not fit"),
        (document(["0"]).replace(b"sha256", b"sha257"), "unknown kind 'sha257'"),
        (document(["0"]).replace(b"sha256", b"sha512"), "BmapFileChecksum is not a checksum"),
        (document(["0"], field=None).replace(b"<ImageSize> 40960 </ImageSize>", b""), "no ImageSize"),
        (document(["0"]).replace(b'version="1.0"', b'version="1.0" encoding="none"'), "not XML"),
    ],
)
def test_damaged_map_is_an_error_that_says_what(data, words):
    with pytest.raises(ImageError, match=words):
        bmap.parse(data)


def test_more_ranges_than_are_kept_is_an_error(monkeypatch):
    monkeypatch.setattr(bmap, "MAX_EXTENTS", 3)
    assert bmap.parse(document(["0", "2", "4"])).extents[-1] == (16384, 20480)
    with pytest.raises(ImageError, match="more than 3 ranges"):
        bmap.parse(document(["0", "2", "4", "6"]))


@pytest.mark.parametrize(
    ("filename", "there", "found"),
    [
        ("a.raw.xz", ["a.raw.xz.bmap"], "a.raw.xz.bmap"),
        ("a.raw.xz", ["a.raw.bmap"], "a.raw.bmap"),
        ("a.raw.xz", ["a.raw.bmap", "a.raw.xz.bmap"], "a.raw.xz.bmap"),
        ("a.raw.zst", ["a.raw.bmap"], "a.raw.bmap"),
        ("a.raw", ["a.raw.bmap"], "a.raw.bmap"),
        ("a.raw", ["a.bmap"], None),
        ("a.raw.xz", [], None),
    ],
)
def test_map_beside_the_image_is_found(tmp_path, filename, there, found):
    for name in there:
        (tmp_path / name).touch()
    assert bmap.find(tmp_path / "42.file", filename) == (found and tmp_path / found)


def test_map_beside_what_a_link_leads_to_is_found(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.raw").touch()
    (tmp_path / "images" / "a.raw.bmap").write_bytes(document(["0"]))
    (tmp_path / "42.file").symlink_to("images/a.raw")
    assert bmap.read(bmap.find(tmp_path / "42.file", "a.raw")).extents == ((0, 4096),)


def test_damaged_map_is_named(tmp_path):
    path = tmp_path / "a.raw.bmap"
    path.write_bytes(document(["0"])[:100])
    with pytest.raises(ImageError, match=r"a\.raw\.bmap is not a sound block map: line 5 is not XML") as caught:
        bmap.read(path)
    assert caught.value.hint


def test_huge_map_is_not_read(tmp_path):
    path = tmp_path / "a.raw.bmap"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="has more than 16777216 bytes"):
        bmap.read(path)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000))), st.integers(0, 1 << 22))
def test_extents_of_any_ranges_are_sorted_and_inside(ranges, size):
    try:
        found = bmap.parse(document([f"{first}-{last}" for first, last in ranges], size=size))
    except ImageError:
        return
    ends = [0, *(position for extent in found.extents for position in extent)]
    assert ends[-1] <= size
    assert all(start < end for start, end in found.extents)
    assert all(before < after for before, after in itertools.pairwise(ends[1:]))


@hypothesis.given(
    st.binary()
    | st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=5).map(
        lambda changes: bytes(dict([*enumerate(document(["0-1", "3"])), *changes]).values())
    )
)
def test_any_bytes_give_a_map_or_an_error(data):
    try:
        found = bmap.parse(data)
    except ImageError:
        return
    assert found.extents in (((0, 8192), (12288, 16384)), ())


RAW = random.Random(7).randbytes(9 * 4096 + 100)  # noqa: S311 it need not be secret


def of(raw, *, version="2.0", kind="sha256", ranges=("0-1", "3", "4-5", "7-9")):
    """A map of these ranges, with the checksum of each."""
    sums = []
    for text in ranges:
        first, last = (int(number) for number in (text.split("-") * 2)[:2])
        sums.append(hashlib.new(kind, raw[first * 4096 : (last + 1) * 4096], usedforsecurity=False).hexdigest())
    field = "BmapFileSHA1" if version == "1.3" else "BmapFileChecksum"
    return bmap.parse(document(ranges, size=len(raw), version=version, kind=kind, field=field, sums=sums))


VERSIONS = [("1.3", "sha1"), ("1.4", "sha256"), ("2.0", "sha1"), ("2.0", "sha256"), ("2.0", "sha512")]


@pytest.mark.parametrize(("version", "kind"), VERSIONS)
@pytest.mark.parametrize("piece", [1000, 4096, 5000, 8192, 1 << 20])
def test_ranges_with_their_checksums_are_passed(version, kind, piece):
    pieces = [RAW[place : place + piece] for place in range(0, len(RAW), piece)]
    written = of(RAW, version=version, kind=kind)
    assert len(written.sums) == 4
    assert written.extents == ((0, 8192), (12288, 24576), (28672, len(RAW)))
    assert b"".join(bmap.check_pieces(iter(pieces), written, "a.raw")) == RAW


@pytest.mark.parametrize(("version", "kind"), VERSIONS)
@hypothesis.given(place=st.integers(0, len(RAW) - 1), piece=st.integers(100, 20_000))
def test_byte_that_is_another_is_noticed_where_there_is_a_checksum(version, kind, place, piece):
    changed = bytearray(RAW)
    changed[place] ^= 1
    pieces = [bytes(changed[at : at + piece]) for at in range(0, len(RAW), piece)]
    passed = bmap.check_pieces(iter(pieces), of(RAW, version=version, kind=kind), "a.raw")
    if 8192 <= place < 12288 or 24576 <= place < 28672:  # in a hole, of which others find that it is none
        assert b"".join(passed) == changed
        return
    with pytest.raises(ImageError, match=rf"a\.raw is not what its \.bmap describes: the {kind} of the bytes \d+ to"):
        list(passed)


@pytest.mark.parametrize(
    ("sums", "words"),
    [(["0" * 63], "chksum is not a checksum"), (["g" * 64], "chksum is not a checksum"), ([""], "chksum")],
)
def test_checksum_of_a_range_that_is_none_is_an_error(sums, words):
    with pytest.raises(ImageError, match=words):
        bmap.parse(document(["0-1"], sums=sums))


def test_checksums_of_ranges_before_version_1_3_do_not_count():
    """As for bmaptool; none that has been published has any."""
    assert bmap.parse(document(["0-1"], version="1.2", field=None, sums=["0" * 64])).sums == ()
    assert bmap.parse(document(["0-1", "3"], sums=["0" * 64])).sums == ((0, 8192, "0" * 64),)


def test_checksum_in_capitals_is_the_same():
    written = of(RAW)
    sums = [digest.upper() for _, _, digest in written.sums]
    data = document(["0-1", "3", "4-5", "7-9"], size=len(RAW), sums=sums)
    assert bmap.parse(data) == written
