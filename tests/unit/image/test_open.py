import bz2
import gzip
import hashlib
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
from samples.packed_images import COMPRESS, PACKED, multi_block_xz, noise, pack_xz, tarball, vhd_footer, zstd

from clouduploader.errors import ImageError, LocalIOError, MissingFileError, StoppedError, UnavailableError
from clouduploader.image import open as image_open
from clouduploader.image import packed_file
from clouduploader.model.disk import Compression, DiskFormat, Image
from clouduploader.util.cancel import Cancel

RAW = noise(3000) + bytes(5000)


def measure(image, *, on_bytes=lambda _done: None, cancel=None, **options):
    return image_open.measure(image, on_bytes=on_bytes, cancel=cancel or Cancel(), **options)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RAW, Compression.RAW),
        (pack_xz(RAW), Compression.XZ),
        (gzip.compress(RAW), Compression.GZIP),
        (bz2.compress(RAW), Compression.BZIP2),
        (zstd.compress(RAW), Compression.ZSTD),
        (b"\x5f\x2a\x4d\x18\0\0\0\0" + zstd.compress(RAW), Compression.ZSTD),
        (tarball({"a.raw": RAW}), Compression.TAR),
        (tarball({"a.raw": RAW}, form=tarfile.USTAR_FORMAT), Compression.TAR),
        (b"x", Compression.RAW),
        (b"\xfd7zXZ", Compression.RAW),
    ],
)
def test_packing_is_told_by_the_first_bytes_and_not_by_the_name(make_image, data, expected):
    for name in ("a.raw", "a.raw.xz", "a.tar.gz"):
        image = make_image(data, name)
        assert (image.compression, image.size_bytes, image.filename) == (expected, len(data), name)


@pytest.mark.parametrize("kind", COMPRESS)
def test_tarball_is_recognised_in_any_packing(make_image, kind):
    assert make_image(COMPRESS[kind](tarball({"a.raw": RAW}))).is_tarball
    assert not make_image(COMPRESS[kind](RAW)).is_tarball


def test_damaged_image_is_described_without_an_error(make_image):
    image = make_image(pack_xz(RAW)[:20])
    assert (image.compression, image.is_tarball) == (Compression.XZ, False)


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
        image_open.describe(path, "real.raw", Cancel())


