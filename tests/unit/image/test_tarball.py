import gzip
import subprocess
import tarfile

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import COMPRESS, blocks_of, drained, header, noise, open_blocks, tarball

from clouduploader.errors import ImageError
from clouduploader.image import magic
from clouduploader.image import open as image_open
from clouduploader.image import tarball as tarballs
from clouduploader.image.tarball import MAX_EXTENSION_BYTES
from clouduploader.model.disk import Compression, Image
from clouduploader.util.cancel import Cancel

RAW = noise(3000) + bytes(5000)


def measure(image, *, on_bytes=lambda _done: None, cancel=None, is_by_name=True):
    return image_open.measure(image, on_bytes=on_bytes, cancel=cancel or Cancel(), is_by_name=is_by_name)


@pytest.mark.parametrize("kind", COMPRESS)
def test_tarball_has_the_size_of_its_raw_file(make_image, kind):
    members = {"LICENSE": b"text", "dir/a.raw": RAW, "a.raw.sha256": b"0" * 64}
    assert measure(make_image(COMPRESS[kind](tarball(members)))) == len(RAW)


def test_garbage_behind_a_tarball_is_told_with_its_place(make_image):
    data = tarball({"a.raw": RAW})
    assert measure(make_image(gzip.compress(data + bytes(20_000)))) == len(RAW)  # tar -b 40
    with pytest.raises(ImageError, match=rf"else behind the end of its tarball, at byte {len(data) + 5000} "):
        measure(make_image(gzip.compress(data + bytes(5000) + b"garbage")))


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
    ("members", "words"),
    [
        ({}, r"of 2048 bytes in which nothing is called \.raw$"),
        ({"a.txt": b"x"}, r"of 3072 bytes in which nothing is called \.raw$"),
        ({"a.RAW": b"x"}, "of 3072 bytes in which nothing is"),
        ({"a.raw": b"x", "b.raw": b"y"}, r"with two images in it, a\.raw and, at byte 2560 of that, b\.raw$"),
    ],
)
def test_tarball_without_exactly_one_raw_file_is_refused(make_image, members, words):
    image = make_image(gzip.compress(tarball({"LICENSE": b"text"} | members)))
    with pytest.raises(ImageError, match=f"tarball {words}"):
        measure(image)


DISK = RAW[:510] + b"\x55\xaa" + RAW
LINUX = DISK[:512] + b"\0\0HdrS" + RAW
BESIDE = {"README": b"text", "a.img.sha256": b"0" * 64, "a.bmap": b"<?xml", "vmlinuz": LINUX, "sector": DISK[:400]}


@pytest.mark.parametrize("name", ["disk.img", "x.vhdfixed", "disk", "disk.raw"])
@pytest.mark.parametrize("kind", COMPRESS)
def test_disk_in_a_tarball_is_told_by_how_it_begins(make_image, kind, name):
    members = list(BESIDE.items())
    image = make_image(COMPRESS[kind](tarball(dict([*members[:3], (name, DISK), *members[3:]]))))
    assert read(image) == blocks_of(DISK)
    assert measure(image, is_by_name=False) == len(DISK)
    if name != "disk.raw":
        with pytest.raises(ImageError, match=r"nothing is called \.raw$"):
            measure(image)


def test_file_named_raw_is_the_image_whatever_comes_behind_it(make_image):
    assert read(make_image(tarball({"a.raw": RAW, "efi.img": DISK}))) == blocks_of(RAW)
    words = r"two images in it, (efi|a)\.img and, at byte 9728 of that, (a\.raw|b\.img)"
    for members in ({"efi.img": DISK, "a.raw": RAW}, {"a.img": DISK, "b.img": DISK}):
        with pytest.raises(ImageError, match=words):
            read(make_image(tarball(members)))


def test_what_macos_knows_of_a_file_is_not_taken_for_it(make_image):
    beside = b"\0\x05\x16\x07\0\2\0\0Mac OS X        " + bytes(139)
    image = make_image(tarball({"._disk.raw": beside, "disk.raw": DISK}))
    assert read(image) == blocks_of(DISK)
    with pytest.raises(
        ImageError, match="two images in it"
    ):  # so ec2uploadimg, which goes by the names, may take either
        measure(image)


