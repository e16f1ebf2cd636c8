"""Chunks of 4 KiB into a cloud whose SDK raises errors of its own."""

import contextlib
import hashlib
import signal
import threading
import time

import pytest

from clouduploader.errors import DeniedError, ImageError, NetworkError, StoppedError, ThrottledError, TransientError
from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import BytesMoved, Platform, PlatformContext, UploadContext, UploadResult
from clouduploader.plugin.testing import fakes
from clouduploader.plugin.transfer import ConfirmedChunks, ContentChangedError, Timeouts, send_chunks, threads
from clouduploader.util.cancel import Cancel

CHUNK_BYTES = 4096
HASTY = Timeouts(tries=3, pause_seconds=0.01, max_pause_seconds=0.05, tick_seconds=0.02)


class SdkError(Exception):
    """What the SDK raises; its argument is the HTTP status, or None for a time-out."""


class Cloud(Platform):
    """A cloud with pages."""

    def translate(self, exc, subject):
        if not isinstance(exc, SdkError):
            return None
        kinds = {None: NetworkError, 403: DeniedError, 429: ThrottledError, 503: TransientError}
        return kinds[exc.args[0]](f"{subject}: {exc.args[0]}")

    def upload(self, ctx):
        return UploadResult("none")

    def remove(self, ctx, thing):
        pass


class Pages:
    """What the SDK writes to; `plan(index, try_number)` is called before each page and may raise."""

    def __init__(self, plan=lambda _index, _try_number: None):
        self.pages, self.calls, self._plan = {}, [], plan
        self._lock = threading.Lock()

    def put(self, index, data):
        with self._lock:
            self.calls.append(index)
            number = self.calls.count(index)
        self._plan(index, number)
        assert len(data) == CHUNK_BYTES
        self.pages[index] = data


def make_disk(count):
    """So many chunks, of which the third is zeros, and the last is short."""
    chunks = [bytes([number + 1]) * CHUNK_BYTES for number in range(count)]
    chunks[2] = bytes(CHUNK_BYTES)
    return b"".join(chunks)[:-3]


