import gzip

import hypothesis
import pytest
from hypothesis import strategies as st
from image_packings import COMPRESS, noise, tarball, vhd_footer

from clouduploader.errors import ImageError
from clouduploader.image import packing, reading
from clouduploader.platform import Packing
from clouduploader.stop import Stop

RAW = noise(200_000) + bytes(100_000) + noise(1000, 2)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("pack", [bytes, lambda raw: tarball({"LICENSE": b"x" * 9000, "a.raw": raw})])
@hypothesis.settings(max_examples=10)
@hypothesis.given(reads=st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 40_000)), max_size=5))
def test_any_part_is_read_in_any_order(tmp_path_factory, kind, pack, reads):
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(COMPRESS[kind](pack(RAW)))
    with packing.reader(packing.describe(path, "a", Stop()), Stop()) as reader:
        for offset, size in reads:
            assert reader.read_at(offset, size) == RAW[offset : offset + size]


@pytest.mark.parametrize("kind", COMPRESS)
def test_footer_of_a_vhd_is_not_read(make_image, kind):
    with packing.reader(make_image(COMPRESS[kind](RAW + vhd_footer(len(RAW)))), Stop()) as reader:
        assert reader.read_at(len(RAW) - 10, 600) == RAW[-10:]


def test_going_forward_unpacks_once_and_going_back_anew(make_image, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 2 * len(RAW))
    with packing.reader(make_image(gzip.compress(RAW)), Stop()) as reader:
        for _ in range(2):
            for offset in range(0, len(RAW), 1000):
                assert reader.read_at(offset, 1000) == RAW[offset : offset + 1000]
        with pytest.raises(reading.TooFarError):
            reader.read_at(0, 1)


def test_too_much_is_not_unpacked(make_image, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    with packing.reader(make_image(gzip.compress(bytes(8 << 20))), Stop()) as reader:
        assert reader.read_at(500_000, 1) == b"\0"
        for _ in range(2):
            with pytest.raises(reading.TooFarError, match="not read further than 1 MiB"):
                reader.read_at(7 << 20, 1)


def test_too_much_before_the_disk_is_not_unpacked(make_image, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    image = make_image(gzip.compress(tarball({"big.txt": bytes(8 << 20), "a.raw": RAW})))
    with packing.reader(image, Stop()) as reader, pytest.raises(ImageError, match="larger than"):
        reader.read_at(0, 1)


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind is not Packing.RAW])
def test_damage_is_an_error(make_image, kind):
    data = COMPRESS[kind](RAW)
    with packing.reader(make_image(data[:-4]), Stop()) as reader, pytest.raises(ImageError, match="cut off"):
        reader.read_at(0, len(RAW) + 1)
