"""Waiting, sealing and keys; what tries after a crash do is in test_upload.py."""

import pytest
from fakes.aws_sdk import Refusal, hang_up, lose
from fakes.ec2_cloud import REGION, Ec2Cloud
from fakes.ec2_upload import make_context, make_request

from clouduploader.errors import DeniedError, NetworkError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.ebs import snapshot
from clouduploader.plugin import ObjectCreated, retry, visibility
from clouduploader.plugin.testing import MemoryJournal
from clouduploader.util.cancel import Cancel

KEY = MemoryJournal.key
TAGS = [{"Key": labels.KEY, "Value": KEY}, {"Key": labels.STARTED, "Value": "2026-11-28T12:00:00+00:00"}]
PARAMETERS = {"VolumeSize": 1, "Tags": TAGS, "Timeout": 60, "Description": "x"}
EMPTY = {
    "count": 0,
    "checksum": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",  # SHA-256 of nothing
    "limit_seconds": 1800,
}


@pytest.fixture
def aws():
    return Ec2Cloud()


@pytest.fixture
def journal(tmp_path):
    return MemoryJournal(tmp_path / "journal")


@pytest.fixture
def make_snapshots(aws, journal, record, tmp_path):
    """A factory of Snapshots, each with a clock of its own."""

    def make(cancel=None):
        context = make_context(aws, make_request(tmp_path, journal=journal), record, cancel)
        found = snapshot.Snapshots(context)
        found.clock = context.ctx.clock
        return found

    return make


def created(record):
    return [event.object.id for event in record.events if isinstance(event, ObjectCreated)]


def test_request_is_on_the_disk_before_it_is_made_and_its_answer_before_it_is_told(
    aws, journal, make_snapshots, record
):
    seen = []
    aws.faults["StartSnapshot"] = [lambda answer: seen.append(journal.entries()[-1]) or answer]
    snapshot_id = make_snapshots().start(PARAMETERS)
    (asked,) = seen
    assert (asked["what"], asked["kind"], asked["region"]) == ("asked", "snapshot", REGION)
    assert asked["parameters"] == aws.called("StartSnapshot")[0] == {**PARAMETERS, "ClientToken": asked["token"]}
    assert journal.entries()[-1].items() >= {"what": "started", "snapshot_id": snapshot_id}.items()
    assert journal.entries()[-1]["token"] == asked["token"]
    assert created(record) == [snapshot_id]


def test_tokens_name_upload_and_try_and_are_never_used_twice(aws, make_snapshots):
    snapshots = make_snapshots()
    for _ in range(3):
        snapshots.start(PARAMETERS)
    tokens = [call["ClientToken"] for call in aws.called("StartSnapshot")]
    assert [token[:34] for token in tokens] == [f"{KEY}-{number}" for number in (1, 2, 3)]
    assert len({token[34:] for token in tokens}) == 3


def test_seal_names_count_and_checksum_of_the_blocks(aws, make_snapshots):
    snapshot_id = make_snapshots().start(PARAMETERS)
    make_snapshots().seal(snapshot_id, **EMPTY)
    sealed = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    assert aws.called("CompleteSnapshot") == [
        {"SnapshotId": snapshot_id, "ChangedBlocksCount": 0, "Checksum": EMPTY["checksum"], **sealed}
    ]


def test_other_block_size_is_an_error_but_the_snapshot_is_known(aws, make_snapshots, record):
    aws.faults["StartSnapshot"] = [lambda answer: answer | {"BlockSize": 512}]
    with pytest.raises(PlatformReplyError, match="blocks of 512 bytes"):
        make_snapshots().start(PARAMETERS)
    assert created(record) == list(aws.snapshots)


def test_start_without_an_answer_stays_open_in_the_journal_and_is_told(aws, journal, make_snapshots, record):
    aws.faults["StartSnapshot"] = [hang_up()]
    with pytest.raises(NetworkError):
        make_snapshots().start(PARAMETERS)
    assert [entry["what"] for entry in journal.entries()] == ["asked"]
    (line,) = record.lines
    assert line.startswith(f"Perhaps left behind: a snapshot in {REGION}, ")


def test_refused_start_is_not_tried_again_with_that_token(aws, journal, make_snapshots):
    aws.faults["StartSnapshot"] = [Refusal("ServiceQuotaExceededException")]
    with pytest.raises(PlatformReplyError, match="quota"):
        make_snapshots().start(PARAMETERS)
    assert make_snapshots().earlier() is None
    assert len(aws.called("StartSnapshot")) == 1


def test_denied_start_of_an_earlier_try_that_is_denied_again_is_told(aws, journal, make_snapshots):
    aws.faults["StartSnapshot"] = [hang_up(), Refusal("AccessDeniedException")]
    with pytest.raises(NetworkError):
        make_snapshots().start(PARAMETERS)
    with pytest.raises(snapshot.StartDeniedError, match="ebs:StartSnapshot"):
        make_snapshots().earlier()


