import contextlib
import functools
import gzip
import hashlib
import io
import lzma
import os
import re
import signal
import subprocess
import sys
import uuid
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import blocks_of, noise, open_blocks, pack_xz, tarball, vhd_footer, zstd

from clouduploader.errors import ImageError, StoppedError
from clouduploader.image import encode
from clouduploader.image import open as image_open
from clouduploader.model import vhd
from clouduploader.model.disk import Block, Image, ReadStats
from clouduploader.util.cancel import Cancel

MIB = 1 << 20
GIB = 1 << 30
GOOGLE_ALIGNMENT_BYTES = encode.GOOGLE_ALIGNMENT_BYTES
SMALL_ALIGNMENT_BYTES = 8 * MIB  # to pad to a GiB, and to read that, takes seconds
RAW = noise(MIB + 512) + bytes(2 * MIB) + noise(512, 2)
PACKERS = {
    "raw": bytes,
    "raw.xz": lambda raw: lzma.compress(raw, preset=0),
    "raw.gz": lambda raw: gzip.compress(raw, 1),
    "raw.zst": zstd.compress,
    "vhd": lambda raw: raw + vhd_footer(len(raw)),
    "vhd.xz": lambda raw: lzma.compress(raw + vhd_footer(len(raw)), preset=0),
    "tar.gz": lambda raw: gzip.compress(tarball({"b.txt": b"x" * 9000, "a.raw": raw}), 1),
}
WAYS = {way: functools.cache(pack) for way, pack in PACKERS.items()}


@pytest.fixture(autouse=True)
def small_archives(monkeypatch):
    """Pads what is in an archive to less than Google wants."""
    monkeypatch.setattr(encode, "GOOGLE_ALIGNMENT_BYTES", SMALL_ALIGNMENT_BYTES)


def opened(image, *, encoding="raw", digest="sha256", size_bytes=None, cancel=None, **options):
    """The stream of an image file; every look at the image takes the cancel."""
    cancel = cancel or Cancel()
    return encode.open_stream(
        lambda block_bytes, zero_blocks: open_blocks(
            image, block_bytes=block_bytes, zero_blocks=zero_blocks, cancel=cancel, **options
        ),
        image=image,
        check_unchanged=lambda sha256=None: image_open.check_unchanged(image, sha256, options.get("expected_sha256")),
        cancel=cancel,
        encoding=encoding,
        digest=digest,
        size_bytes=size_bytes,
    )


def stored(file, image, **options):
    """Write the stream of an image file into a file."""
    with opened(image, **options) as stream, file.open("wb") as out:
        out.writelines(stream)
    return file


def read_up_to(stream, size):
    """How many bytes come before the error, which is the error."""
    got = 0
    try:
        while piece := stream.read(size):
            got += len(piece)
    except ImageError as exc:
        return got, exc
    raise AssertionError(f"it ends after {got} bytes")


