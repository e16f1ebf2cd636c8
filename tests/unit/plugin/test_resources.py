import pytest
from fakes.platforms import SdkError

from clouduploader.errors import DeniedError, PlatformReplyError, TransientError
from clouduploader.plugin import CloudObject


def journal(ctx):
    return [(entry["what"], entry.get("kind"), entry.get("id")) for entry in ctx.request.journal.entries()]


def test_what_is_made_is_asked_for_in_the_journal_before(upload_ctx):
    with upload_ctx.creating("disk", token="t") as created:
        assert journal(upload_ctx) == [("asked", "disk", None)]
        assert upload_ctx.request.journal.entries()[0]["token"] == "t"
        thing = created("disk-1")
    assert thing == CloudObject("disk", "disk-1", "here")
    assert journal(upload_ctx) == [("asked", "disk", None), ("made", "disk", "disk-1")]


def test_refusal_is_written_down(upload_ctx):
    with pytest.raises(DeniedError), upload_ctx.creating("disk"):
        raise DeniedError("no rights")
    assert journal(upload_ctx) == [("asked", "disk", None), ("refused", "disk", None)]


@pytest.mark.parametrize("error", [TransientError("hung up"), SdkError("hung up"), KeyboardInterrupt()])
def test_request_without_an_answer_stays_asked_for(upload_ctx, error):
    with pytest.raises((TransientError, KeyboardInterrupt)), upload_ctx.creating("disk"):
        raise error
    assert journal(upload_ctx) == [("asked", "disk", None)]


def test_answer_without_an_id_is_an_error_and_stays_asked_for(upload_ctx):
    with pytest.raises(PlatformReplyError, match="gave no id"), upload_ctx.creating("disk"):
        pass
    assert journal(upload_ctx) == [("asked", "disk", None)]


def test_undo_is_in_reverse_order_and_leaves_what_is_kept(upload_ctx):
    made = []
    for kind in ("disk", "machine", "image"):
        with upload_ctx.creating(kind) as created:
            made.append(created(f"{kind}-1"))
    upload_ctx.resources.keep(made[1])
    assert upload_ctx.resources.to_undo() == (made[2], made[0])
