import datetime
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.platforms import SdkError

from clouduploader.errors import DeniedError, PlatformReplyError, TransientError
from clouduploader.plugin import CloudObject, visibility
from clouduploader.plugin.resources import unremoved


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


def test_error_that_says_nothing_of_the_request_is_told_by_the_caller(upload_ctx):
    with pytest.raises(DeniedError), upload_ctx.creating("disk", is_refused=lambda _exc: False):
        raise DeniedError("no rights")
    assert journal(upload_ctx) == [("asked", "disk", None)]
    with pytest.raises(TransientError), upload_ctx.creating("disk", is_refused=lambda _exc: True):
        raise TransientError("too many")
    assert journal(upload_ctx)[1:] == [("asked", "disk", None), ("refused", "disk", None)]


def test_what_was_asked_for_is_unanswered_until_it_is_made_or_refused(upload_ctx):
    resources = upload_ctx.resources
    for kind in ("disk", "machine", "image"):
        resources.asked(kind, "here")
    resources.asked("disk", "there")
    resources.made(CloudObject("disk", "d", "here"))
    resources.refused("machine", "here")
    assert (resources.unanswered("here"), resources.unanswered("there")) == (["image"], ["disk"])


def test_request_with_the_same_token_is_answered_with_the_first(upload_ctx):
    for _ in range(3):
        upload_ctx.resources.asked("image", "here", token="t")
    upload_ctx.resources.made(CloudObject("image", "i", "here"))
    assert upload_ctx.resources.unanswered("here") == []


def test_threads_answer_their_own_requests(upload_ctx, monkeypatch):
    resources = upload_ctx.resources
    monkeypatch.setattr(upload_ctx.request.journal, "write", lambda *_words, **_values: None)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def serve(region):
        for number in range(3000):
            resources.asked("image", region, token=f"{number}")
            assert resources.unanswered(region) == ["image"]
            resources.made(CloudObject("image", f"{number}", region))
            assert resources.unanswered(region) == []
        return number + 1

    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(serve, "abcdefgh")) == [3000] * 8
    finally:
        sys.setswitchinterval(interval)


def test_what_is_gone_is_not_undone_and_in_the_journal(upload_ctx):
    disk = CloudObject("disk", "d", "here")
    upload_ctx.resources.made(disk)
    upload_ctx.resources.removed(disk)
    assert upload_ctx.resources.to_undo() == ()
    assert journal(upload_ctx) == [("made", "disk", "d"), ("removed", "disk", "d")]


def test_adopted_thing_is_undone_without_a_word_and_keeps_its_age(upload_ctx, clock):
    disk, other = CloudObject("disk", "d", "here"), CloudObject("disk", "e", "here")
    upload_ctx.resources.made(disk)
    upload_ctx.resources.keep(disk)
    clock.sleep(5)
    for thing in (disk, other):
        upload_ctx.resources.adopt(thing)
    assert upload_ctx.resources.to_undo() == (other, disk)
    assert [upload_ctx.resources.age_seconds(thing) for thing in (disk, other)] == [5, 0]
    assert journal(upload_ctx) == [("made", "disk", "d")]


@pytest.mark.parametrize(("age", "expected"), [(30, 30), (1000, visibility.UNSEEN_SECONDS)])
def test_age_of_what_an_earlier_try_made_is_that_of_its_entry(upload_ctx, age, expected):
    disk = CloudObject("disk", "d", "here")
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
    upload_ctx.request.journal.write("made", kind="disk", id="d", region="here", time=moment.isoformat())
    assert upload_ctx.resources.of_earlier_tries() == [disk]
    assert upload_ctx.resources.to_undo() == ()
    assert upload_ctx.resources.age_seconds(disk) == pytest.approx(expected, abs=5)
    assert upload_ctx.resources.age_seconds(CloudObject("disk", "e", "here")) == float("inf")


def test_what_an_upload_gave_is_no_leftover():
    given = {"kind": "image", "id": "ami-1", "region": "here"}
    entries = [
        {"what": "made", **given},
        {"what": "made", "kind": "volume", "id": "vol-1", "region": "here"},
        {"what": "end", "outcome": "succeeded", "objects": [given], "shortfalls": []},
        {"what": "asked", "kind": "vpc", "region": "here"},
        {"what": "made", "kind": "vpc", "id": "vpc-1", "region": "here"},
        {"what": "end", "outcome": "failed"},
    ]
    assert list(unremoved(entries)) == [CloudObject("volume", "vol-1", "here"), CloudObject("vpc", "vpc-1", "here")]