def test_tarball_with_no_disk_in_it_is_refused(make_image):
    with pytest.raises(ImageError, match=r"in which nothing is called \.raw or begins as a disk does$"):
        read(make_image(tarball(BESIDE)))


def test_virtual_disk_in_a_tarball_is_told_to_be_one(make_image):
    with pytest.raises(ImageError, match="holds a vmdk in its tar packing"):
        read(make_image(tarball({"a.ovf": b"<Envelope>", "a.vmdk": b"KDMV".ljust(1024, b"\0")})))


def test_directories_and_links_are_no_raw_files(make_image):
    data = header(name="d.raw", type=tarfile.DIRTYPE) + header(name="l.raw", type=tarfile.SYMTYPE, linkname="a.raw")
    assert measure(make_image(data + tarball({"a.raw": RAW}))) == len(RAW)


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("size", [513, 1000, 512 + len(RAW) - 1, 8704 + 100])
def test_tarball_that_ends_within_a_member_is_refused(make_image, kind, size):
    with pytest.raises(ImageError, match="damaged tarball: unexpected end of data"):
        measure(make_image(COMPRESS[kind](tarball({"a.raw": RAW, "b": b"text"})[:size])))


@pytest.mark.parametrize("members", [{"a.raw": RAW}, {"a.raw": RAW, "b": b"text"}])
def test_tarball_that_ends_between_two_members_is_refused(make_image, members):
    data = tarball(members, end=0)
    with pytest.raises(ImageError, match=f"a tarball without an end mark, .* at byte {len(data)} ") as caught:
        measure(make_image(data))
    assert "Unpack it first" in caught.value.hint
    assert measure(make_image(data + bytes(512))) == len(RAW)


def test_header_that_is_damaged_is_no_end_mark(make_image):
    data = bytearray(tarball({"a.raw": RAW, "b": b"text"}))
    data[512 + len(RAW) + -len(RAW) % 512] ^= 1
    with pytest.raises(ImageError, match=r"damaged tarball: .*checksum"):
        measure(make_image(bytes(data)))


def test_damage_of_the_packing_behind_the_end_of_a_tarball_is_noticed(make_image):
    data = gzip.compress(tarball({"a.raw": RAW}, end=1 << 20))
    with pytest.raises(ImageError, match=r"damaged: bad gz data .*([Ii]ncorrect (data check|checksum))"):
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
        pytest.param(pax("size", str(1 << 63)) + header(), id="size that no program can have"),
        pytest.param(negative(), id="size below zero"),
        pytest.param(pax("GNU.sparse.map", "x,y,z,a") + header(), id="sparse map of letters"),
        pytest.param(pax("GNU.sparse.map", "0,1,2") + header(), id="sparse map without its end"),
        pytest.param(pax("GNU.sparse.map", str(1 << 64) + ",1") + header(), id="sparse map beyond all bounds"),
    ],
)
def test_absurd_tarball_is_refused_at_once(make_image, data):
    image = make_image(data + bytes(1024))
    assert image.is_tarball
    with pytest.raises(ImageError, match="damaged tarball"):
        measure(image)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(header(type=tarfile.XHDTYPE, size=1 << 33), "extended headers of more than", id="pax"),
        pytest.param(header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 33), "extended headers of more than", id="name"),
        pytest.param(header(type=b"L", size=500) + bytes(512), "extended headers of more than", id="names of names"),
        pytest.param(header(name="empty"), "of more than 1000 members", id="members"),
        pytest.param(header(type=b"M"), "in several volumes", id="volumes"),
        pytest.param(pax("GNU.sparse.major", "2") + header(), r"of the unknown version 2\.0", id="version"),
    ],
)
def test_tarball_that_may_be_sound_is_not_called_damaged(make_image, data, words, monkeypatch):
    monkeypatch.setattr(tarballs, "MAX_MEMBERS", 1000)
    monkeypatch.setattr(tarballs, "MAX_EXTENSION_BYTES", 100_000)
    with pytest.raises(ImageError, match=f"is a tarball .*{words}") as caught:
        measure(make_image(data * 1001))
    assert caught.value.hint == "Unpack it first."


def test_tarball_of_many_members_is_measured(make_image):
    members = {f"directory/{number}.txt": b"text" for number in range(3000)}
    assert measure(make_image(gzip.compress(tarball(members | {"a.raw": RAW}), 1))) == len(RAW)


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
        size_bytes = measure(Image(path, "a", Compression.TAR, len(data), is_tarball=True))
    except ImageError:
        return
    assert size_bytes >= 0


