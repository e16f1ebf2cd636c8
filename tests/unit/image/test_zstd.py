import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import noise, zstd

from clouduploader.errors import ImageError
from clouduploader.image import open as image_open
from clouduploader.image import packed_file
from clouduploader.image import zstd as image_zstd
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

RAW = noise(300_000) + bytes(200_000)
SKIPPABLE = b"\x50\x2a\x4d\x18\x05\0\0\0notes"


def unpacked_size(path, data):
    path.write_bytes(data)
    with packed_file.open_packed(Image(path, "a.zst", Compression.ZSTD, len(data)), cancel=Cancel()) as file:
        return image_zstd.unpacked_size(file)


def compress(data, **options):
    names = {name: getattr(zstd.CompressionParameter, name) for name in options}
    return zstd.compress(data, options={names[name]: value for name, value in options.items()})


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65535, 65536, 65791, 65792, 131072, 500_000])
@pytest.mark.parametrize("checksum", [0, 1])
def test_size_in_the_header_is_told_in_all_its_forms(tmp_path, size, checksum):
    data = compress(RAW[:size], checksum_flag=checksum)
    assert unpacked_size(tmp_path / "a", data) == size
    assert unpacked_size(tmp_path / "a", SKIPPABLE + data + SKIPPABLE + data + SKIPPABLE) == 2 * size


@pytest.mark.parametrize("content", [bytes(1 << 20), noise(1 << 18), b"ab" * 100_000])
def test_all_kinds_of_blocks_are_passed_over(tmp_path, content):
    assert unpacked_size(tmp_path / "a", compress(content) * 2) == 2 * len(content)


def test_frame_without_a_size_leaves_it_unknown(tmp_path):
    packer = zstd.ZstdCompressor()
    unsized = packer.compress(RAW) + packer.flush()
    assert unpacked_size(tmp_path / "a", unsized) is None
    assert unpacked_size(tmp_path / "a", zstd.compress(RAW) + unsized) is None


def test_more_headers_than_can_be_looked_at_leave_it_unknown(tmp_path, monkeypatch):
    data = compress(bytes(1 << 20))  # in blocks of at most 128 KiB
    monkeypatch.setattr(image_zstd, "MAX_HEADERS", 9)
    assert unpacked_size(tmp_path / "a", data) == 1 << 20
    monkeypatch.setattr(image_zstd, "MAX_HEADERS", 8)
    assert unpacked_size(tmp_path / "a", data) is None


@hypothesis.given(share=st.floats(0, 1, exclude_max=True, exclude_min=True))
def test_cut_off_frames_are_an_error_wherever_they_are_cut(tmp_path_factory, share):
    data = zstd.compress(RAW)
    with pytest.raises(ImageError, match=r"a\.zst (is cut off|has something else)"):
        unpacked_size(tmp_path_factory.mktemp("zst") / "a", data[: 4 + int((len(data) - 4) * share)])


def test_garbage_between_frames_is_told_with_its_place(tmp_path):
    data = zstd.compress(RAW)
    with pytest.raises(ImageError, match=f"something else behind the end of its zst data, at byte {len(data)}:"):
        unpacked_size(tmp_path / "a", data + b"rubbish" + data)


def test_block_of_a_reserved_kind_is_damage(tmp_path):
    data = bytearray(compress(b"x" * 300))
    data[4 + 1 + 2] |= 6  # behind magic, descriptor and a size of two bytes
    with pytest.raises(ImageError, match="damaged: bad zst data at byte 7"):
        unpacked_size(tmp_path / "a", bytes(data))


@hypothesis.given(
    start=st.sampled_from([b"", b"\x28\xb5\x2f\xfd", SKIPPABLE, zstd.compress(b"x" * 300)]), data=st.binary(max_size=60)
)
def test_any_bytes_have_a_size_or_none_or_are_refused(tmp_path_factory, start, data):
    try:
        size = unpacked_size(tmp_path_factory.mktemp("zst") / "a", start + data)
    except ImageError:
        return
    assert size is None or size >= 0


@hypothesis.given(position=st.integers(0, 40), change=st.integers(1, 255))
def test_any_change_gives_no_other_size_than_what_comes_out(tmp_path_factory, position, change):
    data = bytearray(compress(RAW[299_000:], checksum_flag=1))
    data[position] ^= change
    path = tmp_path_factory.mktemp("zst") / "a"
    path.write_bytes(data)
    image = Image(path, "a.zst", Compression.ZSTD, len(data))
    try:
        measured = image_open.measure(image, on_bytes=lambda _done: None, cancel=Cancel(), max_size_bytes=1 << 20)
    except ImageError:
        return
    assert unpacked_size(path, bytes(data)) in (measured, None)
