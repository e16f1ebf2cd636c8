import bz2
import contextlib
import gzip
import hashlib
import subprocess

import hypothesis
import pytest
from hypothesis import strategies as st
from samples import image_disks as disks
from samples.packed_images import pack_xz
from unit.model.test_vhd import footer

from clouduploader.errors import ImageError
from clouduploader.image import boot, inspect, partial_read, partitions
from clouduploader.image import open as image_open
from clouduploader.model.disk import MISSING_COPY, DiskFormat
from clouduploader.util.cancel import Cancel

MIB = 1 << 20
SECTORS = 4 * MIB // 512
END = (SECTORS - 33) * 512  # of the last partition
PACK = {"raw": bytes, "xz": pack_xz, "gz": gzip.compress, "bz2": bz2.compress}


def esp(*names, bits=12, machine=None):
    """An EFI system partition with loaders of these names."""
    machines = {"BOOTX64.EFI": disks.X64, "BOOTAA64.EFI": disks.ARM64, "BOOTIA32.EFI": disks.IA32}
    return disks.fat({f"EFI/BOOT/{name}": disks.pe(machine or machines[name]) for name in names}, bits=bits)


GRUB = disks.CODE + b"GRUB \0"


def disk(loaders=("BOOTX64.EFI",), *, code=GRUB, size=4 * MIB, content=None, **options):
    """A disk with a BIOS boot partition, an EFI system partition, and one more."""
    last = SECTORS - 34
    table = disks.gpt(
        [(disks.BIOS_BOOT, 34, 2047), (disks.ESP, 2048, 6000), (disks.LINUX, 6001, last)],
        sectors=SECTORS, code=code, **options,
    )  # fmt: skip
    data = bytearray(max(size, SECTORS * 512))
    data[: len(table)] = table
    data[-33 * 512 :] = disks.gpt_copy(table)
    content = esp(*loaders) if content is None else content
    data[MIB : MIB + len(content)] = content
    return bytes(data[:size])


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image with these bytes, as `packing.describe` sees it."""

    def make(data, filename="a.img"):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        return image_open.describe(path, filename, Cancel())

    return make


@pytest.mark.parametrize(("name", "is_exact"), [("raw", True), ("xz", True), ("gz", False), ("bz2", False)])
def test_facts_are_found_in_every_packing(make_image, name, is_exact):
    found = inspect.inspect(make_image(PACK[name](disk())), Cancel())
    assert found.disk_format is DiskFormat.RAW
    assert (found.size_bytes, found.is_size_exact) == (4 * MIB, is_exact)
    assert (found.partition_table, found.minimum_bytes, found.copy_bytes) == ("gpt", END, 4 * MIB)
    assert (found.warnings, found.no_disk) == ((), None)
    assert found.architectures == ("x86_64",)
    assert (found.boots_uefi, found.boots_bios) == (True, True)


def test_facts_of_a_qcow2_are_those_of_its_disk(make_image, tmp_path):
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk())
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "disk.qcow2"], check=True)
    found = inspect.inspect(make_image((tmp_path / "disk.qcow2").read_bytes()), Cancel())
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
    found = inspect.inspect(make_image(disk(loaders)), Cancel())
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
    found = inspect.inspect(make_image(disk(content=content)), Cancel())
    assert (found.architectures, found.boots_uefi, found.boots_bios) == ((), False, True)


def test_loader_in_an_mbr_is_found(make_image):
    data = bytearray(4 * MIB)
    data[:512] = disks.mbr([(0xEF, 2048, 4000)])
    content = esp("BOOTX64.EFI", bits=16)
    data[MIB : MIB + len(content)] = content
    found = inspect.inspect(make_image(bytes(data)), Cancel())
    assert (found.partition_table, found.architectures, found.minimum_bytes) == ("mbr", ("x86_64",), 6048 * 512)
    assert (found.boots_uefi, found.boots_bios) == (True, False)


@pytest.mark.parametrize("data", [b"x", bytes(MIB), b"PK\3\5" + bytes(9000)])
def test_what_is_no_disk_has_nothing(make_image, data):
    found = inspect.inspect(make_image(data), Cancel())
    assert (found.partition_table, found.minimum_bytes, found.architectures) == (None, 0, ())
    assert (found.boots_uefi, found.boots_bios, found.size_bytes) == (False, False, len(data))
    assert found.no_disk


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_size_of_a_stream_without_a_table_is_unknown(make_image, pack):
    found = inspect.inspect(make_image(pack(bytes(MIB))), Cancel())
    assert (found.size_bytes, found.is_size_exact) == (None, False)


def members(data):
    """The same packed by gzip in one piece, in two, and with an empty one at the end, as bgzip makes it."""
    parts = [data], [data[: 3 * MIB // 2], data[3 * MIB // 2 :]], [data, b""]
    return [b"".join(map(gzip.compress, contents)) for contents in parts]


def test_size_of_a_stream_with_a_gpt_is_that_of_the_table_whatever_gzip_says_at_its_end(make_image):
    for data in members(disk()):
        found = inspect.inspect(make_image(data), Cancel())
        assert (found.size_bytes, found.is_size_exact) == (4 * MIB, False)
    found = inspect.inspect(make_image(gzip.compress(disk() + footer(size_bytes=4 * MIB))), Cancel())
    assert (found.size_bytes, found.is_size_exact) == (4 * MIB, False)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_size_of_a_stream_with_an_mbr_is_unknown(make_image, pack):
    data = disks.mbr([(0x83, 2048, 100)])
    found = inspect.inspect(make_image(pack(data.ljust(2 * MIB, b"\0"))), Cancel())
    assert (found.size_bytes, found.is_size_exact, found.minimum_bytes) == (None, False, 2148 * 512)


def test_image_that_is_cut_off_is_told_as_it_is(make_image):
    found = inspect.inspect(make_image(disk(size=3 * MIB)), Cancel())
    assert (found.size_bytes, found.minimum_bytes) == (3 * MIB, END)


FAR = partial_read.REACH_BYTES // 512


def far_disk(path):
    """A sparse file whose EFI system partition is behind all that is read of a stream."""
    content = esp("BOOTAA64.EFI")
    table = disks.gpt([(disks.ESP, FAR, FAR + 9999)], sectors=FAR + 10050, code=b"")
    with path.open("wb") as file:
        file.write(table)
        file.seek(FAR * 512)
        file.write(content)
        file.truncate((FAR + 10050 - 33) * 512)
        file.seek(0, 2)
        file.write(disks.gpt_copy(table))


def test_distance_does_not_matter_where_any_place_can_be_read(tmp_path):
    far_disk(tmp_path / "a.raw")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", tmp_path / "a.raw", tmp_path / "a.qcow2"], check=True)
    for name in ("a.raw", "a.qcow2"):
        found = inspect.inspect(image_open.describe(tmp_path / name, name, Cancel()), Cancel())
        assert (found.architectures, found.boots_uefi, found.warnings) == (("arm64",), True, ())


def test_loader_too_far_behind_in_a_stream_is_not_known(make_image):
    table = disks.gpt([(disks.ESP, FAR, FAR + 99)], sectors=1 << 30)
    found = inspect.inspect(make_image(gzip.compress(table.ljust(MIB, b"\0"))), Cancel())
    assert (found.partition_table, found.architectures, found.boots_uefi) == ("gpt", (), None)


@pytest.mark.parametrize("type_", [0x83, 0x0C, 0x0E, 0x06, 0xDA])
def test_loader_is_found_in_a_partition_of_any_type(make_image, type_):
    data = bytearray(4 * MIB)
    data[:512] = disks.mbr([(type_, 2048, 4000), (0x83, 6048, 100)])
    content = esp("BOOTAA64.EFI", bits=16)
    data[MIB : MIB + len(content)] = content
    for pack in (bytes, pack_xz):
        found = inspect.inspect(make_image(pack(bytes(data))), Cancel())
        assert (found.architectures, found.boots_uefi, found.boots_bios) == (("arm64",), True, False)


def test_loader_on_a_disk_without_a_table_is_found(make_image):
    found = inspect.inspect(make_image(esp("BOOTX64.EFI")), Cancel())
    assert (found.partition_table, found.architectures, found.boots_uefi) == (None, ("x86_64",), True)
    assert (found.no_disk, found.boots_bios) == (None, False)


@pytest.mark.parametrize(
    ("name", "machine", "architecture"),
    [
        ("BOOTRISCV64.EFI", 0x5064, "riscv64"),
        ("BOOTLOONGARCH64.EFI", 0x6264, "loongarch64"),
        ("BOOTARM.EFI", 0x01C2, "arm"),
        ("BootX64.efi", 0x8664, "x86_64"),
    ],
)
def test_loaders_of_all_architectures_are_told(make_image, name, machine, architecture):
    content = disks.fat({f"EFI/BOOT/{name}": disks.pe(machine)}, bits=12)
    found = inspect.inspect(make_image(disk(content=content, code=b"")), Cancel())
    assert (found.architectures, found.boots_uefi) == ((architecture,), True)


@pytest.mark.parametrize(("code", "is_uefi"), [(b"", True), (GRUB, False)])
def test_unified_kernels_tell_the_architecture(make_image, code, is_uefi):
    files = {"EFI/Linux/debian-6.1.0-13-arm64.efi": disks.pe(disks.ARM64)}
    found = inspect.inspect(make_image(disk(content=disks.fat(files, bits=12), code=code)), Cancel())
    assert (found.architectures, found.boots_uefi) == (("arm64",), is_uefi)


def test_loader_in_an_el_torito_image_is_found(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "efi.img").write_bytes(esp("BOOTX64.EFI"))
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-o", "a.iso", "-eltorito-alt-boot", "-e", "efi.img"]
    subprocess.run([*argv, "-no-emul-boot", "tree"], cwd=tmp_path, check=True, capture_output=True)
    found = inspect.inspect(image_open.describe(tmp_path / "a.iso", "a.iso", Cancel()), Cancel())
    assert (found.partition_table, found.architectures, found.boots_uefi) == (None, ("x86_64",), True)


def test_gpt_of_large_sectors_does_not_boot(make_image):
    table = disks.gpt([(disks.ESP, 256, 800)], sectors=1024, sector_bytes=4096, code=GRUB)
    data = bytearray(4 * MIB)
    data[: len(table)] = table
    content = esp("BOOTAA64.EFI")
    data[MIB : MIB + len(content)] = content
    found = inspect.inspect(make_image(bytes(data)), Cancel())
    assert (found.architectures, found.boots_uefi, found.boots_bios) == (("arm64",), False, False)
    assert any("sectors of 4096 bytes" in warning for warning in found.warnings)


def test_gpt_whose_copy_is_cut_off_is_a_warning(make_image):
    for pack, warnings in ((bytes, (MISSING_COPY,)), (pack_xz, (MISSING_COPY,)), (gzip.compress, ())):
        found = inspect.inspect(make_image(pack(disk(size=END))), Cancel())
        assert found.minimum_bytes == END
        assert found.warnings == warnings  # the size of gzip is not known yet
        assert found.boots_uefi


def test_disk_that_takes_too_much_unpacking_has_no_loader(make_image, monkeypatch):
    monkeypatch.setattr(partial_read, "MAX_BYTES", 2 * MIB)
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
    found = inspect.inspect(make_image(pack_xz(disk(content=disks.fat(files, bits=12, order=order)))), Cancel())
    assert (found.partition_table, found.architectures, found.boots_uefi) == ("gpt", (), None)


def test_damaged_packing_is_an_error(make_image):
    data = bytearray(pack_xz(disk()))
    data[100] ^= 0xFF
    with pytest.raises(ImageError, match=r"a\.img"):
        inspect.inspect(make_image(bytes(data)), Cancel())


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
        assert offset >= 0
        return data[offset : offset + wanted]

    table = partitions.read(read_at, size)
    found = boot.find_programs(read_at, table)
    assert found.loaders <= set(boot.LOADERS.values())
    assert boot.boots_bios(read_at, table) in (True, False, None)


@hypothesis.given(st.sampled_from(["xz", "gz", "bz2"]), st.data())
@hypothesis.settings(max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_damage_of_the_packing_is_an_error_or_survived(make_image, name, data):
    packed = bytearray(PACKED[name])
    packed[data.draw(st.integers(6, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ImageError):
        assert inspect.inspect(make_image(bytes(packed)), Cancel()).partition_table in ("gpt", "mbr", None)


def test_dmg_is_told_by_its_trailer(make_image):
    """A read-only one begins as the disk does."""
    found = inspect.inspect(make_image(disk() + b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0"), "a.raw"), Cancel())
    assert (found.no_disk.is_known, found.no_disk.reason) == (True, "it is no raw disk, but a dmg of macOS")


def test_map_with_checksums_vouches_for_what_shows_no_disk(make_image):
    """bmaptool made it of a disk, and the reader of the image compares."""
    data = bytes(8192)
    image = make_image(data, "a.raw")
    assert not inspect.inspect(image, Cancel()).no_disk.is_known
    path = image.path.with_name("a.raw.bmap")
    for attribute, is_disk in (("", False), (f' chksum="{hashlib.sha256(data).hexdigest()}"', True)):
        path.write_text(
            '<bmap version="2.0"><ImageSize>8192</ImageSize><BlockSize>4096</BlockSize>'
            f"<BlockMap><Range{attribute}>0-1</Range></BlockMap></bmap>"
        )
        assert (inspect.inspect(image, Cancel()).no_disk is None) is is_disk
    html = make_image(b"<!DOCTYPE html><html></html>".ljust(8192), "a.raw")
    assert inspect.inspect(html, Cancel()).no_disk.is_known


PACKED = {name: PACK[name](disk()) for name in PACK}