def sparse_header(entries, *, real_size, is_extended=False):
    """A header of GNU's old sparse format: up to four (offset, size)."""
    block = bytearray(header(type=tarfile.GNUTYPE_SPARSE, size=sum(size for _, size in entries)))
    for place, (offset, size) in enumerate(entries):
        block[386 + 24 * place : 410 + 24 * place] = b"%011o\0%011o\0" % (offset, size)
    block[482] = is_extended
    block[483:495] = b"%011o\0" % real_size
    return with_sum(block)


def with_sum(block):
    """The same header with the right sum."""
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" "))
    return bytes(block)


def read(image, **options):
    with open_blocks(image, **options) as source:
        return drained(source)


def test_sparse_tarball_gives_the_whole_file(make_image, tmp_path):
    with (tmp_path / "disk.raw").open("wb") as file:
        for place in range(30):
            file.seek(place << 18)
            file.write(noise(5000, place))
        file.truncate(8 << 20)
    expected = blocks_of((tmp_path / "disk.raw").read_bytes())
    for form in ("gnu", "posix"):
        subprocess.run(
            ["tar", "-C", tmp_path, f"--format={form}", "-cSf", tmp_path / "sparse.tar", "disk.raw"], check=True
        )
        data = (tmp_path / "sparse.tar").read_bytes()
        assert len(data) < 1 << 20
        assert read(make_image(gzip.compress(data))) == expected


def test_map_of_holes_that_makes_sense_is_followed(make_image):
    data = sparse_header([(512, 512), (2048, 512)], real_size=4096) + b"a" * 512 + b"b" * 512 + bytes(1024)
    assert read(make_image(data)) == blocks_of(bytes(512) + b"a" * 512 + bytes(1024) + b"b" * 512 + bytes(1536))


@pytest.mark.parametrize(
    "entries",
    [[(2048, 512), (512, 512)], [(512, 512), (512, 512)], [(512, 1024), (1024, 512)], [(8192, 512)], [(4000, 512)]],
)
def test_map_of_holes_that_makes_no_sense_is_refused(make_image, entries):
    image = make_image(sparse_header(entries, real_size=4096) + b"a" * 2048 + bytes(1024))
    with pytest.raises(ImageError, match="a map of holes that makes no sense"):
        read(image)


def test_map_of_holes_without_an_end_is_refused(make_image, monkeypatch):
    monkeypatch.setattr(tarballs, "MAX_EXTENTS", 1000)
    more = bytes(b"%011o\0%011o\0" % (1, 1) * 21 + b"\1").ljust(512, b"\0")
    image = make_image(gzip.compress(sparse_header([(0, 1)], real_size=1, is_extended=True) + more * 60))
    with pytest.raises(ImageError, match="is a tarball with a sparse file of more than 1000 parts"):
        measure(image)


def test_headers_of_all_members_together_have_one_bound(make_image):
    record = b"1000000 a=" + b"x" * 999_989 + b"\n"
    extension = header(type=tarfile.XGLTYPE, size=len(record), name="pax") + record + bytes(-len(record) % 512)
    image = make_image(gzip.compress((extension + tarball({"a.txt": bytes(3 << 20)}, end=0)) * 17))
    with pytest.raises(ImageError, match=f"extended headers of more than {MAX_EXTENSION_BYTES} bytes"):
        measure(image)


def test_large_members_beside_the_image_do_not_count_as_headers(make_image):
    members = {f"{number}.txt": bytes(3 << 20) for number in range(5)} | {"a.raw": RAW, "z.txt": bytes(3 << 20)}
    assert measure(make_image(gzip.compress(tarball(members), 1))) == len(RAW)


def test_second_image_is_noticed_behind_the_first(make_image):
    with pytest.raises(ImageError, match=r"tarball with two images in it, a\.raw and, at byte 9216 of that, b\.raw$"):
        read(make_image(gzip.compress(tarball({"a.raw": RAW, "b.raw": b"x"}))))


@pytest.mark.parametrize("kind", COMPRESS)
def test_sparse_bomb_ends_where_it_is_too_large(make_image, kind):
    data = sparse_header([(0, 512)], real_size=(1 << 33) - 1) + b"a" * 512 + bytes(1024)
    with pytest.raises(ImageError, match="larger than 1048576 bytes"):
        read(make_image(COMPRESS[kind](data)), max_size_bytes=1 << 20)