def test_path_below_a_file_is_no_image(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((MissingFileError, LocalIOError)):
        image_open.describe(tmp_path / "file" / "42.file", "a.raw", Cancel())


def test_link_to_an_image_is_the_image(make_image, tmp_path):
    make_image(pack_xz(RAW))
    (tmp_path / "link").symlink_to("42.file")
    assert measure(image_open.describe(tmp_path / "link", "a.raw.xz", Cancel())) == len(RAW)


@pytest.mark.parametrize("kind", COMPRESS)
@hypothesis.given(content=st.binary(min_size=1, max_size=3000))
def test_measure_gives_the_unpacked_size(tmp_path_factory, kind, content):
    path = tmp_path_factory.mktemp("image") / "a"
    data = COMPRESS[kind](content)
    path.write_bytes(data)
    assert measure(Image(path, "a", kind, len(data))) == len(content)


@pytest.mark.parametrize("kind", PACKED)
@hypothesis.given(contents=st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_all_streams_of_a_file_are_measured(tmp_path_factory, kind, contents):
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(b"".join(map(COMPRESS[kind], contents)))
    assert measure(Image(path, "a", kind, path.stat().st_size)) == sum(map(len, contents))


def test_streams_larger_than_a_chunk_are_measured(make_image):
    noise = random.Random(2).randbytes(packed_file.READ_BYTES + 4711)  # noqa: S311
    stream = lzma.compress(noise, preset=0)
    assert len(stream) > packed_file.READ_BYTES
    assert measure(make_image(stream * 3)) == 3 * len(noise)


@pytest.mark.parametrize("zeros", [4, 8, 512, packed_file.READ_BYTES + 4])
def test_padding_of_xz_is_skipped(make_image, zeros):
    stream = pack_xz(RAW)
    assert measure(make_image(stream + bytes(zeros))) == len(RAW)
    assert measure(make_image(stream + bytes(zeros) + stream + bytes(zeros))) == 2 * len(RAW)


@pytest.mark.parametrize("zeros", [1, 2, 3, 5, packed_file.READ_BYTES + 1])
def test_padding_of_xz_in_odd_numbers_is_damage(make_image, zeros):
    stream = pack_xz(RAW)
    for data in (stream + bytes(zeros), stream + bytes(zeros) + stream):
        with pytest.raises(
            ImageError, match=rf"has {zeros} zeros behind its xz data at byte {len(stream)}, .* multiples of 4"
        ):
            measure(make_image(data))


@pytest.mark.parametrize("kind", PACKED)
@hypothesis.given(share=st.floats(0, 1, exclude_max=True))
def test_cut_off_data_are_refused_wherever_they_are_cut(tmp_path_factory, kind, share):
    path = tmp_path_factory.mktemp("image") / "a"
    data = COMPRESS[kind](RAW)
    size = int(len(data) * share)
    path.write_bytes(data[:size])
    with pytest.raises(ImageError, match=rf"real\.raw is cut off: the {kind} data end too early, at byte {size}$"):
        measure(Image(path, "real.raw", kind, size))


@pytest.mark.parametrize("kind", PACKED)
def test_second_stream_that_is_cut_off_is_refused(make_image, kind):
    data = COMPRESS[kind](RAW)
    with pytest.raises(ImageError, match="cut off"):
        measure(make_image(data + data[:-1]))


@hypothesis.given(position=st.integers(0, len(pack_xz(RAW)) - 1), bit=st.integers(0, 7))
def test_any_wrong_bit_of_xz_is_noticed(tmp_path_factory, position, bit):
    path = tmp_path_factory.mktemp("image") / "a"
    data = bytearray(pack_xz(RAW))
    data[position] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"real\.raw is (damaged|cut off)"):
        measure(Image(path, "real.raw", Compression.XZ, len(data)))


@pytest.mark.parametrize("kind", PACKED)
@hypothesis.given(garbage=st.binary(min_size=1, max_size=40))
def test_garbage_behind_the_end_is_refused(tmp_path_factory, kind, garbage):
    data = COMPRESS[kind](RAW)
    hypothesis.assume(garbage.strip(b"\0") or kind is Compression.ZSTD)
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(data + garbage)
    with pytest.raises(ImageError):
        measure(Image(path, "a", kind, len(data)))


def test_garbage_is_told_with_its_place(make_image):
    data = pack_xz(RAW)
    with pytest.raises(ImageError, match=rf"behind the end of its xz data, at byte {len(data)}: a sig") as caught:
        measure(make_image(data + b"rubbish"))
    assert f"head -c {len(data)}" in caught.value.hint


def test_another_packing_behind_the_end_is_garbage(make_image):
    with pytest.raises(ImageError, match="something else behind the end"):
        measure(make_image(pack_xz(RAW) + gzip.compress(RAW)))


def test_zstd_is_refused_with_a_reason_where_nothing_can_unpack_it(make_image, monkeypatch):
    for name in ("backports", "backports.zstd", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    image = make_image(zstd.compress(tarball({"a.raw": RAW})))
    assert (image.compression, image.is_tarball) == (Compression.ZSTD, False)
    with pytest.raises(UnavailableError, match="this Python has no zstd") as caught:
        measure(image)
    assert "clouduploader[fast]" in caught.value.hint


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
    with pytest.raises(ImageError, match=r"a\.raw\.xz needs more than 256 MiB of memory"):
        measure(make_image(asks_for_memory(data, 40)))  # 4 GiB


BOMB = """
import gzip, lzma, sys
from pathlib import Path
from clouduploader.image import decompress, open as image_open
from clouduploader.image.tarball import MAX_MEMBERS
from clouduploader.util.cancel import Cancel

def peak_kib():  # getrusage would begin with the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

zeros = bytes(1 << 24)
path = Path(sys.argv[1])
with (lzma.open(path, "wb", preset=0) if sys.argv[2] == "xz" else gzip.open(path, "wb", 1)) as file:
    for _ in range(3):
        file.write(zeros)
del zeros
image = image_open.describe(path, "a.raw", Cancel())
before = peak_kib()
size = image_open.measure(image, on_bytes=lambda _done: None, cancel=Cancel())
print(image.size_bytes, size, peak_kib() - before)
"""


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_image_of_zeros_takes_no_more_memory_than_another(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, "-c", BOMB, tmp_path / "bomb", kind], stdout=subprocess.PIPE, text=True, check=True
    )
    packed, unpacked, growth_kib = map(int, done.stdout.split())
    assert packed < 2 << 20
    assert unpacked == 48 << 20
    assert growth_kib < 16 << 10


def test_progress_grows_to_the_size_of_the_file(make_image):
    told = []
    image = make_image(lzma.compress(random.Random(3).randbytes(1 << 20), preset=0))  # noqa: S311
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
    cancel = Cancel()
    image = make_image(COMPRESS[kind](tarball({"a.raw": RAW}) if is_tarball else RAW))
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        measure(image, cancel=cancel)


def test_file_that_went_away_is_an_error_of_ours(make_image):
    image = make_image(pack_xz(RAW))
    image.path.unlink()
    with pytest.raises(LocalIOError, match="can't be read: No such file"):
        measure(image)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"QFI\xfb\0\0\0\3", DiskFormat.QCOW2),
        (b"KDMV\1\0\0\0", DiskFormat.VMDK),
        (b"conectix", DiskFormat.VHD_DYNAMIC),
        (b"\xeb\x63\x90", DiskFormat.RAW),
        (b"", DiskFormat.RAW),
    ],
)
def test_disk_format_is_told_by_the_first_bytes_inside(make_image, kind, head, expected):
    assert make_image(COMPRESS[kind](head + RAW)).disk_format is expected


