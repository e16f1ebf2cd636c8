import os
import signal

import pytest
from samples.uploads import RAW

from clouduploader.errors import (
    ImageError,
    StoppedError,
)
from clouduploader.model.disk import ZeroBlocks
from clouduploader.plugin import (
    UploadResult,
)
from clouduploader.util.cancel import Cancel


def test_image_can_be_measured_by_the_platform(run, platform):
    platform.work = lambda request, _reporter, _cancel: UploadResult(str(request.measure_image()))
    assert run().id == str(len(RAW))


def test_measuring_is_stopped_by_a_signal(run, platform):
    cancel = Cancel()

    def work(request, _reporter, cancel):
        cancel.request(signal.SIGTERM)
        request.measure_image()

    platform.work = work
    with pytest.raises(StoppedError):
        run(cancel=cancel)


def test_image_can_be_looked_into_by_the_platform(run, platform):
    platform.work = lambda request, _reporter, _cancel: UploadResult(str(request.inspect_image().size_bytes))
    assert run().id == str(len(RAW))


def blocks(request):
    with request.open_blocks(4096, ZeroBlocks.SEND) as source:
        buffer, found = bytearray(4096), b""
        while block := source.next_into(buffer):
            found += bytes(4096) if block.is_zero else bytes(buffer)
        return found, source.stats()


def test_image_can_be_read_as_blocks_by_the_platform(run, platform):
    seen = []
    platform.work = lambda request, _reporter, _cancel: (seen.append(blocks(request)), UploadResult("ami-1"))[1]
    run()
    ((data, stats),) = seen
    assert data == RAW.ljust(len(data), b"\0")
    assert stats.size_bytes == len(RAW)


def test_checksum_beside_the_image_must_be_right(run, platform, tmp_path):
    (tmp_path / "my.raw.xz.sha256").write_text(f"{'0' * 64}  my.raw.xz\n")
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError, match="0000"):
        run(image="my.raw.xz")
    platform.work = lambda request, _reporter, _cancel: (request.measure_image(), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError, match="0000"):
        run(image="my.raw.xz")


def test_platform_that_reads_the_image_itself_learns_that_it_changed(run, platform, tmp_path):
    def upload(request, _reporter, _cancel):
        request.check_unchanged()
        request.check_unchanged("0" * 64)  # nothing was promised
        (tmp_path / "my.raw.xz.sha256").write_text("1" * 64)
        request.check_unchanged("1" * 64)
        with pytest.raises(ImageError, match="its SHA-256 is 0000"):
            request.check_unchanged("0" * 64)
        os.utime(tmp_path / "my.raw.xz", ns=(0, 0))
        request.check_unchanged()

    platform.work = upload
    with pytest.raises(ImageError, match=r"my\.raw\.xz changed while it was read: it was written to, or replaced"):
        run(image="my.raw.xz")


def test_image_may_not_be_larger_than_is_set(run, platform, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "clouduploader.conf").write_text("[clouduploader]\nmax_size = 4K\n")
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    with pytest.raises(ImageError):
        run()
