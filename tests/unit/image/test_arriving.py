"""Images that are read while another process still writes them."""

import gzip
import os
import threading

import pytest
from samples.packed_images import (
    blocks_of,
    drained,
    multi_block_xz,
    noise,
    open_blocks,
    pack_xz,
    tarball,
    vhd_footer,
    zstd,
)

from clouduploader.errors import ImageError, TransientError
from clouduploader.image import encode, inspect
from clouduploader.image import open as image_open
from clouduploader.model.disk import ZeroBlocks
from clouduploader.util.arrival import Arrival, ArrivalWriter
from clouduploader.util.cancel import Cancel

RAW = noise(300_000) + bytes(200_000) + noise(100_000, 2)
END_BYTES = 4096  # comes first
STEP_BYTES = 10_007
WAYS = {
    "raw": lambda raw: raw,
    "vhd": lambda raw: raw + vhd_footer(len(raw)),
    "xz": pack_xz,
    "xz of blocks": lambda raw: multi_block_xz([raw[place : place + 50_000] for place in range(0, len(raw), 50_000)]),
    "gz": gzip.compress,
    "zst": zstd.compress,
    "tar.gz": lambda raw: gzip.compress(tarball({"a.raw": raw})),
}


class Sender:
    """Writes an image as an upload host does.

    Args:
        path: Made.
        data: What is to be in it.
    """

    def __init__(self, path, data):
        self._data, self._path = data, path
        self._file = path.open("w+b", buffering=0)
        self._file.truncate(len(data))
        self.writer = ArrivalWriter()
        self.image = None

    def send_end(self):
        start = max(len(self._data) - END_BYTES, 0)
        os.pwrite(self._file.fileno(), self._data[start:], start)
        self.writer.have_end(start)

    def send(self, count=None):
        """Send so many bytes, or all that are left."""
        for place in range(self._file.tell(), len(self._data) if count is None else count, STEP_BYTES):
            piece = self._data[place : place + STEP_BYTES]
            self._file.write(piece)
            self.writer.have(place + len(piece))

    def finish(self):
        self.writer.finish(os.fstat(self._file.fileno()).st_mtime_ns)

    def describe(self):
        return image_open.describe(self._path, "a.raw", Cancel(), Arrival(self.writer.descriptor, Cancel()))

    def close(self):
        self.writer.__exit__()
        self._file.close()


@pytest.fixture
def send(tmp_path):
    """A factory of senders."""
    made = []

    def make(data):
        made.append(Sender(tmp_path / "42.file", data))
        return made[-1]

    yield make
    for sender in made:
        sender.close()


@pytest.fixture
def going_on():
    """Run something beside the test, which ends with it."""
    threads = []

    def start(work):
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threads", [1, 4])
def test_blocks_are_those_of_the_whole_image(send, going_on, way, threads):
    sender = send(WAYS[way](RAW))
    sender.send_end()
    sender.send(STEP_BYTES)

    def rest():
        sender.send()
        sender.finish()

    going_on(rest)
    image = sender.describe()
    with open_blocks(image) as source:
        assert drained(source, threads=threads) == blocks_of(RAW)
        assert source.stats().size_bytes == len(RAW)


@pytest.mark.parametrize("way", ["raw", "xz of blocks", "gz"])
def test_beginning_is_handed_out_before_the_rest_has_come(send, way):
    sender = send(WAYS[way](RAW))
    sender.send_end()
    sender.send(400_000)
    image = sender.describe()
    buffer = bytearray(1 << 15)
    with open_blocks(image, block_bytes=len(buffer)) as source:
        for index in range(3):
            assert source.next_into(buffer).index == index
            assert buffer == RAW[index << 15 : (index + 1) << 15]
        sender.writer.fail()  # threads may wait for more


def test_what_is_in_the_image_is_told_by_its_beginning_and_its_end(send):
    sender = send(multi_block_xz([RAW, bytes(40 << 20)]))
    sender.send_end()
    sender.send(len(pack_xz(RAW)) + 5000)
    image = sender.describe()
    assert image_open.unpacked_size(image, Cancel()) == (len(RAW) + (40 << 20), True)


@pytest.mark.parametrize("way", WAYS)
def test_image_that_does_not_come_to_its_end_is_no_image(send, going_on, way):
    sender = send(WAYS[way](RAW))
    sender.send_end()
    sender.send()  # but another digest was found
    image = sender.describe()
    going_on(sender.writer.fail)
    with pytest.raises(TransientError, match="did not come"), open_blocks(image) as source:
        drained(source)


def test_stream_does_not_end_unless_all_is_right(send):
    sender = send(pack_xz(RAW))
    sender.send()
    sender.writer.fail()
    image, found = sender.describe(), bytearray()

    def read():
        with encode.open_stream(
            lambda block_bytes, zero_blocks: open_blocks(image, block_bytes=block_bytes, zero_blocks=zero_blocks),
            image=image,
            check_unchanged=lambda _sha256: None,
            cancel=Cancel(),
        ) as stream:
            for piece in stream:
                found.extend(piece)

    with pytest.raises(TransientError):
        read()
    assert len(found) < len(RAW)


def test_file_that_was_written_to_after_it_had_come_is_refused(send):
    sender = send(RAW)
    sender.send()
    sender.finish()
    image = sender.describe()
    image_open.check_unchanged(image)
    os.utime(image.path, ns=(0, 0))
    with pytest.raises(ImageError, match="changed while it was read"), open_blocks(image) as source:
        drained(source)


def test_measuring_waits_for_all(send, going_on):
    sender = send(RAW)
    sender.send_end()
    sender.send(STEP_BYTES)

    def rest():
        sender.send()
        sender.finish()

    going_on(rest)
    image = sender.describe()
    assert image_open.measure(image, on_bytes=lambda _count: None, cancel=Cancel()) == len(RAW)


def test_holes_of_what_has_not_come_are_none(send, going_on):
    sender = send(noise(8 << 20))
    sender.send(STEP_BYTES)
    sender.send_end()
    image = sender.describe()

    def rest():
        sender.send()
        sender.finish()

    with open_blocks(image, zero_blocks=ZeroBlocks.HOLES) as source:
        going_on(rest)
        drained(source)
        assert source.stats().hole_blocks == 0


def test_facts_are_read_from_what_has_come(send):
    sender = send(RAW)
    sender.send_end()
    sender.send()
    assert inspect.inspect(sender.describe(), Cancel()).size_bytes == len(RAW)
