import bz2
import gzip
import hashlib
import lzma
import signal
import subprocess
import sys
import types
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st
from isal import igzip_lib
from samples.packed_images import COMPRESS, PACKED, noise, pack_xz, zstd

from clouduploader.errors import ImageError, LocalIOError, StoppedError, TransientError
from clouduploader.image import decompress, packed_file
from clouduploader.image import zstd as image_zstd
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

RAW = noise(2000) + bytes(100_000) + b"ab" * 5000
WITH_CHECKSUM = {zstd.CompressionParameter.checksum_flag: 1}
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\0\0\0notes"


@pytest.fixture(params=["isal", "zlib"])
def gzip_library(request, monkeypatch):
    """Have one of the two libraries for gz, as if there were no other."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    return request.param


def opened(path, data, kind, *, cancel=None, **options):
    path.write_bytes(data)
    return packed_file.open_packed(Image(path, "real.raw", kind, len(data)), cancel=cancel or Cancel(), **options)


def unpacked(path, data, kind, **options):
    with opened(path, data, kind, **options) as file:
        pieces = list(decompress.unpack(file, kind))
    assert all(pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", COMPRESS)
def test_pieces_are_small_and_the_file_is_read_to_its_end(tmp_path, kind):
    data = COMPRESS[kind](bytes(1 << 20)) + COMPRESS[kind](RAW)
    told = []
    with opened(tmp_path / "a", data, kind, on_bytes=told.append) as file:
        pieces = list(decompress.unpack(file, kind))
        assert b"".join(pieces) == bytes(1 << 20) + RAW
        assert max(map(len, pieces)) <= packed_file.READ_BYTES
        assert file.sha256() == hashlib.sha256(data).hexdigest()
    assert told[-1] == len(data)


@pytest.mark.usefixtures("gzip_library")
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    members=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 9)), min_size=1, max_size=4),
    read_bytes=st.integers(1, 40),
    piece_bytes=st.integers(1, 40),
)
def test_members_of_gz_end_anywhere_in_what_is_read(tmp_path_factory, members, read_bytes, piece_bytes):
    data = b"".join(gzip.compress(content, level) for content, level in members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_file, "READ_BYTES", read_bytes)
        patch.setattr(decompress, "PIECE_BYTES", piece_bytes)
        assert unpacked(tmp_path_factory.mktemp("gz") / "a", data, Compression.GZIP) == b"".join(
            content for content, _ in members
        )


@pytest.mark.usefixtures("gzip_library")
@hypothesis.settings(max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(position=st.integers(0, 3000), bit=st.integers(0, 7), cut=st.integers(0, 20))
def test_damaged_gz_never_gives_other_contents(tmp_path_factory, position, bit, cut):
    data = bytearray(gzip.compress(RAW))
    data[position % len(data)] ^= 1 << bit
    data = bytes(data[: len(data) - cut])
    try:
        found = unpacked(tmp_path_factory.mktemp("gz") / "a", data, Compression.GZIP)
    except ImageError:
        return
    assert found == RAW  # a time or a name in the header was changed


@pytest.mark.usefixtures("gzip_library")
def test_gz_with_all_fields_in_its_header_is_unpacked(tmp_path):
    plain = gzip.compress(RAW)
    head = b"\x1f\x8b\x08\x1e" + plain[4:10] + b"\x05\0extra" + b"a.raw\0" + b"a comment\0"
    data = head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + plain[10:]
    assert unpacked(tmp_path / "a", data, Compression.GZIP) == RAW


def gz_with_header(content, name, *, comment=b"", extra=b""):
    """A member whose header has all fields, checksum included."""
    plain = gzip.compress(content)
    texts = name + b"\0" + comment + b"\0"
    head = b"\x1f\x8b\x08\x1e" + plain[4:10] + len(extra).to_bytes(2, "little") + extra + texts
    return head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + plain[10:]


@pytest.mark.usefixtures("gzip_library")
@pytest.mark.parametrize("read_bytes", range(1, 70))
def test_header_of_gz_may_begin_and_end_anywhere_in_what_is_read(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(packed_file, "READ_BYTES", read_bytes)
    member = gz_with_header(b"abc", b"disk-1.raw", comment=b"a comment", extra=b"extra")
    assert unpacked(tmp_path / "a", member * 5, Compression.GZIP) == b"abc" * 5


@pytest.mark.usefixtures("gzip_library")
def test_header_of_gz_may_be_long_but_not_endless(tmp_path):
    member = gz_with_header(RAW, b"n" * 4096, comment=b"c" * 100_000, extra=b"e" * 0xFFFF)
    assert unpacked(tmp_path / "a", member * 2, Compression.GZIP) == RAW * 2
    with pytest.raises(ImageError, match=r"has a gzip header of more than 262144 bytes at byte 0$"):
        unpacked(tmp_path / "a", gz_with_header(RAW, b"n" * 1_000_000), Compression.GZIP)


def test_frames_of_zstd_that_are_to_be_skipped_are_skipped(tmp_path):
    data = SKIPPABLE + zstd.compress(RAW) + SKIPPABLE * 2 + zstd.compress(b"x") + SKIPPABLE
    assert unpacked(tmp_path / "a", data, Compression.ZSTD) == RAW + b"x"


@pytest.mark.parametrize("kind", [*PACKED, "frames to be skipped"])
def test_file_of_countless_streams_without_contents_is_given_up(tmp_path, kind, monkeypatch):
    """Each costs a decoder: the time of a mebibyte of these is that of a whole image."""
    monkeypatch.setattr(decompress, "MAX_STREAMS", 50)
    packing_kind = Compression.ZSTD if kind == "frames to be skipped" else kind
    empty = SKIPPABLE if kind == "frames to be skipped" else COMPRESS[kind](b"")
    start = COMPRESS[packing_kind](b"x")
    assert unpacked(tmp_path / "a", start + empty * 10, packing_kind) == b"x"
    with pytest.raises(ImageError, match=r"in too many pieces: [0-9]+ up to byte [0-9]+ hold nearly nothing"):
        unpacked(tmp_path / "a", start + empty * 100, packing_kind)


def test_zstd_that_asks_for_more_memory_than_zstd_gives_is_refused(tmp_path):
    def frame(window_log):
        return b"\x28\xb5\x2f\xfd\0" + bytes([window_log - 10 << 3]) + b"\x09\0\0x"

    assert unpacked(tmp_path / "a", frame(decompress.ZSTD_WINDOW_LOG), Compression.ZSTD) == b"x"
    with pytest.raises(ImageError, match=r"real\.raw needs more than 128 MiB of memory"):
        unpacked(tmp_path / "a", frame(decompress.ZSTD_WINDOW_LOG + 1), Compression.ZSTD)


@pytest.mark.parametrize("kind", PACKED)
@hypothesis.given(
    position=st.floats(0, 1, exclude_max=True), patch=st.binary(min_size=1, max_size=8), cut=st.integers(0, 8)
)
def test_any_change_gives_the_same_contents_or_an_error(tmp_path_factory, kind, position, patch, cut):
    whole = COMPRESS[kind](RAW) if kind is not Compression.ZSTD else zstd.compress(RAW, options=WITH_CHECKSUM)
    place = int(len(whole) * position)
    data = whole[:place] + patch + whole[place + cut :]
    try:
        found = unpacked(tmp_path_factory.mktemp("image") / "a", data, kind)
    except ImageError as exc:
        assert "real.raw" in exc.message  # noqa: PT017 it need not be raised
    else:
        assert found == RAW


@pytest.mark.parametrize("kind", PACKED)
def test_damage_is_told_with_its_place(tmp_path, kind):
    data = COMPRESS[kind](noise(1 << 19))
    damaged = bytearray(data)
    damaged[300_000:300_040] = bytes(40)
    if kind is Compression.ZSTD:  # without a checksum only its headers can show it
        damaged[image_zstd.read_frame(data).header_bytes] |= 6  # a block of the reserved kind
    with pytest.raises(ImageError, match=rf"real\.raw is damaged: bad {kind} data before byte (\d+)"):
        unpacked(tmp_path / "a", bytes(damaged), kind)


@pytest.mark.parametrize("kind", COMPRESS)
def test_stop_ends_it(tmp_path, kind):
    cancel = Cancel()
    with opened(tmp_path / "a", COMPRESS[kind](RAW) * 2, kind, cancel=cancel) as file:
        cancel.request(signal.SIGTERM)
        with pytest.raises(StoppedError):
            next(decompress.unpack(file, kind))


def test_peeking_changes_nothing(tmp_path):
    with opened(tmp_path / "a", RAW, Compression.RAW) as file:
        assert file.read(10) == RAW[:10]
        assert file.peek(5000, 10) == RAW[5000:5010]
        assert file.peek(len(RAW) - 3, 10) == RAW[-3:]
        assert file.peek(len(RAW) + 3, 10) == b""
        assert file.read(10) == RAW[10:20]
        assert (file.offset, file.sha256()) == (20, hashlib.sha256(RAW[:20]).hexdigest())


def test_file_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    with (
        pytest.raises(LocalIOError, match="can't be read: Is a directory"),
        packed_file.open_packed(Image(tmp_path, "a", Compression.RAW, 9), cancel=Cancel()),
    ):
        pass


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.BZIP2])
@pytest.mark.parametrize("zeros", [1, 5, 512, packed_file.READ_BYTES * 2 + 1])
def test_zeros_up_to_the_end_of_gz_and_bz2_are_padding(tmp_path, kind, zeros):
    """As tapes and flashers leave them; gzip(1) says nothing of them."""
    data = COMPRESS[kind](RAW) * 2 + bytes(zeros)
    with opened(tmp_path / "a", data, kind) as file:
        assert b"".join(decompress.unpack(file, kind)) == RAW * 2
        assert file.sha256() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.BZIP2])
@pytest.mark.parametrize("behind", [b"signature", b"\0\0signature", b"\0\1", b"\1", bytes(3000) + b"x", None])
def test_what_gzip_and_bzip2_ignore_is_refused_unless_forced(tmp_path, kind, behind):
    """A member whose first bytes are damaged looks like that too, and one behind zeros is ignored by gzip(1)."""
    stream = COMPRESS[kind](RAW)
    data = stream + (bytes(512) + COMPRESS[kind](RAW) if behind is None else behind)
    with pytest.raises(ImageError, match=rf"real\.raw has something else .* at byte {len(stream)}: a sig") as caught:
        unpacked(tmp_path / "a", data, kind)
    assert f"head -c {len(stream)}" in caught.value.hint
    assert "force" in caught.value.hint
    told = []
    with opened(tmp_path / "a", data, kind, overlook=told.append) as file:
        assert b"".join(decompress.unpack(file, kind)) == RAW
        assert file.sha256() == hashlib.sha256(data).hexdigest()
    assert told == [caught.value.message]


@pytest.mark.parametrize("kind", [Compression.XZ, Compression.ZSTD])
def test_what_xz_and_zstd_refuse_behind_their_data_is_refused_when_forced_too(tmp_path, kind):
    stream = COMPRESS[kind](RAW)
    with pytest.raises(ImageError, match="something else behind the end") as caught:
        unpacked(tmp_path / "a", stream + b"signature", kind, overlook=lambda _message: None)
    assert f"head -c {len(stream)}" in caught.value.hint


@pytest.mark.usefixtures("gzip_library")
@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("before", [b"", gzip.compress(b"x")], ids=["first", "second"])
def test_reserved_bits_in_a_header_of_gz_are_an_error(tmp_path, before, bits):
    data = bytearray(before + gzip.compress(RAW))
    data[len(before) + 3] |= bits << 5
    with pytest.raises(ImageError, match=f"reserved bits are set in its header at byte {len(before)}$"):
        unpacked(tmp_path / "a", bytes(data), Compression.GZIP)


def with_check(stream, number):
    """A stream of xz that has its check under another number; it must be of the same size."""
    changed = bytearray(stream)
    changed[7] = changed[-3] = number
    changed[8:12] = zlib.crc32(changed[6:8]).to_bytes(4, "little")
    changed[-12:-8] = zlib.crc32(changed[-8:-2]).to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize("number", [2, 3])  # of 4 bytes each, as CRC32 has; xz file format 1.2.1, section 2.1.1.2
@pytest.mark.parametrize("before", [b"", pack_xz(b"x")], ids=["first", "second"])
def test_check_of_xz_that_nobody_knows_is_refused_unless_forced(tmp_path, number, before):
    data = before + with_check(lzma.compress(RAW, check=lzma.CHECK_CRC32), number)
    with pytest.raises(ImageError, match=f"check of type {number} in its xz data at byte {len(before)}, which is not"):
        unpacked(tmp_path / "a", data, Compression.XZ)
    told = []
    assert unpacked(tmp_path / "a", data, Compression.XZ, overlook=told.append)[-len(RAW) :] == RAW
    assert len(told) == 1


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_all_checks_of_xz_are_known(tmp_path, check):
    assert unpacked(tmp_path / "a", lzma.compress(RAW, check=check), Compression.XZ) == RAW


def test_zstd_that_takes_a_dictionary_is_not_called_damaged(tmp_path):
    samples = [f"sample {number} of a text that repeats".encode() * 3 for number in range(200)]
    dictionary = zstd.train_dict(samples, 4096)
    data = zstd.compress(RAW, zstd_dict=dictionary)
    with pytest.raises(ImageError, match=rf"packed by means of a dictionary, number {dictionary.dict_id}$"):
        unpacked(tmp_path / "a", data, Compression.ZSTD)


def test_filter_that_liblzma_does_not_know_is_not_called_damage(tmp_path):
    stream = bytearray(pack_xz(RAW))
    end = 12 + (stream[12] + 1) * 4
    stream[stream.index(b"\x21\x01", 12)] = 0x3F  # no filter's number; xz file format 1.2.1, section 5
    stream[end - 4 : end] = zlib.crc32(stream[12 : end - 4]).to_bytes(4, "little")
    with pytest.raises(ImageError, match=r"can't be unpacked: its xz data before byte \d+ need a filter that is not"):
        unpacked(tmp_path / "a", bytes(stream), Compression.XZ)


@pytest.mark.parametrize("level", range(1, 10))
def test_bzip2_of_any_block_size_and_number_of_streams_is_unpacked(tmp_path, level):
    data = bz2.compress(RAW, level) + bz2.compress(b"") + bz2.compress(b"x", level)
    assert unpacked(tmp_path / "a", data, Compression.BZIP2) == RAW + b"x"


DAMAGE = {
    "xz": (Compression.XZ, lzma, "LZMADecompressor", [lzma.LZMAError("Corrupt input data")]),
    "bzip2": (Compression.BZIP2, bz2, "BZ2Decompressor", [OSError("Invalid data stream")]),
    "isal": (
        Compression.GZIP,
        igzip_lib,
        "IgzipDecompressor",
        [igzip_lib.error("Error -1 Invalid deflate block found")],
    ),
    "zlib": (Compression.GZIP, zlib, "decompressobj", [zlib.error("Error -3 invalid block type")]),
    "zstd": (Compression.ZSTD, zstd, "ZstdDecompressor", [zstd.ZstdError("Data corruption detected")]),
}
"""The decoders, and what each has of its own for damage."""
OF_ALL = [EOFError("End of stream already reached"), ValueError("odd parameter"), RuntimeError("odd sequence")]
"""What they can raise besides: _bz2module.c (catch_bz2_error), _lzmamodule.c (catch_lzma_error), zlibmodule.c."""


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [(name, error, ImageError) for name, decoder in DAMAGE.items() for error in [*decoder[3], *OF_ALL]]
    + [(name, MemoryError(), TransientError) for name in DAMAGE],
)
def test_whatever_a_decoder_raises_is_an_error_of_ours(tmp_path, monkeypatch, name, error, expected):
    kind, module, maker, _errors = DAMAGE[name]

    def fail(*_data):
        raise error

    def decoder(*_options, **_more):
        return types.SimpleNamespace(eof=False, needs_input=True, unused_data=b"", unconsumed_tail=b"", decompress=fail)

    data = COMPRESS[kind](RAW)
    if name == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setattr(module, maker, decoder)
    with pytest.raises(expected, match=r"real\.raw") as caught:
        unpacked(tmp_path / "a", data, kind)
    assert type(caught.value) is expected


SMALL = """
import resource, sys
from pathlib import Path
from clouduploader.errors import TransientError
from clouduploader.image import decompress, packed_file, xz
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel
image = Image(Path(sys.argv[1]), "real.raw", Compression.XZ, Path(sys.argv[1]).stat().st_size)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20), -1))
ways = (lambda file: decompress.unpack(file, Compression.XZ), lambda file: xz.unpack(file, xz.read_streams(file), 1))
for unpack in ways:
    with packed_file.open_packed(image, cancel=Cancel()) as file:
        try:
            list(unpack(file))
        except TransientError as exc:
            print(exc.message)
"""


def test_memory_that_is_not_there_is_no_damage(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
    (tmp_path / "a").write_bytes(lzma.compress(RAW, filters=filters))
    command = [sys.executable, "-c", SMALL, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "there is not enough memory on this machine to unpack real.raw\n" * 2
