import errno
import os

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.packed_images import noise

from clouduploader.errors import ImageError, LocalIOError
from clouduploader.image import raw_disk

RAW = noise(10_000)


@pytest.fixture
def make_store(tmp_path):
    """A factory of a store of these bytes; its files are closed in the end."""
    files, disks = [], []

    def make(data=RAW, *, size_bytes=None, extents=None):
        path = tmp_path / str(len(files))
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        files.append(fd)
        size = len(data) if size_bytes is None else size_bytes
        disks.append(raw_disk.RawFile(fd, size, ((0, size),) if extents is None else extents, "a.raw"))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()
    for fd in files:
        os.close(fd)


def read(disk, offset, size):
    buffer = bytearray(size)
    disk.read_into(offset, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 1), (0, 10_000), (9_999, 1), (4_000, 512), (10_000, 0)])
def test_any_part_can_be_read(make_store, offset, size):
    assert read(make_store(), offset, size) == RAW[offset : offset + size]


def test_file_that_became_shorter_is_an_error_with_the_place(make_store):
    with pytest.raises(ImageError, match=r"a\.raw became shorter while it was read: it ends at byte 10000"):
        read(make_store(size_bytes=20_000), 9_000, 2_000)


def test_file_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(LocalIOError, match=r"a\.raw can't be read at byte 7: Is a directory"):
        read(raw_disk.RawFile(fd, 100, ((0, 100),), "a.raw"), 7, 10)
    os.close(fd)


@hypothesis.given(cuts=st.lists(st.integers(0, 3000), max_size=9, unique=True), piece=st.integers(1, 1000))
def test_pieces_are_the_disk_in_order(cuts, piece):
    class Disk:
        size_bytes = 3000
        is_map_binding = True
        extents = tuple(zip(*[iter(sorted(cuts))] * 2, strict=False))

        def read_into(self, offset, view):
            assert any(start <= offset and offset + len(view) <= end for start, end in self.extents)
            view[:] = RAW[offset : offset + len(view)]

    expected = bytearray(3000)
    for start, end in Disk.extents:
        expected[start:end] = RAW[start:end]
    found = list(raw_disk.read_pieces(Disk(), piece))
    assert b"".join(found) == expected
    assert all(0 < len(part) <= piece for part in found)


@pytest.fixture(params=["directly", "through the page cache"])
def way(request, monkeypatch):
    """How holes are read: there are file systems without O_DIRECT."""
    if request.param != "directly":
        opened = os.open

        def without_direct(path, flags, *rest, **options):
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "no such thing")
            return opened(path, flags, *rest, **options)

        monkeypatch.setattr(os, "open", without_direct)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [512, 4096, 4096 * 3, 5000])
@pytest.mark.parametrize("place", [0, 4095, 4096, 20_000, 4096 * 8 - 1, 4096 * 8])
def test_hole_is_one_if_it_reads_as_zeros(make_store, size, place):
    data = bytearray(4096 * 8 + 1)
    data[place] = 1
    disk = make_store(bytes(data), extents=())
    for offset in [*range(0, len(data), size), 7, len(data) - 1]:
        end = min(offset + size, len(data))
        assert disk.is_hole(offset, end - offset) is not (offset <= place < end)


@pytest.mark.usefixtures("way")
def test_file_that_became_shorter_has_no_holes_behind_its_end(make_store):
    with pytest.raises(ImageError, match="became shorter while it was read"):
        make_store(bytes(4096), size_bytes=8192, extents=()).is_hole(4096, 4096)


@pytest.mark.usefixtures("way")
def test_pieces_have_what_the_books_of_the_file_system_lack(make_store):
    data = bytes(5000) + noise(5000) + bytes(9000) + b"x"
    assert b"".join(raw_disk.read_pieces(make_store(data, extents=((8192, 9000),)), 4096)) == data


def test_empty_disk_has_no_pieces(make_store):
    assert list(raw_disk.read_pieces(make_store(b"", extents=()), 100)) == []


BLOCK = 1 << 16  # file systems keep holes in blocks of up to this size


@pytest.fixture
def make_file(tmp_path):
    """A factory of a file of this size with data in these blocks; returns an open descriptor."""
    opened = []

    def make(size_bytes, *blocks):
        fd = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
        opened.append(fd)
        os.truncate(fd, size_bytes)
        for block in blocks:
            os.pwrite(fd, b"x" * BLOCK, block * BLOCK)
        return fd

    yield make
    for fd in opened:
        os.close(fd)


def keeps_holes(fd):
    return os.lseek(fd, 0, os.SEEK_DATA) > 0


def test_holes_at_both_ends_and_between_are_found(make_file):
    fd = make_file(10 * BLOCK, 2, 3, 7)
    assert keeps_holes(fd), "the tests' directory is on a file system without holes"
    assert raw_disk.file_extents(fd, 10 * BLOCK) == ((2 * BLOCK, 4 * BLOCK), (7 * BLOCK, 8 * BLOCK))


def test_file_without_holes_is_one_extent(make_file):
    assert raw_disk.file_extents(make_file(2 * BLOCK, 0, 1), 2 * BLOCK) == ((0, 2 * BLOCK),)


def test_file_of_one_hole_has_no_extents(make_file):
    assert raw_disk.file_extents(make_file(3 * BLOCK), 3 * BLOCK) == ()


def test_what_lies_behind_the_size_is_left_out(make_file):
    fd = make_file(10 * BLOCK, 1, 2, 7)
    assert raw_disk.file_extents(fd, 2 * BLOCK) == ((BLOCK, 2 * BLOCK),)
    assert raw_disk.file_extents(fd, 5 * BLOCK) == ((BLOCK, 3 * BLOCK),)


def test_empty_file_has_no_extents(make_file):
    assert raw_disk.file_extents(make_file(0), 0) == raw_disk.without_holes(0) == ()


def test_more_extents_than_are_kept_end_in_one_of_data(make_file, monkeypatch):
    monkeypatch.setattr(raw_disk, "MAX_EXTENTS", 2)
    fd = make_file(10 * BLOCK, 1, 3, 5)
    assert raw_disk.file_extents(fd, 10 * BLOCK) == ((BLOCK, 2 * BLOCK), (3 * BLOCK, 10 * BLOCK))


def test_what_can_not_seek_is_an_error():
    read_end, write_end = os.pipe()
    with pytest.raises(LocalIOError, match="holes of the image can't be found"):
        raw_disk.file_extents(read_end, 1)
    os.close(read_end)
    os.close(write_end)