class Disk:
    """A source of blocks in which most are zeros, so that a disk of any size costs nothing."""

    can_reread = False

    def __init__(self, size_bytes, contents):
        self._size_bytes = size_bytes
        self._contents = contents
        self._indices = iter(range(-(-size_bytes // encode.PIECE_BYTES)))

    def next_into(self, buffer):
        index = next(self._indices, None)
        if index is None:
            return None
        if index in self._contents:
            buffer[:] = self._contents[index]
        else:
            buffer[:] = b"\xee" * len(buffer)  # a zero block's buffer may hold anything
        return Block(index, index not in self._contents)

    def stats(self):
        return ReadStats(
            size_bytes=self._size_bytes,
            data_blocks=0,
            zero_blocks=0,
            hole_blocks=0,
            skipped_blocks=0,
            file_sha256=None,
            raw_sha256=None,
        )


def of_disk(disk_bytes, contents, **options):
    """The stream of such a disk."""
    return encode.open_stream(
        lambda _block_bytes, _zero_blocks: contextlib.nullcontext(Disk(disk_bytes, contents)),
        image=Image("/nowhere", "a.raw", "raw", disk_bytes),
        check_unchanged=None,
        cancel=Cancel(),
        **options,
    )


def padded(raw, alignment):
    return raw + bytes(-len(raw) % alignment)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [-1, 1, 512, 4095, MIB, 3 * MIB + 1, 1 << 40])
def test_raw_stream_is_the_disk(make_image, way, size):
    raw = RAW if size != 1 else RAW[:1536]
    with opened(make_image(WAYS[way](raw))) as stream:
        pieces = list(iter(lambda: stream.read(size), b""))
        assert b"".join(pieces) == raw
        assert {len(piece) for piece in pieces[:-1]} <= {size}
        assert stream.read() == b""


@pytest.mark.parametrize(
    ("encoding", "digest"), [("raw", "sha512"), ("vhd", "md5"), ("vhd", "sha256"), ("tar.gz", "sha1")]
)
def test_digest_is_of_what_was_read(make_image, digest, encoding):
    with opened(make_image(RAW), encoding=encoding, digest=digest) as stream:
        assert stream.hexdigest() == hashlib.new(digest).hexdigest()
        beginning = stream.read(777)
        assert stream.hexdigest() == hashlib.new(digest, beginning).hexdigest()
        rest = b"".join(stream)
        assert stream.hexdigest() == hashlib.new(digest, beginning + rest).hexdigest()


@pytest.mark.parametrize("encoding", ["raw", "vhd", "tar.gz"])
@pytest.mark.parametrize("way", ["raw", "raw.xz"])
def test_each_call_gives_the_same_again(make_image, encoding, way):
    image = make_image(WAYS[way](RAW))
    with opened(image, encoding=encoding) as stream:
        stream.read(5000)
    digests = []
    for _ in range(2):
        with opened(image, encoding=encoding) as stream:
            for _piece in stream:
                pass
            digests.append(stream.hexdigest())
    assert len(set(digests)) == 1


def test_iteration_gives_pieces_of_one_size(make_image):
    with opened(make_image(RAW), encoding="vhd") as stream:
        assert [len(piece) for piece in stream] == [MIB, MIB, MIB, MIB, 512]


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("encoding", "expected"), [("raw", len(RAW)), ("vhd", 4 * MIB + 512), ("tar.gz", None)])
def test_size_is_that_of_the_stream_where_it_is_known(make_image, given, encoding, expected):
    with opened(make_image(RAW), encoding=encoding, size_bytes=len(RAW) if given else None) as stream:
        assert stream.size_bytes == (expected if given else None)
        if expected is not None:
            assert len(stream.read()) == expected


@pytest.mark.parametrize("encoding", ["raw", "vhd"])
@pytest.mark.parametrize("size_bytes", [len(RAW) - 1, len(RAW) + 1, MIB, 2 * MIB, 3 * MIB, 9 * MIB, 0])
def test_other_size_than_was_said_gives_no_stream_of_that_size(make_image, encoding, size_bytes):
    with opened(make_image(RAW), encoding=encoding, size_bytes=size_bytes) as stream:
        got, error = read_up_to(stream, 512)
        assert got < max(stream.size_bytes, 1)
        assert re.fullmatch(r"a\.raw\.xz holds a disk of .*, not of \d+ as it seemed", str(error))


def test_unknown_digest_is_refused(make_image):
    with pytest.raises(ValueError, match="unsupported hash"), opened(make_image(RAW), encoding="raw", digest="crc"):
        pass


def test_unknown_encoding_is_refused(make_image):
    with pytest.raises(ValueError, match="vhdx"), opened(make_image(RAW), encoding="vhdx"):
        pass


# Damage


@pytest.mark.parametrize("encoding", ["raw", "vhd"])
@pytest.mark.parametrize("size", [512, MIB, -1])
def test_last_bytes_of_a_damaged_image_never_come(make_image, encoding, size):
    data = bytearray(gzip.compress(RAW, 1))
    data[-6] ^= 1  # of the checksum, behind all data
    with opened(make_image(bytes(data)), encoding=encoding, size_bytes=len(RAW)) as stream:
        got, error = read_up_to(stream, size)
        assert got < len(RAW)
        assert "is damaged" in str(error)
        for _ in range(2):
            with pytest.raises(ImageError, match="is damaged"):
                stream.read()
        with pytest.raises(ImageError, match="is damaged"):
            list(stream)


def test_archive_of_a_damaged_image_has_no_end(make_image):
    data = bytearray(gzip.compress(RAW, 1))
    data[-6] ^= 1
    image = make_image(bytes(data))
    with opened(image, encoding="tar.gz", size_bytes=len(RAW)) as stream:
        packed = io.BytesIO()
        with pytest.raises(ImageError, match="is damaged"):
            packed.writelines(stream)
    decoder = zlib.decompressobj(31)
    decoder.decompress(packed.getvalue())
    assert not decoder.eof
    with pytest.raises(ImageError, match="is damaged"), opened(image, encoding="tar.gz"):
        pass


@pytest.mark.parametrize("encoding", ["raw", "vhd", "tar.gz"])
def test_image_that_changes_meanwhile_gives_no_end(make_image, encoding):
    image = make_image(RAW)
    with opened(image, encoding=encoding, size_bytes=len(RAW)) as stream:
        os.utime(image.path, ns=(1, 1))
        _, error = read_up_to(stream, -1)
        assert "changed while it was read" in str(error)


@pytest.mark.parametrize("encoding", ["raw", "vhd", "tar.gz"])
@pytest.mark.parametrize("way", ["raw", "raw.gz"])
def test_image_of_another_digest_gives_no_end(make_image, encoding, way):
    image = make_image(WAYS[way](RAW))
    with opened(image, encoding=encoding, size_bytes=len(RAW), expected_sha256="0" * 64) as stream:
        _, error = read_up_to(stream, -1)
        assert "is not the file that was promised" in str(error)


@pytest.mark.parametrize("encoding", ["raw", "vhd", "tar.gz"])
def test_stop_ends_a_stream(make_image, encoding):
    cancel = Cancel()
    with opened(make_image(RAW), encoding=encoding, cancel=cancel, size_bytes=len(RAW)) as stream:
        stream.read(5)
        cancel.request(signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(StoppedError):
                stream.read()


def test_closed_stream_does_not_look_like_its_end(make_image):
    with opened(make_image(RAW)) as stream:
        stream.read(5)
    with pytest.raises(ValueError, match="closed"):
        stream.read(5)


@hypothesis.given(
    size_bytes=st.integers(1, 5 * MIB),
    data=st.sets(st.integers(0, 4)),
    reads=st.lists(st.integers(1, 3 * MIB), max_size=8),
    encoding=st.sampled_from(["raw", "vhd"]),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_stream_of_any_disk_read_in_any_way(size_bytes, data, reads, encoding):
    contents = {index: noise(MIB, index) for index in data}
    raw = b"".join(contents.get(index, bytes(MIB)) for index in range(5))[:size_bytes]
    contents = {index: block for index, block in blocks_of(raw, block_bytes=MIB).items() if block}
    with of_disk(size_bytes, contents, encoding=encoding, size_bytes=size_bytes) as stream:
        found = [stream.read(size) for size in reads]
        for size, piece in zip(reads, found, strict=True):
            assert len(piece) == size or stream.read(1) == b""
        whole = b"".join((*found, stream.read()))
        assert len(whole) == stream.size_bytes
        assert stream.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert whole[:size_bytes] == raw
    if encoding == "vhd":
        assert not whole[size_bytes:-512].strip(b"\0")
        assert vhd.parse_footer(whole[-512:]) == vhd.VhdFooter(vhd.VhdKind.FIXED, len(padded(raw, MIB)))
        assert len(whole) == len(padded(raw, MIB)) + 512


# VHD


@pytest.mark.parametrize("size_bytes", [512, MIB, 3 * MIB + 512, 40 * MIB])
def test_vhd_is_what_qemu_reads(tmp_path, make_image, size_bytes):
    raw = padded(noise(min(size_bytes, 2 * MIB + 512)), size_bytes)
    image = make_image(raw)
    disk = tmp_path / "disk.vhd"
    stored(disk, image, encoding="vhd")
    info = subprocess.check_output(["qemu-img", "info", "-f", "vpc", "--output=json", disk])
    assert f'"virtual-size": {len(padded(raw, MIB))}'.encode() in info
    expected = tmp_path / "padded.raw"
    expected.write_bytes(padded(raw, MIB))
    subprocess.check_call(["qemu-img", "compare", "-s", "-f", "raw", "-F", "vpc", expected, disk])
    again = tmp_path / "again.raw"
    subprocess.check_call(["qemu-img", "convert", "-f", "vpc", "-O", "raw", disk, again])
    assert again.read_bytes() == padded(raw, MIB)


def test_vhd_is_read_by_us_again(tmp_path, make_image):
    disk = stored(tmp_path / "disk.vhd", make_image(RAW), encoding="vhd")
    again = image_open.describe(disk, "disk.vhd", Cancel())
    with opened(again) as stream:
        assert stream.read() == padded(RAW, MIB)
    with opened(again, encoding="vhd") as stream:
        assert stream.read() == disk.read_bytes()


def test_vhd_has_an_id_by_its_beginning():
    ids = set()
    for contents in ({0: noise(MIB)}, {0: noise(MIB, 2)}, {}):
        with of_disk(MIB, contents, encoding="vhd") as stream:
            ids.add(uuid.UUID(bytes=stream.read()[-512:][68:84]))
    assert len(ids) == 3


# tar.gz


@contextlib.contextmanager
def archive_of_gnu_tar(directory, size_bytes):
    """What GNU tar makes of a file of this size that holds nothing."""
    with (directory / "disk.raw").open("wb") as file:
        file.truncate(size_bytes)
    options = ["--format=oldgnu", "--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "--mode=0644"]
    with subprocess.Popen(["tar", "-c", "-C", directory, *options, "disk.raw"], stdout=subprocess.PIPE) as process:
        yield process.stdout
        process.kill()


def unpacked(stream):
    """What is in a gzip stream, in pieces."""
    decoder = zlib.decompressobj(31)
    for piece in stream:
        yield decoder.decompress(piece)
    yield decoder.flush()
    assert decoder.eof
    assert not decoder.unused_data


def test_archive_is_the_one_of_gnu_tar(tmp_path):
    with (
        of_disk(512, {}, encoding="tar.gz", size_bytes=512) as stream,
        archive_of_gnu_tar(tmp_path, SMALL_ALIGNMENT_BYTES) as archive,
    ):
        for piece in unpacked(stream):
            assert archive.read(len(piece)) == piece
        assert archive.read() == b""


@pytest.mark.parametrize("size_bytes", [512, GIB, GIB + 1, 8 * GIB - MIB, 8 * GIB, 8 * GIB + 512, 1 << 43])
def test_header_of_an_archive_is_the_one_of_gnu_tar(tmp_path, monkeypatch, size_bytes):
    """Its size is one in GiB, and from 8 of them on has no place in octal; GNU tar has it in base 256 then."""
    monkeypatch.setattr(encode, "GOOGLE_ALIGNMENT_BYTES", GOOGLE_ALIGNMENT_BYTES)
    with of_disk(size_bytes, {}, encoding="tar.gz", size_bytes=size_bytes) as stream:
        header = zlib.decompressobj(31).decompress(stream.read(4096), 512)
    with archive_of_gnu_tar(tmp_path, -(-size_bytes // GIB) * GIB) as archive:
        assert header == archive.read(512)


@pytest.mark.parametrize("has_isal", [True, False])
def test_tools_unpack_an_archive(tmp_path, monkeypatch, make_image, has_isal):
    if not has_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    packed = stored(tmp_path / "a.tar.gz", make_image(WAYS["raw.xz"](RAW)), encoding="tar.gz")
    assert packed.read_bytes()[:8] == b"\x1f\x8b\x08" + bytes(5)  # no name, no time
    command = ["tar", "-xvvOzf", packed, "--utc", "--full-time"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(len(RAW)) == RAW
        rest = 0
        while piece := process.stdout.read(MIB):
            assert piece == bytes(len(piece))
            rest += len(piece)
        listing = process.stderr.read().decode().split()
    assert (process.returncode, rest) == (0, SMALL_ALIGNMENT_BYTES - len(RAW))
    assert listing == ["-rw-r--r--", "0/0", str(SMALL_ALIGNMENT_BYTES), "1970-01-01", "00:00:00", "disk.raw"]


def test_archive_is_read_by_us_again(tmp_path, make_image):
    packed = stored(tmp_path / "a.tar.gz", make_image(RAW), encoding="tar.gz")
    again = image_open.describe(packed, "a.tar.gz", Cancel())
    with opened(again) as stream:
        assert stream.read(len(RAW)) == RAW
        assert sum(map(len, stream)) == SMALL_ALIGNMENT_BYTES - len(RAW)


# qcow2


@pytest.fixture
def make_qcow2(tmp_path, make_image):
    """A factory of a described qcow2 in which is a raw disk; `change` gets the bytes of the file before."""

    def make(raw=RAW, change=bytes, options=()):
        source, target = tmp_path / "source.raw", tmp_path / "target.qcow2"
        source.write_bytes(raw)
        subprocess.check_call(["qemu-img", "convert", "-O", "qcow2", *options, source, target])
        return make_image(change(target.read_bytes()), "a.qcow2")

    return make


@pytest.mark.parametrize("options", [(), ("-c",)])
def test_qcow2_is_passed_through(make_qcow2, options):
    image = make_qcow2(options=options)
    data = image.path.read_bytes()
    with opened(image, encoding="qcow2", expected_sha256=hashlib.sha256(data).hexdigest()) as stream:
        assert stream.size_bytes == len(data)
        assert stream.read() == data
        assert stream.hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("encoding", ["raw", "vhd", "tar.gz"])
def test_qcow2_is_converted(make_qcow2, encoding):
    with opened(make_qcow2(), encoding=encoding) as stream:
        if encoding == "tar.gz":
            assert zlib.decompressobj(31).decompress(stream.read(), 512 + len(RAW))[512:] == RAW
        else:
            assert stream.read().startswith(RAW)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_qcow2_is_not_passed_through(make_image, way):
    image = make_image(WAYS[way](RAW))
    with pytest.raises(ImageError, match=r"can't be sent as a qcow2: it is "), opened(image, encoding="qcow2"):
        pass


def test_packed_qcow2_is_not_passed_through(make_qcow2):
    image = make_qcow2(change=pack_xz)
    with pytest.raises(ImageError, match=r"it is packed with xz"), opened(image, encoding="qcow2"):
        pass


def test_cut_off_qcow2_is_not_passed_through(make_qcow2):
    image = make_qcow2(change=lambda data: data[: -MIB - 512])
    with pytest.raises(ImageError), opened(image, encoding="qcow2"):
        pass


def test_qcow2_that_needs_another_file_is_not_passed_through(tmp_path, make_image):
    (tmp_path / "base.raw").write_bytes(RAW)
    path = tmp_path / "top.qcow2"
    subprocess.check_call(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", path])
    image = make_image(path.read_bytes(), "a.qcow2")
    with pytest.raises(ImageError, match="has a backing file"), opened(image, encoding="qcow2"):
        pass


def test_qcow2_of_a_disk_that_is_too_large_is_not_passed_through(make_qcow2):
    image = make_qcow2()
    with pytest.raises(ImageError, match="is larger than"), opened(image, encoding="qcow2", max_size_bytes=MIB):
        pass


def test_qcow2_that_changes_meanwhile_gives_no_end(make_qcow2):
    image = make_qcow2()
    with opened(image, encoding="qcow2") as stream:
        os.utime(image.path, ns=(1, 1))
        got, error = read_up_to(stream, 4096)
        assert got < image.size_bytes
        assert "changed while it was read" in str(error)


def test_qcow2_that_grows_meanwhile_does_not_get_to_its_size(make_qcow2):
    image = make_qcow2()
    with opened(image, encoding="qcow2") as stream:
        with image.path.open("ab") as file:
            file.write(bytes(2 * MIB))
        got, error = read_up_to(stream, 4096)
        assert got < image.size_bytes
        assert "changed while it was read" in str(error)


def test_qcow2_of_another_digest_gives_no_end(make_qcow2):
    image = make_qcow2()
    with opened(image, encoding="qcow2", expected_sha256="0" * 64) as stream:
        got, error = read_up_to(stream, 4096)
        assert got < image.size_bytes
        assert "is not the file that was promised" in str(error)


def test_stop_ends_a_qcow2(make_qcow2):
    cancel = Cancel()
    with opened(make_qcow2(), encoding="qcow2", cancel=cancel) as stream:
        cancel.request(signal.SIGTERM)
        with pytest.raises(StoppedError):
            stream.read()
