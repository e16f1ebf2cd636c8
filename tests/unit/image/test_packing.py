import bz2
import gzip
import io
import lzma
import os
import random
import signal
import subprocess
import sys
import tarfile
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError, LocalIOError, MissingFileError, StoppedError
from clouduploader.image import packing
from clouduploader.image.tarball import MAX_MEMBERS
from clouduploader.platform import Image, Packing
from clouduploader.stop import Stop

NOISE = random.Random(1).randbytes(3000)  # noqa: S311 it need not be secret
RAW = NOISE + bytes(5000)
COMPRESS = {Packing.XZ: lzma.compress, Packing.GZIP: gzip.compress, Packing.BZIP2: bz2.compress, Packing.RAW: bytes}
ZSTD_FRAME = bytes.fromhex("28b52ffd0400010000") + bytes(12)


def tarball(members, *, end=1024, form=tarfile.GNU_FORMAT):
    """The bytes of a tar archive; the values of `members` are contents."""
    file = io.BytesIO()
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.write(info.tobuf(form) + content + bytes(-len(content) % 512))
    return file.getvalue() + bytes(end)


def header(**fields):
    """The header of a tar member that claims whatever is wanted."""
    info = tarfile.TarInfo(fields.pop("name", "a.raw"))
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image file with these bytes, as `describe` sees it."""

    def make(data, filename="a.raw.xz"):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        return packing.describe(path, filename)

    return make


def measure(image, *, on_bytes=lambda _done: None, stop=None):
    return packing.measure(image, on_bytes=on_bytes, stop=stop or Stop())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RAW, Packing.RAW),
        (lzma.compress(RAW), Packing.XZ),
        (gzip.compress(RAW), Packing.GZIP),
        (bz2.compress(RAW), Packing.BZIP2),
        (ZSTD_FRAME, Packing.ZSTD),
        (tarball({"a.raw": RAW}), Packing.TAR),
        (tarball({"a.raw": RAW}, form=tarfile.USTAR_FORMAT), Packing.TAR),
        (b"x", Packing.RAW),
        (b"\xfd7zXZ", Packing.RAW),
    ],
)
def test_packing_is_told_by_the_first_bytes_and_not_by_the_name(make_image, data, expected):
    for name in ("a.raw", "a.raw.xz", "a.tar.gz"):
        image = make_image(data, name)
        assert (image.packing, image.size_bytes, image.filename) == (expected, len(data), name)


@pytest.mark.parametrize("kind", COMPRESS)
def test_tarball_is_recognised_in_any_packing(make_image, kind):
    assert make_image(COMPRESS[kind](tarball({"a.raw": RAW}))).is_tarball
    assert not make_image(COMPRESS[kind](RAW)).is_tarball


def test_damaged_image_is_described_without_an_error(make_image):
    image = make_image(lzma.compress(RAW)[:20])
    assert (image.packing, image.is_tarball) == (Packing.XZ, False)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: None, MissingFileError, "there is no image"),
        (lambda path: path.mkdir(), ImageError, "is not a regular file"),
        (os.mkfifo, ImageError, "is not a regular file"),
        (lambda path: path.write_bytes(b""), ImageError, r"the image real\.raw is empty"),
        (lambda path: path.symlink_to("nowhere"), MissingFileError, "there is no image"),
        (lambda path: path.symlink_to(path.name), MissingFileError, "there is no image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, make, error, words):
    path = tmp_path / "42.file"
    make(path)
    with pytest.raises(error, match=words):
        packing.describe(path, "real.raw")


def test_path_below_a_file_is_no_image(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((MissingFileError, LocalIOError)):
        packing.describe(tmp_path / "file" / "42.file", "a.raw")


def test_link_to_an_image_is_the_image(make_image, tmp_path):
    make_image(lzma.compress(RAW))
    (tmp_path / "link").symlink_to("42.file")
    assert measure(packing.describe(tmp_path / "link", "a.raw.xz")) == len(RAW)


@pytest.mark.parametrize("kind", COMPRESS)
@hypothesis.given(content=st.binary(min_size=1, max_size=3000))
def test_measure_gives_the_unpacked_size(tmp_path_factory, kind, content):
    path = tmp_path_factory.mktemp("image") / "a"
    data = COMPRESS[kind](content)
    path.write_bytes(data)
    assert measure(Image(path, "a", kind, len(data))) == len(content)


@pytest.mark.parametrize("kind", [Packing.XZ, Packing.GZIP, Packing.BZIP2])
@hypothesis.given(contents=st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_all_streams_of_a_file_are_measured(tmp_path_factory, kind, contents):
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(b"".join(map(COMPRESS[kind], contents)))
    assert measure(Image(path, "a", kind, path.stat().st_size)) == sum(map(len, contents))


def test_streams_larger_than_a_chunk_are_measured(make_image):
    noise = random.Random(2).randbytes(packing.CHUNK_BYTES + 4711)  # noqa: S311
    stream = lzma.compress(noise, preset=0)
    assert len(stream) > packing.CHUNK_BYTES
    assert measure(make_image(stream * 3)) == 3 * len(noise)


@pytest.mark.parametrize("zeros", [4, 8, 512, packing.CHUNK_BYTES + 4])
def test_padding_of_xz_is_skipped(make_image, zeros):
    stream = lzma.compress(RAW)
    assert measure(make_image(stream + bytes(zeros))) == len(RAW)
    assert measure(make_image(stream + bytes(zeros) + stream + bytes(zeros))) == 2 * len(RAW)


@pytest.mark.parametrize("zeros", [1, 2, 3, 5, packing.CHUNK_BYTES + 1])
def test_padding_of_xz_in_odd_numbers_is_damage(make_image, zeros):
    stream = lzma.compress(RAW)
    for data in (stream + bytes(zeros), stream + bytes(zeros) + stream):
        with pytest.raises(ImageError, match=f"has {zeros} stray zero bytes"):
            measure(make_image(data))


@pytest.mark.parametrize("kind", [Packing.XZ, Packing.GZIP, Packing.BZIP2])
@hypothesis.given(share=st.floats(0, 1, exclude_max=True))
def test_cut_off_data_are_refused_wherever_they_are_cut(tmp_path_factory, kind, share):
    path = tmp_path_factory.mktemp("image") / "a"
    data = COMPRESS[kind](RAW)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"real\.raw is cut off: the (xz|gz|bz2) data end too early"):
        measure(Image(path, "real.raw", kind, len(data)))


@pytest.mark.parametrize("kind", [Packing.XZ, Packing.GZIP, Packing.BZIP2])
def test_second_stream_that_is_cut_off_is_refused(make_image, kind):
    data = COMPRESS[kind](RAW)
    with pytest.raises(ImageError, match="cut off"):
        measure(make_image(data + data[:-1]))


@hypothesis.given(position=st.integers(0, len(lzma.compress(RAW)) - 1), bit=st.integers(0, 7))
def test_any_wrong_bit_of_xz_is_noticed(tmp_path_factory, position, bit):
    path = tmp_path_factory.mktemp("image") / "a"
    data = bytearray(lzma.compress(RAW))
    data[position] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"real\.raw is (damaged|cut off)"):
        measure(Image(path, "real.raw", Packing.XZ, len(data)))


@pytest.mark.parametrize("kind", [Packing.XZ, Packing.GZIP, Packing.BZIP2])
@hypothesis.given(garbage=st.binary(min_size=1, max_size=40))
def test_garbage_behind_the_end_is_refused(tmp_path_factory, kind, garbage):
    data = COMPRESS[kind](RAW)
    hypothesis.assume(garbage.strip(b"\0") or kind is not Packing.XZ)
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(data + garbage)
    with pytest.raises(ImageError):
        measure(Image(path, "a", kind, len(data)))


def test_garbage_is_told_with_its_place(make_image):
    data = lzma.compress(RAW)
    with pytest.raises(ImageError, match=rf"garbage behind the end of its data, at byte {len(data)}$"):
        measure(make_image(data + b"rubbish"))


def test_another_packing_behind_the_end_is_garbage(make_image):
    with pytest.raises(ImageError, match="garbage"):
        measure(make_image(lzma.compress(RAW) + gzip.compress(RAW)))


def test_zstd_is_refused_with_a_reason(make_image):
    with pytest.raises(ImageError, match="zstd, which can't be unpacked here"):
        measure(make_image(ZSTD_FRAME))


@pytest.mark.parametrize("kind", COMPRESS)
def test_tarball_has_the_size_of_its_raw_file(make_image, kind):
    members = {"LICENSE": b"text", "dir/a.raw": RAW, "a.raw.sha256": b"0" * 64}
    assert measure(make_image(COMPRESS[kind](tarball(members)))) == len(RAW)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tarball_with_a_long_name_is_measured(make_image, form):
    name = f"{'d' * 90}/{'ö' * 30}/a.raw"
    assert measure(make_image(tarball({name: RAW}, form=form))) == len(RAW)


def test_sparse_tarball_of_gnu_tar_has_the_size_of_the_whole_file(make_image, tmp_path):
    with (tmp_path / "disk.raw").open("wb") as file:
        for place in range(30):
            file.seek(place << 20)
            file.write(b"x" * 4096)
        file.truncate(100 << 20)
    subprocess.run(["tar", "-C", tmp_path, "-cSf", tmp_path / "sparse.tar", "disk.raw"], check=True)
    data = (tmp_path / "sparse.tar").read_bytes()
    assert len(data) < 1 << 20
    assert measure(make_image(gzip.compress(data))) == 100 << 20


@pytest.mark.parametrize(
    ("members", "number"), [({}, 0), ({"a.txt": b"x"}, 0), ({"a.raw": b"x", "b.raw": b"y"}, 2), ({"a.RAW": b"x"}, 0)]
)
def test_tarball_without_exactly_one_raw_file_is_refused(make_image, members, number):
    image = make_image(gzip.compress(tarball({"LICENSE": b"text"} | members)))
    with pytest.raises(ImageError, match=f"tarball with {number} .raw files in it, not one"):
        measure(image)


def test_directories_and_links_are_no_raw_files(make_image):
    data = header(name="d.raw", type=tarfile.DIRTYPE) + header(name="l.raw", type=tarfile.SYMTYPE, linkname="a.raw")
    assert measure(make_image(data + tarball({"a.raw": RAW}))) == len(RAW)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("size", [513, 1000, 512 + len(RAW) - 1])
def test_tarball_that_ends_within_a_member_is_refused(make_image, kind, size):
    with pytest.raises(ImageError, match="damaged tarball: unexpected end of data"):
        measure(make_image(COMPRESS[kind](tarball({"a.raw": RAW})[:size])))


def test_damage_of_the_packing_behind_the_end_of_a_tarball_is_noticed(make_image):
    data = gzip.compress(tarball({"a.raw": RAW}, end=1 << 20))
    with pytest.raises(ImageError, match=r"damaged: bad gz data .*incorrect data check"):
        measure(make_image(data[:-8] + b"\1" + data[-7:]))


def pax(name, value):
    """A pax header with one record."""
    body = f"{len(name) + len(value) + 5} {name}={value}\n".encode()
    assert len(body) == int(body[:2])
    return header(name="pax", type=tarfile.XHDTYPE, size=len(body)) + body.ljust(512, b"\0")


def negative():
    """A header that tells a size below zero, in the binary form of GNU tar."""
    block = bytearray(header(size=0))
    block[124:136] = b"\xff" * 11 + b"\0"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" "))
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(header(size=1 << 60), id="size of an exabyte"),
        pytest.param(header(size=1 << 60, type=tarfile.GNUTYPE_SPARSE), id="sparse of an exabyte"),
        pytest.param(pax("size", str(1 << 60)) + header(), id="size of an exabyte in pax"),
        pytest.param(pax("size", "-1") + header(), id="size below zero in pax"),
        pytest.param(negative(), id="size below zero"),
        pytest.param(header(type=tarfile.XHDTYPE, size=1 << 33), id="pax header of 8 GiB"),
        pytest.param(header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 33), id="name of 8 GiB"),
        pytest.param(pax("GNU.sparse.map", "x,y,z,a") + header(), id="sparse map of letters"),
        pytest.param((header(type=b"L", size=1) + b"a".ljust(512, b"\0")) * 3000, id="names of names"),
        pytest.param(header(name="empty") * (MAX_MEMBERS + 1), id="too many members"),
    ],
)
def test_absurd_tarball_is_refused_at_once(make_image, data):
    image = make_image(data + bytes(1024))
    assert image.is_tarball
    with pytest.raises(ImageError, match="damaged tarball"):
        measure(image)


@hypothesis.given(
    kind=st.sampled_from(b"0SLKxgX17\0"),
    position=st.integers(0, 511),
    patch=st.binary(min_size=1, max_size=12),
    body=st.binary(max_size=600),
)
def test_any_tar_header_is_measured_or_refused(tmp_path_factory, kind, position, patch, body):
    block = bytearray(header(type=bytes([kind]), size=len(body)))
    block[position : position + len(patch)] = patch[: 512 - position]
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" "))
    data = bytes(block) + body.ljust(1024, b"\0") + header() + bytes(1024)
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(data)
    try:
        size_bytes = measure(Image(path, "a", Packing.TAR, len(data), is_tarball=True))
    except ImageError:
        return
    assert size_bytes >= 0


def asks_for_memory(data, dictionary):
    """Change the block header of an xz stream: its data then ask for a larger dictionary."""
    changed = bytearray(data)
    end = 12 + (changed[12] + 1) * 4 - 4
    place = changed.index(b"\x21\x01", 12) + 2  # filter LZMA2, one byte of properties; xz file format 5.3.1
    changed[place] = dictionary
    changed[end : end + 4] = zlib.crc32(changed[12:end]).to_bytes(4, "little")
    return bytes(changed)


def test_xz_that_asks_for_the_whole_memory_is_refused(make_image):
    data = lzma.compress(RAW, preset=0)
    assert measure(make_image(asks_for_memory(data, 28))) == len(RAW)  # 64 MiB, what xz -9 asks for
    with pytest.raises(ImageError, match="Memory usage limit"):
        measure(make_image(asks_for_memory(data, 40)))  # 4 GiB


BOMB = """
import gzip, lzma, sys
from pathlib import Path
from clouduploader.image import packing
from clouduploader.image.tarball import MAX_MEMBERS
from clouduploader.stop import Stop

