import os

import pytest

from clouduploader.errors import LocalIOError
from clouduploader.image import sparse

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
    assert sparse.of_file(fd, 10 * BLOCK) == ((2 * BLOCK, 4 * BLOCK), (7 * BLOCK, 8 * BLOCK))


def test_file_without_holes_is_one_extent(make_file):
    assert sparse.of_file(make_file(2 * BLOCK, 0, 1), 2 * BLOCK) == ((0, 2 * BLOCK),)


def test_file_of_one_hole_has_no_extents(make_file):
    assert sparse.of_file(make_file(3 * BLOCK), 3 * BLOCK) == ()


def test_what_lies_behind_the_size_is_left_out(make_file):
    fd = make_file(10 * BLOCK, 1, 2, 7)
    assert sparse.of_file(fd, 2 * BLOCK) == ((BLOCK, 2 * BLOCK),)
    assert sparse.of_file(fd, 5 * BLOCK) == ((BLOCK, 3 * BLOCK),)


def test_empty_file_has_no_extents(make_file):
    assert sparse.of_file(make_file(0), 0) == sparse.everything(0) == ()


def test_more_extents_than_are_kept_end_in_one_of_data(make_file, monkeypatch):
    monkeypatch.setattr(sparse, "MAX_EXTENTS", 2)
    fd = make_file(10 * BLOCK, 1, 3, 5)
    assert sparse.of_file(fd, 10 * BLOCK) == ((BLOCK, 2 * BLOCK), (3 * BLOCK, 10 * BLOCK))


def test_what_can_not_seek_is_an_error():
    read_end, write_end = os.pipe()
    with pytest.raises(LocalIOError, match="holes of the image can't be found"):
        sparse.of_file(read_end, 1)
    os.close(read_end)
    os.close(write_end)
