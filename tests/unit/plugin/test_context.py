import contextlib
import dataclasses
import hashlib
import signal
import threading

import pytest
from fakes.platforms import SdkError

from clouduploader.errors import ImageError, MissingProgramError, PlatformReplyError, StoppedError, TransientError
from clouduploader.model.disk import DiskFormat, ImageFacts
from clouduploader.plugin import BytesMoved, PhaseStarted, retry
from clouduploader.util import deadline


def facts(*architectures):
    return ImageFacts(
        disk_format=DiskFormat.RAW,
        size_bytes=1,
        is_size_exact=True,
        partition_table=None,
        minimum_bytes=0,
        architectures=architectures,
        boots_uefi=None,
        boots_bios=None,
    )


def test_client_is_connected_once_and_when_it_is_needed(ctx, platform):
    assert platform.connections == []
    assert ctx.client is ctx.client
    assert platform.connections == [{"region": "here"}]


def test_errors_of_the_sdk_are_translated_with_their_cause(ctx, platform):
    platform.script["connect"] = SdkError("no route")
    with pytest.raises(TransientError, match="the cloud: no route") as caught:
        _ = ctx.client
    assert isinstance(caught.value.__cause__, SdkError)


def test_sdk_that_is_not_installed_is_named_with_what_installs_it(ctx, platform):
    platform.script["connect"] = ModuleNotFoundError("No module named 'sdk'", name="sdk")
    with pytest.raises(ModuleNotFoundError):
        _ = ctx.client
    platform.requirement = "clouduploader[mycloud]"
    with pytest.raises(MissingProgramError) as caught:
        _ = ctx.client
    assert caught.value.sentence() == "the Python package sdk is not installed. pip install 'clouduploader[mycloud]'"


def test_errors_that_are_not_the_sdk_s_go_on_as_they_are(ctx):
    for error in (PlatformReplyError("no"), ZeroDivisionError()):
        with pytest.raises(type(error)), ctx.translated("x"):
            raise error


def test_phase_is_told_and_names_what_failed(ctx):
    with pytest.raises(TransientError, match="upload: broken pipe"), ctx.phase("upload"):
        raise SdkError("broken pipe")
    assert ctx.reporter.events == [PhaseStarted("upload")]


def test_retry_translates_before_it_judges(ctx):
    outcomes = [SdkError("busy"), SdkError("busy")]

    def call():
        if outcomes:
            raise outcomes.pop()
        return "done"

    assert ctx.retry(call) == "done"
    assert ctx.clock.now > 0


def test_retry_that_lasts_is_told_once_and_names_its_subject(ctx):
    outcomes = [SdkError("busy")] * 8

    def call():
        if outcomes:
            raise outcomes.pop()

    ctx.retry(call, subject="image 7")
    assert ctx.reporter.lines.count("Trying again: image 7: busy") == 8
    assert ctx.reporter.lines.count("Still trying: image 7: busy") == 1


def test_call_that_blocks_for_ever_has_an_end(ctx):
    with pytest.raises(TransientError, match="the host: no answer in 0 seconds"):
        ctx.within(0.1, threading.Event().wait, subject="the host")


def test_call_that_blocks_is_left_after_a_cancellation(ctx, monkeypatch):
    monkeypatch.setattr(deadline, "STOPPING_SECONDS", 0.1)
    ctx.cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        ctx.within(600, threading.Event().wait)


def test_errors_within_a_bounded_call_are_translated(ctx):
    def call():
        raise SdkError("no route")

    with pytest.raises(TransientError, match="the host: no route"):
        ctx.within(60, call, subject="the host")


def test_poll_waits_through_pending_states(ctx):
    states = ["queued", "saving", "active"]
    assert ctx.poll(lambda: states.pop(0), until="active", pending=("queued", "saving")) == "active"


def test_poll_ends_at_once_in_a_state_that_leads_nowhere(ctx):
    with pytest.raises(PlatformReplyError, match="it is killed, and will not be active"):
        ctx.poll(lambda: "killed", until="active", pending=("queued",))
    assert ctx.clock.now == 0


def test_poll_has_an_end(ctx):
    with pytest.raises(TransientError, match="it is not active after 60 seconds"):
        ctx.poll(lambda: "queued", until="active", pending=("queued",), seconds=60)
    assert ctx.clock.now == pytest.approx(60, abs=retry.SHORTEST_PAUSE_SECONDS)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ("arm64", (), "arm64"),
        (None, ("arm64",), "arm64"),
        (None, ("riscv64", "x86_64"), "x86_64"),
        (None, (), "x86_64"),
    ],
)
def test_architecture_is_that_of_the_target_data_or_the_image(upload_ctx, wanted, found, expected):
    upload_ctx.targetdata = {"architecture": wanted}
    assert upload_ctx.architecture(facts(*found), allowed=("x86_64", "arm64")) == expected
    assert bool(upload_ctx.reporter.lines) == (wanted is None and not found)


def test_architecture_that_the_cloud_has_not_is_refused(upload_ctx):
    with pytest.raises(ImageError, match="the image is for riscv64, and the cloud has x86_64, arm64"):
        upload_ctx.architecture(facts("riscv64"), allowed=("x86_64", "arm64"))


def test_labels_hold_nothing_unprintable(upload_ctx):
    assert upload_ctx.labels["clouduploader:filename"] == "a?.raw"
    assert upload_ctx.labels["clouduploader:key"] == upload_ctx.request.journal.key
    assert upload_ctx.labels["clouduploader:project"] == "home:tom"


def test_stream_tells_bytes_and_digests_them(upload_ctx):
    data = upload_ctx.request.image.path.read_bytes()
    with upload_ctx.open_stream(digest="sha512") as stream:
        assert stream.size_bytes == len(data)
        assert stream.read(1000) + b"".join(stream) == data
        assert stream.hexdigest() == hashlib.sha512(data).hexdigest()
    moved = [event for event in upload_ctx.reporter.events if isinstance(event, BytesMoved)]
    assert moved[0] == BytesMoved(1000, len(data))
    assert moved[-1] == BytesMoved(len(data), len(data))


@pytest.mark.parametrize("read", [b"".join, lambda stream: b"".join(iter(lambda: stream.read(1000), b""))])
def test_stream_of_unknown_length_tells_it_at_its_end(upload_ctx, read):
    open_stream = upload_ctx.request.open_stream

    @contextlib.contextmanager
    def open_unknown(encoding, digest):
        with open_stream(encoding, digest) as stream:
            stream.size_bytes = None
            yield stream

    upload_ctx.request = dataclasses.replace(upload_ctx.request, open_stream=open_unknown)
    with upload_ctx.open_stream() as stream:
        size_bytes = len(read(stream))
    moved = [event for event in upload_ctx.reporter.events if isinstance(event, BytesMoved)]
    assert moved[-1] == BytesMoved(size_bytes, size_bytes)
    assert moved[0].total_bytes is None


@pytest.mark.parametrize("read", [lambda stream: stream.read(1), lambda stream: next(iter(stream))])
def test_stream_ends_by_a_cancellation(upload_ctx, read):
    upload_ctx.cancel.request(signal.SIGTERM)
    with upload_ctx.open_stream() as stream, pytest.raises(StoppedError):
        read(stream)
