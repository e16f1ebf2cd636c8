import gzip

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import COMPRESS, noise, tarball, vhd_footer

from clouduploader.errors import ImageError
from clouduploader.image import open as image_open
from clouduploader.image import partial_read
from clouduploader.model.disk import Compression
from clouduploader.util.cancel import Cancel

RAW = noise(200_000) + bytes(100_000) + noise(1000, 2)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("pack", [bytes, lambda raw: tarball({"LICENSE": b"x" * 9000, "a.raw": raw})])
def test_any_part_is_read_in_any_order(make_image, kind, pack):
    image = make_image(COMPRESS[kind](pack(RAW)), "a")

    @hypothesis.settings(max_examples=10)
    @hypothesis.given(reads=st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 40_000)), max_size=5))
    def check(reads):
        with image_open.open_reader(image, Cancel()) as reader:
            for offset, size in reads:
                assert reader.read_at(offset, size) == RAW[offset : offset + size]

    check()


@pytest.mark.parametrize("kind", COMPRESS)
def test_footer_of_a_vhd_is_not_read(make_image, kind):
    with image_open.open_reader(make_image(COMPRESS[kind](RAW + vhd_footer(len(RAW)))), Cancel()) as reader:
        assert reader.read_at(len(RAW) - 10, 600) == RAW[-10:]


def test_going_forward_unpacks_once_and_going_back_anew(make_image, monkeypatch):
    monkeypatch.setattr(partial_read, "MAX_BYTES", 2 * len(RAW))
    with image_open.open_reader(make_image(gzip.compress(RAW)), Cancel()) as reader:
        for _ in range(2):
            for offset in range(0, len(RAW), 1000):
                assert reader.read_at(offset, 1000) == RAW[offset : offset + 1000]
        with pytest.raises(partial_read.TooFarError):
            reader.read_at(0, 1)


def test_too_much_is_not_unpacked(make_image, monkeypatch):
    monkeypatch.setattr(partial_read, "MAX_BYTES", 1 << 20)
    with image_open.open_reader(make_image(gzip.compress(bytes(8 << 20))), Cancel()) as reader:
        assert reader.read_at(500_000, 1) == b"\0"
        for _ in range(2):
            with pytest.raises(partial_read.TooFarError, match="not read further than 1 MiB"):
                reader.read_at(7 << 20, 1)


def test_too_much_before_the_disk_is_not_unpacked(make_image, monkeypatch):
    monkeypatch.setattr(partial_read, "MAX_BYTES", 1 << 20)
    image = make_image(gzip.compress(tarball({"big.txt": bytes(8 << 20), "a.raw": RAW})))
    with image_open.open_reader(image, Cancel()) as reader, pytest.raises(ImageError, match="larger than"):
        reader.read_at(0, 1)


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind is not Compression.RAW])
def test_damage_is_an_error(make_image, kind):
    data = COMPRESS[kind](RAW)
    with image_open.open_reader(make_image(data[:-4]), Cancel()) as reader, pytest.raises(ImageError, match="cut off"):
        reader.read_at(0, len(RAW) + 1)