def peak_kib():  # getrusage would begin with the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

zeros = bytes(1 << 24)
path = Path(sys.argv[1])
with (lzma.open(path, "wb", preset=0) if sys.argv[2] == "xz" else gzip.open(path, "wb", 1)) as file:
    for _ in range(16):
        file.write(zeros)
del zeros
image = packing.describe(path, "a.raw")
before = peak_kib()
size = packing.measure(image, on_bytes=lambda _done: None, stop=Stop())
print(image.size_bytes, size, peak_kib() - before)
"""


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_image_of_zeros_takes_no_more_memory_than_another(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path / "bomb", kind], stdout=subprocess.PIPE, text=True, check=True
    )
    packed, unpacked, growth_kib = map(int, done.stdout.split())
    assert packed < 2 << 20
    assert unpacked == 256 << 20
    assert growth_kib < 32 << 10


def test_progress_grows_to_the_size_of_the_file(make_image):
    told = []
    image = make_image(lzma.compress(random.Random(3).randbytes(5 << 20), preset=0))  # noqa: S311
    measure(image, on_bytes=told.append)
    assert told == sorted(told)
    assert told[-1] == image.size_bytes
    assert len(told) > 3


def test_raw_image_is_not_read(make_image):
    told = []
    assert measure(make_image(RAW), on_bytes=told.append) == len(RAW)
    assert told == []


@pytest.mark.parametrize(
    ("kind", "is_tarball"),
    [(kind, is_tarball) for kind in COMPRESS for is_tarball in (False, True) if (kind, is_tarball) != ("raw", False)],
)
def test_stop_ends_the_measuring(make_image, kind, is_tarball):
    stop = Stop()
    image = make_image(COMPRESS[kind](tarball({"a.raw": RAW}) if is_tarball else RAW))
    stop.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        measure(image, stop=stop)


def test_file_that_went_away_is_an_error_of_ours(make_image):
    image = make_image(lzma.compress(RAW))
    image.path.unlink()
    with pytest.raises(LocalIOError, match="can't be read: No such file"):
        measure(image)