def unpacked_by_tar(path, tmp_path, *options):
    """What GNU tar makes of the image in it."""
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", *options, "-xf", path], check=True)
    (file,) = (file for file in (tmp_path / "out").rglob("*.raw") if file.is_file())
    return blocks_of(file.read_bytes())


def packed_by_tar(tmp_path, *options, names=("disk.raw",)):
    """The bytes of what GNU tar packs."""
    subprocess.run(["tar", "-C", tmp_path, *options, "-cf", tmp_path / "a.tar", *names], check=True)
    return (tmp_path / "a.tar").read_bytes()


def scattered(path, *, count, end=4 << 20):
    """A file with so many holes between its data, and one at its end."""
    with path.open("wb") as file:
        for place in range(count):
            file.seek(place * 16384)
            file.write(noise(100 + place % 5000, place))
        file.truncate(max(end, file.tell()))
    return blocks_of(path.read_bytes())


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_of_gnu_tar_is_known(make_image, tmp_path, form):
    (tmp_path / "disk.raw").write_bytes(RAW)
    image = make_image(packed_by_tar(tmp_path, f"--format={form}"))
    assert image.is_tarball
    assert read(image) == blocks_of(RAW)


@pytest.mark.parametrize(
    "options",
    [
        ["-V", "label"],
        ["--format=posix", "-V", "label"],
        ["--format=posix", "--pax-option=globexthdr.name=g,comment=a"],
        ["-b", "1"],
        ["-b", "100"],
        ["--transform=s,^,long/%s/," % ("d" * 200)],
        ["--format=posix", "--transform=s,^,long/%s/," % ("d" * 200)],
        ["-g", "snapshot"],
        ["--xattrs", "--format=posix"],
        ["--owner=somebody", "--mtime=@17179869184.5", "--format=posix"],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["disk.raw", "dir"])
def test_tarballs_of_gnu_tar_are_read_as_it_reads_them(make_image, tmp_path, options, name):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "disk.raw").write_bytes(DISK)
    (tmp_path / "dir" / "again").hardlink_to(tmp_path / "dir" / "disk.raw")  # either may come first
    (tmp_path / "disk.raw").write_bytes(DISK)
    options = [str(tmp_path / option) if option == "snapshot" else option for option in options]
    image = make_image(packed_by_tar(tmp_path, *options, names=[name]))
    assert image.is_tarball
    assert read(image) == blocks_of(DISK)


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 25, 26, 200])
def test_sparse_files_of_gnu_tar_are_whole(make_image, tmp_path, version, count):
    expected = scattered(tmp_path / "disk.raw", count=count)
    options = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    data = packed_by_tar(tmp_path, "-S", *options)
    assert read(make_image(data)) == unpacked_by_tar(tmp_path / "a.tar", tmp_path) == expected


def pax_records(pairs):
    """A pax header with these records, in their order."""
    body = b""
    for name, value in pairs:
        record = f" {name}={value}\n".encode()
        size = len(record) + 1
        while size != len(f"{size}") + len(record):
            size += 1
        body += f"{size}".encode() + record
    return posix(name="pax", type=tarfile.XHDTYPE, size=len(body)) + body + bytes(-len(body) % 512)