def test_start_that_is_refused_after_the_sdk_sent_it_twice_stays_open(aws, journal, make_snapshots):
    def refuse_the_second(_answer):
        raise Refusal("AccessDeniedException", retries=1)

    aws.faults["StartSnapshot"] = [refuse_the_second]
    with pytest.raises(snapshot.StartDeniedError):
        make_snapshots().start(PARAMETERS)
    assert [entry["what"] for entry in journal.entries()] == ["asked"]
    assert [make_snapshots().earlier().id] == list(aws.snapshots)


@pytest.fixture
def lost(aws, make_snapshots):
    """A snapshot of whose making no answer came."""
    aws.faults["StartSnapshot"] = [lose]
    with pytest.raises(NetworkError):
        make_snapshots().start(PARAMETERS)
    (snapshot_id,) = aws.snapshots
    return snapshot_id


def test_snapshot_whose_token_aws_has_forgotten_is_found_by_its_tags(aws, lost, journal, make_snapshots):
    aws.tokens.clear()
    assert make_snapshots().earlier().id == lost
    assert list(aws.snapshots) == [lost]
    assert journal.entries()[-1]["snapshot_id"] == lost


def test_snapshot_that_does_not_show_yet_is_found_by_its_token(aws, lost, make_snapshots):
    aws.hidden_until[lost] = 100
    assert make_snapshots().earlier().id == lost


@pytest.mark.parametrize(
    "change",
    [
        {"state": "error"},
        {"tags": {labels.KEY: KEY, labels.STARTED: "2026-11-28T11:00:00+00:00"}},  # of another try
    ],
)
def test_other_snapshot_of_this_upload_is_not_taken_for_the_lost_one(aws, lost, make_snapshots, change):
    aws.tokens.clear()
    for name, value in change.items():
        setattr(aws.snapshots[lost], name, value)
    assert make_snapshots().earlier().id != lost


@pytest.mark.parametrize("age", [0, 60])
def test_snapshot_of_an_earlier_try_is_waited_for_until_it_shows(aws, journal, make_snapshots, age):
    snapshot_id = make_snapshots().start(PARAMETERS)
    journal.age(age)
    aws.hidden_until[snapshot_id] = 50
    snapshots = make_snapshots()
    assert snapshots.earlier().id == snapshot_id
    assert 50 <= snapshots.clock.now <= 50 + 1.2 * retry.LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(("age", "waited"), [(0, 120), (60, 60), (121, 0), (-3600, 120)])
def test_snapshot_of_an_earlier_try_is_gone_once_it_would_show(aws, journal, make_snapshots, age, waited):
    snapshot_id = make_snapshots().start(PARAMETERS)
    journal.age(age)
    del aws.snapshots[snapshot_id]
    snapshots = make_snapshots()
    assert snapshots.earlier() is None
    assert snapshots.clock.now == pytest.approx(waited, abs=5)


def test_snapshot_of_an_earlier_try_that_was_removed_is_not_used(aws, journal, make_snapshots):
    snapshot_id = make_snapshots().start(PARAMETERS)
    journal.write("removed", kind="snapshot", id=snapshot_id, region=REGION)
    assert make_snapshots().earlier() is None


def test_snapshots_of_other_methods_and_regions_are_not_ours(aws, journal, make_snapshots):
    journal.write("asked", kind="snapshot", region=REGION)
    journal.write("made", kind="snapshot", id="snap-1", region=REGION)
    journal.write("asked", kind="snapshot", region="eu-west-2", by=snapshot.BY, token="t", parameters={})
    assert make_snapshots().earlier() is None
    assert aws.calls == []


def test_seal_is_noted_for_a_later_try(aws, make_snapshots):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    snapshots.seal(snapshot_id, **EMPTY, content="c", sha256=None)
    found = make_snapshots().earlier()
    assert (found.id, found.is_completed) == (snapshot_id, True)
    assert found.seal.items() >= {"count": 0, "content": "c", "sha256": None}.items()


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answers_to_the_seal_are_recognised(aws, make_snapshots, lost):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["CompleteSnapshot"] = [*[hang_up()] * (lost - 1), lose]
    snapshots.seal(snapshot_id, **EMPTY)
    assert aws.snapshots[snapshot_id].state == "completed"
    assert len(aws.called("CompleteSnapshot")) == lost


@pytest.mark.parametrize("is_of_this_try", [True, False])
def test_completion_that_takes_long_is_waited_for_after_a_lost_answer(aws, journal, make_snapshots, is_of_this_try):
    aws.completion_seconds = 10 * snapshot.SETTLE_SECONDS
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["CompleteSnapshot"] = [lose if is_of_this_try else None]
    snapshots.seal(snapshot_id, **EMPTY)
    if not is_of_this_try:
        snapshots.seal(snapshot_id, **EMPTY)
    assert aws.completion_seconds <= snapshots.clock.now <= aws.completion_seconds + 20


def test_completion_that_takes_too_long_is_a_transient_error(aws, make_snapshots):
    aws.completion_seconds = 2 * EMPTY["limit_seconds"]
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    snapshots.seal(snapshot_id, **EMPTY)
    with pytest.raises(TransientError, match="not complete after 30 minutes"):
        snapshots.seal(snapshot_id, **EMPTY)


