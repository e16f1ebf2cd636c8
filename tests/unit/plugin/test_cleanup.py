import signal

import pytest

from clouduploader.errors import (
    AbsentError,
    CredentialsError,
    DeniedError,
    ForeignError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.plugin import CleanUpReport, CloudObject, Leftover, ObjectRemoved, visibility
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.plugin.testing import FakeClock, LostUploadError

DISK, MACHINE, ODD = CloudObject("disk", "d"), CloudObject("machine", "m"), CloudObject("odd", "o")


def test_things_are_removed_in_the_platform_s_order(platform, ctx):
    assert platform.clean_up(ctx, [ODD, DISK, MACHINE]) == CleanUpReport((MACHINE, DISK, ODD))
    assert ctx.reporter.events == [ObjectRemoved(MACHINE), ObjectRemoved(DISK), ObjectRemoved(ODD)]


def test_removal_is_tried_again_while_something_is_in_use(platform, ctx):
    platform.script["d"] = [TransientError("in use by m")] * 3
    assert platform.clean_up(ctx, [DISK]).removed == (DISK,)


def test_what_can_not_be_removed_is_left_with_the_reason_and_the_rest_goes_on(platform, ctx):
    platform.script["m"] = [DeniedError("no rights")]
    assert platform.clean_up(ctx, [MACHINE, DISK]) == CleanUpReport((DISK,), (Leftover(MACHINE, "no rights"),))


def test_what_does_not_show_is_absent_and_not_told_as_removed(platform, ctx):
    platform.script["d"] = [AbsentError("no such disk")]
    assert platform.clean_up(ctx, [DISK]) == CleanUpReport((), (), (DISK,))
    assert ctx.reporter.events == []


def test_what_is_another_upload_s_is_neither_removed_nor_left(platform, ctx):
    platform.script["d"] = [ForeignError("disk d is another upload's")]
    assert platform.clean_up(ctx, [DISK]) == CleanUpReport()
    assert ctx.reporter.events == []
    assert ctx.reporter.lines[-1] == "Not removed: disk d is another upload's"


def upload(platform, ctx, error=None):
    """Make a disk and a machine, then fail."""
    with undone_on_failure(platform, ctx):
        with ctx.creating("disk") as created:
            created("d")
        with ctx.creating("machine") as created:
            created("m")
        if error:
            raise error


@pytest.mark.parametrize("error", [PlatformReplyError("no"), ZeroDivisionError()])
def test_failed_upload_is_undone(platform, upload_ctx, error):
    with pytest.raises(type(error)):
        upload(platform, upload_ctx, error)
    assert platform.removed == ["m", "d"]
    assert upload_ctx.reporter.existing == set()


def test_cancelled_upload_is_undone_to_the_end(platform, upload_ctx):
    platform.script["d"] = [TransientError("in use")]
    upload_ctx.cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        upload(platform, upload_ctx, StoppedError(signal.SIGTERM))
    assert platform.removed == ["m", "d"]


def test_what_does_not_show_yet_is_looked_for_until_it_would(platform, upload_ctx, clock):
    platform.script["d"] = [AbsentError("no such disk")] * 3
    with pytest.raises(PlatformReplyError):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert platform.removed == ["m", "d"]
    assert upload_ctx.reporter.existing == set()
    assert 0 < clock.now < visibility.UNSEEN_SECONDS


def test_what_never_shows_counts_as_gone(platform, upload_ctx, clock):
    platform.script["d"] = [AbsentError("no such disk")] * 1000
    with pytest.raises(PlatformReplyError):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert upload_ctx.reporter.existing == set()
    assert visibility.UNSEEN_SECONDS <= clock.now <= visibility.UNSEEN_SECONDS + 10


def test_cancelled_upload_waits_for_nothing_that_does_not_show(platform, upload_ctx, clock):
    platform.script["d"] = [AbsentError("no such disk")]
    upload_ctx.cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        upload(platform, upload_ctx, StoppedError(signal.SIGTERM))
    assert (clock.now, upload_ctx.reporter.existing) == (0, {CloudObject("disk", "d", "here")})
    (line,) = [line for line in upload_ctx.reporter.lines if line.startswith("Left")]
    assert line.startswith("Left behind: disk d in here: the cloud does not show it, or not yet; `clouduploader clean")


def test_upload_cancelled_while_it_is_undone_was_cancelled(platform, upload_ctx):
    upload_ctx.reporter.on_event = lambda event: isinstance(event, ObjectRemoved) and upload_ctx.cancel.request(15)
    with pytest.raises(StoppedError):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert platform.removed == ["m", "d"]


def test_clean_up_goes_on_with_the_client_of_the_upload(upload_ctx):
    fresh = upload_ctx.uncancelled()
    client = upload_ctx.client
    assert upload_ctx.uncancelled().client is client
    assert fresh.client is not client


def test_upload_that_succeeds_keeps_what_it_made(platform, upload_ctx):
    upload(platform, upload_ctx)
    assert platform.removed == []


def test_what_a_failed_upload_leaves_is_named_and_hides_not_the_failure(platform, upload_ctx):
    def refuse(_ctx, _things):
        raise CredentialsError("the role is gone")

    platform.clean_up = refuse
    with pytest.raises(PlatformReplyError, match="no"):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert upload_ctx.reporter.lines == [
        "Left behind: machine m in here: the role is gone",
        "Left behind: disk d in here: the role is gone",
    ]


def test_nothing_is_removed_of_an_upload_that_another_host_has(platform, upload_ctx):
    upload_ctx.reporter.journal = None
    upload_ctx.reporter.on_event = lambda _event: setattr(upload_ctx.request.journal, "is_lost", True)
    with pytest.raises(LostUploadError):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert platform.removed == []


def test_each_try_of_a_removal_looks_whose_the_upload_is(platform, upload_ctx):
    class LosingClock(FakeClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            upload_ctx.request.journal.is_lost = True

    upload_ctx.clock = LosingClock()
    platform.script["m"] = [TransientError("in use")]
    with pytest.raises(LostUploadError):
        upload(platform, upload_ctx, PlatformReplyError("no"))
    assert platform.removed == []