@pytest.mark.parametrize("kind", COMPRESS)
def test_stop_is_honoured_while_the_beginning_is_unpacked(make_image, kind):
    path = make_image(COMPRESS[kind](RAW)).path
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        image_open.describe(path, "a.raw", cancel)


def test_fixed_vhd_is_told_by_its_end_where_that_can_be_seen(make_image):
    assert make_image(RAW + vhd_footer(len(RAW))).disk_format is DiskFormat.VHD
    assert make_image(RAW + vhd_footer(len(RAW), kind=3)).disk_format is DiskFormat.RAW
    assert make_image(vhd_footer(0)).disk_format is DiskFormat.VHD_DYNAMIC
    assert make_image(gzip.compress(RAW + vhd_footer(len(RAW)))).disk_format is DiskFormat.RAW
    assert make_image(tarball({"a.raw": RAW + vhd_footer(len(RAW))})).disk_format is DiskFormat.RAW


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RAW, (len(RAW), True)),
        (RAW + vhd_footer(len(RAW)), (len(RAW), True)),
        (pack_xz(RAW), (len(RAW), True)),
        (pack_xz(RAW) * 3 + bytes(8), (3 * len(RAW), True)),
        (pack_xz(b""), (0, True)),
        (multi_block_xz([RAW, b"x", RAW]), (2 * len(RAW) + 1, True)),
        (zstd.compress(RAW), (len(RAW), True)),
        (zstd.compress(RAW) * 3, (3 * len(RAW), True)),
        # perhaps a footer, perhaps a sector
        (pack_xz(bytes(1 << 20) + vhd_footer(1 << 20)), (1 << 20, False)),
        (zstd.compress(bytes((1 << 20) + 512)), (1 << 20, False)),
        (gzip.compress(RAW), (None, False)),
        (bz2.compress(RAW), (None, False)),
        (tarball({"a.raw": RAW}), (None, False)),
        (pack_xz(tarball({"a.raw": RAW})), (None, False)),
    ],
)
def test_unpacked_size_is_told_where_the_format_does(make_image, data, expected):
    assert image_open.unpacked_size(make_image(data), Cancel()) == expected


def test_unpacked_size_of_a_qcow2_is_that_of_its_disk(tmp_path):
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "3G"], check=True)
    assert image_open.unpacked_size(image_open.describe(path, "a.qcow2", Cancel()), Cancel()) == (3 << 30, True)


@pytest.mark.parametrize("kind", [Compression.XZ, Compression.ZSTD])
def test_unpacked_size_of_a_file_that_is_cut_off_is_an_error(make_image, kind):
    data = COMPRESS[kind](RAW)
    for size in (len(data) - 1, len(data) - 20, len(data) // 2):
        with pytest.raises(ImageError, match=rf"is cut off.* at byte {size}$"):
            image_open.unpacked_size(make_image(data[:size]), Cancel())
    rubbish = {Compression.ZSTD: b"rubbish", Compression.XZ: b"\0"}[kind]
    with pytest.raises(ImageError, match=rf"something else behind .* at byte {len(data)}"):
        image_open.unpacked_size(make_image(data + rubbish), Cancel())


def test_fixed_vhd_is_measured_with_its_footer_in_any_packing(make_image):
    data = RAW + vhd_footer(len(RAW))
    for compress in COMPRESS.values():
        assert measure(make_image(compress(data))) == len(data)


@pytest.mark.parametrize("kind", COMPRESS)
def test_measure_checks_the_digest_of_the_file(make_image, kind):
    data = COMPRESS[kind](RAW)
    digest = hashlib.sha256(data).hexdigest()
    assert measure(make_image(data), expected_sha256=digest.upper()) == len(RAW)
    with pytest.raises(ImageError, match=rf"SHA-256 is {digest}, not {'0' * 64}"):
        measure(make_image(data), expected_sha256="0" * 64)


@pytest.mark.parametrize("kind", COMPRESS)
def test_measure_ends_where_it_is_too_large(make_image, kind):
    data = COMPRESS[kind](bytes(8 << 20))
    assert measure(make_image(data), max_size_bytes=8 << 20) == 8 << 20
    with pytest.raises(ImageError, match=f"larger than {(8 << 20) - 1} bytes") as caught:
        measure(make_image(data), max_size_bytes=(8 << 20) - 1)
    assert "--max-size" in caught.value.hint
