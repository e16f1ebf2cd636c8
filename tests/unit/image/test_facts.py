import bz2
import contextlib
import gzip
import lzma
import subprocess

import hypothesis
import image_disks as disks
import pytest
from hypothesis import strategies as st
from test_vhd import footer

from clouduploader.contents import DiskFormat
from clouduploader.errors import ImageError
from clouduploader.image import facts, packing, partitions, reading
from clouduploader.stop import Stop

MIB = 1 << 20
SECTORS = 4 * MIB // 512
PACK = {"raw": bytes, "xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}


def esp(*names, bits=12, machine=None):
    """An EFI system partition with loaders of these names."""
    machines = {"BOOTX64.EFI": disks.X64, "BOOTAA64.EFI": disks.ARM64, "BOOTIA32.EFI": disks.IA32}
    return disks.fat({f"EFI/BOOT/{name}": disks.pe(machine or machines[name]) for name in names}, bits=bits)


def disk(loaders=("BOOTX64.EFI",), *, code=disks.CODE, size=4 * MIB, content=None, **options):
    """A disk with a BIOS boot partition, an EFI system partition, and one more."""
    last = SECTORS - 34
    table = disks.gpt(
        [(disks.BIOS_BOOT, 34, 2047), (disks.ESP, 2048, 6000), (disks.LINUX, 6001, last)],
        sectors=SECTORS, code=code, **options,
    )  # fmt: skip
    data = bytearray(size)
    data[: len(table)] = table
    content = esp(*loaders) if content is None else content
    data[MIB : MIB + len(content)] = content
    return bytes(data[:size])


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image with these bytes, as `packing.describe` sees it."""

    def make(data, filename="a.img"):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        return packing.describe(path, filename, Stop())

    return make


@pytest.mark.parametrize(("name", "is_exact"), [("raw", True), ("xz", True), ("gz", False), ("bz2", False)])
def test_facts_are_found_in_every_packing(make_image, name, is_exact):
    found = facts.inspect(make_image(PACK[name](disk())), Stop())
    assert found.disk_format is DiskFormat.RAW
    assert (found.size_bytes, found.is_size_exact) == (4 * MIB, is_exact)
    assert (found.partition_table, found.minimum_bytes) == ("gpt", 4 * MIB)
    assert found.architectures == ("x86_64",)
    assert (found.boots_uefi, found.boots_bios) == (True, True)


def test_facts_of_a_qcow2_are_those_of_its_disk(make_image, tmp_path):
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk())
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "disk.qcow2"], check=True)
    found = facts.inspect(make_image((tmp_path / "disk.qcow2").read_bytes()), Stop())
    assert found.disk_format is DiskFormat.QCOW2
    assert (found.size_bytes, found.is_size_exact, found.architectures) == (4 * MIB, True, ("x86_64",))


@pytest.mark.parametrize(
    ("loaders", "architectures"),
    [
        ((), ()),
        (("BOOTAA64.EFI",), ("arm64",)),
        (("BOOTIA32.EFI",), ("i386",)),
        (("BOOTX64.EFI", "BOOTIA32.EFI", "BOOTAA64.EFI"), ("arm64", "i386", "x86_64")),
    ],
)
def test_architectures_are_those_of_the_loaders(make_image, loaders, architectures):
    found = facts.inspect(make_image(disk(loaders)), Stop())
    assert (found.architectures, found.boots_uefi) == (architectures, bool(architectures))


@pytest.mark.parametrize(
    "content",
    [
        esp("BOOTX64.EFI", machine=disks.ARM64),
        disks.fat({"EFI/BOOT/BOOTX64.EFI": b"MZ"}, bits=12),
        disks.fat({"EFI/BOOT/BOOTX64.EFI": b""}, bits=12),
        disks.fat({"EFI/BOOT/BOOTX64.EFI": b"#!" + disks.pe(disks.X64)[2:]}, bits=12),
        disks.fat({"EFI/BOOT/BOOTX64.EFI": disks.pe(disks.X64, at=9000)}, bits=12),
        disks.fat({"EFI/BOOT/BOOTX64.EFI": disks.pe(0x5064)}, bits=12),
        disks.fat({"EFI/BOOT/BOOTX64.EFI/X": b"x"}, bits=12),
        disks.fat({"EFI/OPENSUSE/BOOTX64.EFI": disks.pe(disks.X64)}, bits=12),
        b"no file system",
    ],
)
def test_what_firmware_would_not_start_is_no_loader(make_image, content):
    found = facts.inspect(make_image(disk(content=content)), Stop())
    assert (found.architectures, found.boots_uefi, found.boots_bios) == ((), False, True)


def test_loader_in_an_mbr_is_found(make_image):
    data = bytearray(4 * MIB)
    data[:512] = disks.mbr([(0xEF, 2048, 4000)])
    content = esp("BOOTX64.EFI", bits=16)
    data[MIB : MIB + len(content)] = content
    found = facts.inspect(make_image(bytes(data)), Stop())
    assert (found.partition_table, found.architectures, found.minimum_bytes) == ("mbr", ("x86_64",), 6048 * 512)
    assert (found.boots_uefi, found.boots_bios) == (True, False)


@pytest.mark.parametrize("data", [b"x", bytes(MIB), esp("BOOTX64.EFI"), b"PK\3\5" + bytes(9000)])
def test_what_is_no_disk_has_nothing(make_image, data):
    found = facts.inspect(make_image(data), Stop())
    assert (found.partition_table, found.minimum_bytes, found.architectures) == (None, 0, ())
    assert (found.boots_uefi, found.boots_bios, found.size_bytes) == (False, False, len(data))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_size_of_a_stream_without_a_table_is_unknown(make_image, pack):
    found = facts.inspect(make_image(pack(bytes(MIB))), Stop())
    assert (found.size_bytes, found.is_size_exact) == (None, False)


def members(data):
    """The same packed by gzip in one piece, in two, and with an empty one at the end, as bgzip makes it."""
    parts = [data], [data[: 3 * MIB // 2], data[3 * MIB // 2 :]], [data, b""]
    return [b"".join(map(gzip.compress, contents)) for contents in parts]


def test_size_of_a_stream_with_a_gpt_is_that_of_the_table_whatever_gzip_says_at_its_end(make_image):
    for data in members(disk()):
        found = facts.inspect(make_image(data), Stop())
        assert (found.size_bytes, found.is_size_exact) == (4 * MIB, False)
    found = facts.inspect(make_image(gzip.compress(disk() + footer(size_bytes=4 * MIB))), Stop())
    assert (found.size_bytes, found.is_size_exact) == (4 * MIB, False)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_size_of_a_stream_with_an_mbr_is_unknown(make_image, pack):
    data = disks.mbr([(0x83, 2048, 100)])
    found = facts.inspect(make_image(pack(data.ljust(2 * MIB, b"\0"))), Stop())
    assert (found.size_bytes, found.is_size_exact, found.minimum_bytes) == (None, False, 2148 * 512)


def test_image_that_is_cut_off_is_told_as_it_is(make_image):
    found = facts.inspect(make_image(disk(size=3 * MIB)), Stop())
    assert (found.size_bytes, found.minimum_bytes) == (3 * MIB, 4 * MIB)


def test_loader_too_far_behind_is_none(make_image):
    table = disks.gpt([(disks.ESP, facts.REACH_BYTES // 512, facts.REACH_BYTES // 512 + 99)], sectors=1 << 30)
    found = facts.inspect(make_image(gzip.compress(table.ljust(MIB, b"\0"))), Stop())
    assert (found.partition_table, found.architectures) == ("gpt", ())


def test_disk_that_takes_too_much_unpacking_has_no_loader(make_image, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 2 * MIB)
    order = [
        *range(3, 64),
        900,
        100,
        800,
        150,
        850,
        70,
    ]  # the directory leads back and forth, and the stream is one way
    files = {f"EFI/BOOT/F{number}": b"x" for number in range(60)} | {"EFI/BOOT/BOOTX64.EFI": disks.pe(disks.X64)}
    found = facts.inspect(make_image(lzma.compress(disk(content=disks.fat(files, bits=12, order=order)))), Stop())
    assert (found.partition_table, found.architectures, found.size_bytes) == ("gpt", (), 4 * MIB)


def test_damaged_packing_is_an_error(make_image):
    data = bytearray(lzma.compress(disk()))
    data[100] ^= 0xFF
    with pytest.raises(ImageError, match=r"a\.img"):
        facts.inspect(make_image(bytes(data)), Stop())


ORIGINAL = disk()


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 1600) | st.integers(MIB, MIB + 9000), st.integers(0, 255)), max_size=20),
    st.integers(0, len(ORIGINAL)) | st.just(len(ORIGINAL)),
)
def test_any_damage_inside_is_survived(changes, size):
    data = bytearray(ORIGINAL)
    for position, value in changes:
        data[position] = value
    data = bytes(data[:size])

    def read_at(offset, wanted):
        return data[offset : offset + wanted]

    table = partitions.read(read_at)
    if table:
        assert set(facts.loaders(read_at, table)) <= {"x86_64", "arm64", "i386"}


@hypothesis.given(st.sampled_from(["xz", "gz", "bz2"]), st.data())
@hypothesis.settings(max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_damage_of_the_packing_is_an_error_or_survived(make_image, name, data):
    packed = bytearray(PACKED[name])
    packed[data.draw(st.integers(6, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ImageError):
        assert facts.inspect(make_image(bytes(packed)), Stop()).partition_table in ("gpt", "mbr", None)


PACKED = {name: PACK[name](disk()) for name in PACK}