def test_seal_that_did_not_arrive_and_is_refused_now_is_not_waited_for_that_long(aws, make_snapshots):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["CompleteSnapshot"] = [hang_up(), Refusal("ValidationException")]
    with pytest.raises(PlatformReplyError):
        snapshots.seal(snapshot_id, **EMPTY)
    assert snapshots.clock.now < snapshot.SETTLE_SECONDS + 16


def test_seal_that_the_sdk_sent_twice_is_recognised(aws, make_snapshots):
    def refuse_the_second(_answer):
        raise Refusal("ValidationException", retries=1)

    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["CompleteSnapshot"] = [refuse_the_second]
    snapshots.seal(snapshot_id, **EMPTY)
    assert len(aws.called("CompleteSnapshot")) == 1


@pytest.mark.parametrize(
    ("fault", "error", "calls", "waited"),
    [
        (Refusal("ValidationException"), PlatformReplyError, 1, 0),
        (Refusal("AccessDeniedException"), DeniedError, 1, 0),
        (Refusal("InternalServerException"), TransientError, snapshot.SEAL_TRIES, 75),
    ],
)
def test_seal_that_is_refused_is_an_error(aws, make_snapshots, fault, error, calls, waited):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["CompleteSnapshot"] = [fault] * 9
    with pytest.raises(error):
        snapshots.seal(snapshot_id, **EMPTY)
    assert len(aws.called("CompleteSnapshot")) == calls
    assert snapshots.clock.now <= waited


def answer(state):
    return lambda answer: {"Snapshots": [{**answer["Snapshots"][0], "State": state}]}


@pytest.mark.parametrize(
    "states",
    [
        ["completed"],
        ["pending", "pending", "completed"],
        [Refusal("InvalidSnapshot.NotFound"), "completed"],
        ["pending", hang_up(), Refusal("RequestLimitExceeded"), "completed"],
    ],
)
def test_snapshot_is_waited_for(aws, make_snapshots, states):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.faults["DescribeSnapshots"] = [item if isinstance(item, Exception) else answer(item) for item in states]
    snapshots.wait(snapshot_id, 600)
    assert len(aws.called("DescribeSnapshots")) == len(states)


@pytest.mark.parametrize("state", ["error", "recoverable"])
def test_snapshot_in_error_is_an_error(aws, make_snapshots, state):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    aws.snapshots[snapshot_id].state = state
    with pytest.raises(PlatformReplyError, match=f"its state is {state}"):
        snapshots.wait(snapshot_id, 600)


def test_snapshot_that_stays_gone_is_an_error(aws, make_snapshots):
    snapshots = make_snapshots()
    with pytest.raises(PlatformReplyError, match="its state is gone"):
        snapshots.wait("snap-9", 600)
    last_pause_seconds = retry.LONGEST_PAUSE_SECONDS * (1 + retry.JITTER)
    assert visibility.UNSEEN_SECONDS <= snapshots.clock.now <= visibility.UNSEEN_SECONDS + last_pause_seconds


def test_wait_has_an_end_and_does_not_ask_too_often(aws, make_snapshots):
    snapshots = make_snapshots()
    snapshot_id = snapshots.start(PARAMETERS)
    with pytest.raises(TransientError, match="was not complete after 30 minutes"):
        snapshots.wait(snapshot_id, 1800)
    assert 1800 <= snapshots.clock.now <= 1815
    assert len(aws.called("DescribeSnapshots")) < 130


def test_stop_ends_the_wait(aws, make_snapshots):
    cancel = Cancel()
    snapshots = make_snapshots(cancel=cancel)
    snapshot_id = snapshots.start(PARAMETERS)
    cancel.request(15)
    with pytest.raises(StoppedError):
        snapshots.wait(snapshot_id, 600)


@pytest.fixture
def key_arn(aws, record, tmp_path):
    """A function that looks up the key that target data name."""
    return lambda name: snapshot.key_arn(make_context(aws, make_request(tmp_path, kms_key_id=name), record))


@pytest.mark.parametrize(
    "name", ["1234abcd-12ab", "alias/mine", f"arn:aws:kms:{REGION}:123456789012:alias/mine", "arn:aws:kms:x"]
)
def test_key_is_looked_up_where_aws_takes_its_arn_only(key_arn, name):
    assert key_arn(name) == f"arn:aws:kms:{REGION}:123456789012:key/{name}"


def test_key_that_is_an_arn_needs_no_looking_up(aws, key_arn):
    arn = "arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd"
    assert key_arn(arn) == arn
    assert aws.called("DescribeKey") == []


def test_key_that_may_not_be_looked_up_is_an_error(aws, key_arn):
    aws.faults["DescribeKey"] = [Refusal("AccessDeniedException")]
    with pytest.raises(DeniedError, match="may not call kms:DescribeKey"):
        key_arn("alias/mine")
