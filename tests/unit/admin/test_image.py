import bz2
import gzip
import hashlib
import lzma
import os
import signal

import pytest
from samples.minimal_disk import as_disk

from clouduploader.admin import image
from clouduploader.errors import ImageError, MissingFileError, StoppedError
from clouduploader.model.disk import Compression, ZeroBlocks
from clouduploader.plugin import BytesMoved, PhaseStarted
from clouduploader.store.job_log import JobLog
from clouduploader.util.cancel import Cancel

BLOCK = 512 << 10
RAW = as_disk(b"data".ljust(BLOCK, b".") + bytes(2 * BLOCK) + b"end")
PACK = {
    Compression.RAW: bytes,
    Compression.XZ: lzma.compress,
    Compression.GZIP: gzip.compress,
    Compression.BZIP2: bz2.compress,
}


@pytest.fixture
def make_file(tmp_path):
    """A factory of a file with these bytes; returns its path."""

    def make(data, name="a.img"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return make


def inspect(path, *, max_size_bytes=1 << 30, is_whole=True, cancel=None, events=None):
    log = JobLog([], is_verbose=False)
    log.listen((events if events is not None else []).append)
    return image.inspect_image(
        path, max_size_bytes=max_size_bytes, is_whole=is_whole, is_forced=False, reporter=log, cancel=cancel or Cancel()
    )


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", PACK)
def test_all_is_told_of_every_packing(make_file, kind):
    data = PACK[kind](RAW)
    found = inspect(make_file(data))
    assert (found.image.compression, found.image.filename, found.image.size_bytes) == (kind, "a.img", len(data))
    assert (found.facts.size_bytes, found.facts.is_size_exact) == (len(RAW), True)
    assert (found.stats.file_sha256, found.stats.raw_sha256) == (digest(data), digest(RAW))
    assert (found.stats.data_blocks, found.stats.zero_blocks, found.stats.hole_blocks) == (2, 2, 0)
    assert (found.promised_sha256, found.bmap_path) == (None, None)


def test_holes_of_a_sparse_file_are_counted(make_file):
    path = make_file(b"")
    with path.open("wb") as file:
        file.truncate(10 * BLOCK)
        file.write(as_disk(b""))
        file.seek(4 * BLOCK)
        file.write(b"x" * BLOCK + bytes(BLOCK))
    stats = inspect(path).stats
    assert (stats.data_blocks, stats.zero_blocks, stats.hole_blocks) == (2, 1, 7)
    assert image.left_out(stats) == {
        ZeroBlocks.SEND: (10, 0),
        ZeroBlocks.HOLES: (3, 7),
        ZeroBlocks.SKIP: (2, 8),
    }


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ])
def test_quick_look_reads_no_further(make_file, kind):
    found = inspect(make_file(PACK[kind](RAW)), is_whole=False)
    assert found.stats is None
    assert found.facts.size_bytes == (len(RAW) if kind is Compression.XZ else None)


@pytest.mark.parametrize("kind", [Compression.XZ, Compression.GZIP, Compression.BZIP2])
def test_damage_at_the_end_is_an_error(make_file, kind):
    data = PACK[kind](as_disk(os.urandom(BLOCK)))
    with pytest.raises(ImageError, match=r"a\.img"):
        inspect(make_file(data[:-3]))
    with pytest.raises(ImageError, match="something else behind"):
        inspect(make_file(data + b"garbage!"))


def test_kept_promise_is_told(make_file):
    path = make_file(RAW)
    make_file(f"{digest(RAW)}  a.img\n".encode(), "a.img.sha256")
    assert inspect(path).promised_sha256 == digest(RAW)


@pytest.mark.parametrize("kind", [Compression.RAW, Compression.XZ])
def test_broken_promise_is_an_error(make_file, kind):
    path = make_file(PACK[kind](RAW))
    make_file(f"{'1' * 64}  a.img\n".encode(), "a.img.sha256")
    with pytest.raises(ImageError, match="1111"):
        inspect(path)
    assert inspect(path, is_whole=False).promised_sha256 == "1" * 64


def test_block_map_beside_is_used(make_file):
    path = make_file(gzip.compress(RAW), "a.raw.gz")
    bmap = make_file(
        b'<bmap version="1.2"><ImageSize>%d</ImageSize><BlockSize>4096</BlockSize><BlockMap><Range>0-127</Range>'
        b"<Range>384</Range></BlockMap></bmap>" % len(RAW),
        "a.raw.bmap",
    )
    found = inspect(path)
    assert (found.bmap_path, found.stats.hole_blocks, found.stats.zero_blocks) == (bmap, 2, 0)


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("kind", [Compression.RAW, Compression.XZ])
def test_image_over_the_limit_is_an_error(make_file, kind, is_whole):
    path = make_file(PACK[kind](RAW))
    with pytest.raises(ImageError, match=f"{len(RAW) - 1}") as caught:
        inspect(path, max_size_bytes=len(RAW) - 1, is_whole=is_whole)
    assert "--max-size" in caught.value.hint
    assert inspect(path, max_size_bytes=len(RAW), is_whole=is_whole)


@pytest.mark.parametrize("kind", PACK)
def test_progress_is_told(make_file, kind):
    events = []
    path = make_file(PACK[kind](RAW))
    inspect(path, events=events)
    assert events[0] == PhaseStarted("read image")
    moved = [(event.done_bytes, event.total_bytes) for event in events if isinstance(event, BytesMoved)]
    assert moved == sorted(moved)
    assert moved[-1] == (path.stat().st_size, path.stat().st_size)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(MissingFileError):
        inspect(tmp_path / "gone")


def test_stop_is_honoured(make_file):
    cancel = Cancel()
    cancel.request(signal.SIGINT)
    with pytest.raises(StoppedError):
        inspect(make_file(RAW), cancel=cancel)