@pytest.fixture
def send(tmp_path):
    """A function that sends a disk, as an upload does that goes on with what was sent before."""

    def run(raw, put, *, cancel=None, reporter=None, timeouts=HASTY, open_blocks=fakes.opened_blocks, **options):
        path = tmp_path / "disk.raw"
        path.write_bytes(raw)
        image = Image(path, "disk.raw", Compression.RAW, len(raw))
        platform = Cloud(PlatformContext(home=tmp_path, settings={}, environment={}))
        request = fakes.make_request(image, {}, tmp_path)
        ctx = UploadContext(platform, request, reporter or fakes.RecordingReporter(), cancel or Cancel())
        with (
            open_blocks(path, CHUNK_BYTES) as source,
            ConfirmedChunks(request.journal.directory / "blob.confirmed", CHUNK_BYTES) as confirmed,
        ):
            given = {"threads": 4, "per_second": 10_000, "total_bytes": len(raw), **options}
            send_chunks(ctx, source, put, confirmed=confirmed, timeouts=timeouts, **given)
            return confirmed.content_digest(-(-len(raw) // CHUNK_BYTES))

    yield run
    assert not [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]


def whole(pages):
    return b"".join(pages[index] for index in sorted(pages))


@pytest.mark.parametrize("count", [1, 4, 30])
def test_chunks_arrive_whole(send, count):
    cloud, raw, reporter = Pages(), make_disk(30), fakes.RecordingReporter()
    send(raw, cloud.put, threads=count, reporter=reporter)
    assert whole(cloud.pages) == raw.ljust(30 * CHUNK_BYTES, b"\0")
    assert sorted(cloud.calls) == list(range(30))
    assert reporter.events[-1] == BytesMoved(len(raw), len(raw))


def test_single_thread_sends_in_order(send):
    cloud = Pages(fail_first(503))
    send(make_disk(30), cloud.put, threads=1)
    assert cloud.calls == sorted(cloud.calls)


def fail_first(status):
    """A plan that fails at the first try of each third chunk."""

    def plan(index, try_number):
        if try_number == 1 and index % 3 == 0:
            raise SdkError(status)

    return plan


@pytest.mark.parametrize("status", [None, 429, 503])
def test_chunk_that_failed_is_sent_again(send, status):
    cloud, raw = Pages(fail_first(status)), make_disk(12)
    send(raw, cloud.put)
    assert whole(cloud.pages) == raw.ljust(12 * CHUNK_BYTES, b"\0")
    assert len(cloud.calls) == 12 + 4


def test_throttling_is_not_counted_as_a_try(send):
    def plan(_index, try_number):
        if try_number <= 2 * HASTY.tries:
            raise SdkError(429)

    cloud = Pages(plan)
    send(make_disk(3), cloud.put)
    assert sorted(cloud.pages) == [0, 1, 2]


@pytest.mark.parametrize(
    ("status", "kind", "calls"), [(None, NetworkError, 3), (503, TransientError, 3), (403, DeniedError, 1)]
)
def test_error_that_stays_ends_the_transfer(send, status, kind, calls):
    def plan(index, _try_number):
        if index == 1:
            raise SdkError(status)

    cloud = Pages(plan)
    with pytest.raises(kind, match="block 1"):
        send(make_disk(12), cloud.put)
    assert cloud.calls.count(1) == calls


def test_resumed_transfer_sends_what_is_missing(send):
    def plan(index, _try_number):
        if index > 5:
            raise SdkError(403)

    first, second, raw = Pages(plan), Pages(), make_disk(12)
    with pytest.raises(DeniedError):
        send(raw, first.put, threads=1)
    digest = send(raw, second.put)
    assert sorted(second.pages) == list(range(6, 12))
    padded = raw.ljust(12 * CHUNK_BYTES, b"\0")
    chunks = [padded[at : at + CHUNK_BYTES] for at in range(0, len(padded), CHUNK_BYTES)]
    assert digest == hashlib.sha256(b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)).hexdigest()


def test_other_content_is_not_resumed(send):
    raw = make_disk(12)
    send(raw, Pages().put)
    with pytest.raises(ContentChangedError, match="block 0"):
        send(b"x" + raw[1:], Pages().put)


def test_image_that_became_shorter_is_not_resumed(send):
    raw = make_disk(12)
    send(raw, Pages().put)
    with pytest.raises(ContentChangedError, match="block 11 is a hole"):
        send(raw[: 11 * CHUNK_BYTES], Pages().put)


def test_rate_is_kept(send):
    began = time.monotonic()
    send(make_disk(30), Pages().put, per_second=20)
    assert time.monotonic() - began >= 1.0  # 20 in the first second


def test_cancellation_ends_it_though_the_cloud_does_not_answer(send):
    cancel, gate = Cancel(), threading.Event()
    cloud = Pages(lambda _index, _try_number: gate.wait(30))
    threading.Timer(0.2, cancel.request, [signal.SIGTERM]).start()
    with pytest.raises(StoppedError):
        send(make_disk(12), cloud.put, cancel=cancel)
    left = [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]
    gate.set()
    for thread in left:
        thread.join(30)
    assert left


def test_silence_of_the_cloud_ends_it(send):
    gate = threading.Event()
    with pytest.raises(NetworkError, match="no block was confirmed"):
        send(
            make_disk(3),
            Pages(lambda _index, _try_number: gate.wait(30)).put,
            timeouts=Timeouts(stall_seconds=0.1, tick_seconds=0.02),
        )
    left = [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]
    gate.set()
    for thread in left:
        thread.join(30)


def test_damaged_image_ends_it(send):
    class Damaged:
        can_reread = False

        def next_into(self, _buffer):
            raise ImageError("cut off")

        def position(self):
            return 0

    with pytest.raises(ImageError, match="cut off"):
        send(b"x", Pages().put, open_blocks=lambda *_how: contextlib.nullcontext(Damaged()))


def test_bug_in_the_platform_is_raised_as_it_is(send):
    def put(_index, _data):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(make_disk(3), put)
