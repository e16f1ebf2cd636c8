import signal

import pytest

from clouduploader.errors import (
    AbsentError,
    CredentialsError,
    DeniedError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.plugin import CleanUpReport, CloudObject, Leftover, ObjectRemoved
from clouduploader.plugin.cleanup import undone_on_failure

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
        "Warning: the machine m could not be removed: the role is gone",
        "Warning: the disk d could not be removed: the role is gone",
    ]