def posix(**fields):
    """A header as POSIX has it: by its magic GNU tar knows which of its sparse formats it is."""
    block = bytearray(header(**fields))
    block[257:265] = b"ustar\x0000"
    return with_sum(block)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize(
    "extents",
    [
        [(0, 1024), (1 << 20, 1024), (2 << 20, 0)],
        [(0, 1024), (2 << 20, 0)],
        [(0, 1024), ((2 << 20) - 512, 512)],
        [(4096, 700), (2 << 20, 0)],
        [(2 << 20, 0)],
    ],
    ids=str,
)
def test_sparse_file_with_a_size_of_its_own_in_pax_is_whole(make_image, tmp_path, version, extents, place):
    """As GNU tar writes where more than 8 GiB are stored: the size in the header does not count then."""
    content = noise(sum(size for _, size in extents))
    pairs = [("GNU.sparse.name", "disk.raw")]
    if version == "1.0":
        lines = f"{len(extents)}\n" + "".join(f"{offset}\n{size}\n" for offset, size in extents)
        content = lines.encode() + bytes(-len(lines) % 512) + content
        pairs += [("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.realsize", 2 << 20)]
    elif version == "0.1":
        numbers = ",".join(f"{offset},{size}" for offset, size in extents)
        pairs += [("GNU.sparse.size", 2 << 20), ("GNU.sparse.numblocks", len(extents)), ("GNU.sparse.map", numbers)]
    else:
        pairs += [("GNU.sparse.size", 2 << 20), ("GNU.sparse.numblocks", len(extents))]
        pairs += [
            pair for offset, size in extents for pair in (("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", size))
        ]
    if place <= 4:
        pairs.insert(place, ("size", len(content)))
    block = posix(name="GNUSparseFile.0/disk.raw", size=0 if place <= 4 else len(content))
    data = pax_records(pairs) + block + content + bytes(-len(content) % 512)
    (tmp_path / "a.tar").write_bytes(data + tarball({"z": b"behind it"}, end=10240))
    assert read(make_image((tmp_path / "a.tar").read_bytes())) == unpacked_by_tar(tmp_path / "a.tar", tmp_path)


def test_pax_size_counts_before_that_of_the_header(make_image):
    data = pax_records([("size", len(RAW)), ("path", "b.raw")]) + header(size=0) + RAW + bytes(-len(RAW) % 512)
    assert read(make_image(data + tarball({"z": b"behind it"}))) == blocks_of(RAW)


@pytest.mark.parametrize("zeros", [512, 1024, 10240, 512 * 7])
def test_tarballs_one_behind_the_other_are_one(make_image, zeros):
    """Whatever the end mark of the first is: GNU tar stops there, or goes on with --ignore-zeros."""
    one, other = tarball({"README": b"text"}, end=zeros), tarball({"a.raw": RAW})
    for data in (one + other, tarball({"a.raw": RAW}, end=zeros) + one):
        assert read(make_image(data)) == blocks_of(RAW)
    with pytest.raises(ImageError, match="two images in it"):
        read(make_image(other + other))


def test_what_gnu_tar_passes_at_the_end_is_passed_if_forced():
    """A lack of an end mark, and other things behind that."""
    for data in (tarball({"a.raw": RAW}, end=0), tarball({"a.raw": RAW}) + b"signature" + bytes(300_000)):
        told = []
        chunks = iter([data])
        pieces = tarballs.read_image(chunks, "a.tar", is_by_name=True, object_to=lambda *words: told.append(words))  # noqa: B023
        assert b"".join(pieces) == RAW
        assert len(told) == 1
        assert not list(chunks)


@pytest.mark.parametrize("signed", [False, True])
def test_checksum_of_a_header_may_be_one_of_signed_bytes(make_image, signed):
    block = bytearray(header(name="disk.raw", size=len(RAW)))
    block[0:4] = "öö".encode()
    block[257:265] = bytes(8)  # of old there was nothing else to know it by
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ") - signed * 256 * 4
    block[148:156] = b"%06o\0 " % total
    assert magic.is_tar_header(bytes(block))
    assert read(make_image(bytes(block) + RAW + bytes(-len(RAW) % 512 + 1024))) == blocks_of(RAW)
    block[0] ^= 1
    assert not magic.is_tar_header(bytes(block))


@hypothesis.example(position=579, patch=b"\x80")  # in the size of a record, which is no text then
@hypothesis.given(position=st.integers(0, 2047), patch=st.binary(min_size=1, max_size=30))
def test_any_sparse_tarball_is_read_or_refused(tmp_path_factory, position, patch):
    pairs = [("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.realsize", 8192), ("size", 1024)]
    data = bytearray(pax_records(pairs) + header() + b"2\n0\n100\n8000\n100\n".ljust(512, b"\0") + noise(512))
    data[position : position + len(patch)] = patch
    for at in (0, 1024):
        if len(data) > at + 512:
            block = data[at : at + 512]
            data[at + 148 : at + 156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" "))
    path = tmp_path_factory.mktemp("image") / "a"
    path.write_bytes(bytes(data) + bytes(1024))
    try:
        read(Image(path, "a", Compression.TAR, path.stat().st_size, is_tarball=True), max_size_bytes=1 << 20)
    except ImageError as exc:
        assert "a " in exc.message  # noqa: PT017 it need not be raised
