import hashlib
import io
import signal

import pytest
from fakes.aws_sdk import Refusal, hang_up
from fakes.ec2_cloud import BLOCK, Ec2Cloud
from fakes.ec2_upload import make_context, make_request

from clouduploader.errors import DeniedError, NetworkError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2.ebs import verify
from clouduploader.plugin import BytesMoved, visibility
from clouduploader.util.cancel import Cancel

SNAPSHOT = "snap-00000000000000001"


class Digests:
    def __init__(self, blocks):
        self._digests = {index: hashlib.sha256(data.ljust(BLOCK, b"\0")).digest() for index, data in blocks.items()}
        self.count = len(blocks)

    def confirmed(self, index):
        return self._digests.get(index)


@pytest.fixture
def make_case(record, tmp_path):
    """A factory of a completed snapshot with so many blocks, every other index; returns it and how to compare."""

    def make(count=5, page_blocks=10000):
        aws = Ec2Cloud()
        aws.page_blocks = page_blocks
        aws.add_snapshot(state="completed")
        found = aws.snapshots[SNAPSHOT]
        found.blocks = {2 * number: bytes([number % 256]) * 100 for number in range(count)}
        digests = Digests(found.blocks)

        def compare(*, is_full=True, cancel=None):
            context = make_context(aws, make_request(tmp_path), record, cancel)
            verify.compare(context, SNAPSHOT, digests, is_full=is_full)
            return [parameters["BlockIndex"] for parameters in aws.called("GetSnapshotBlock")]

        return aws, compare

    return make


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("page_blocks", [1, 2, 10000])
def test_full_reads_every_block(make_case, record, count, page_blocks):
    _aws, compare = make_case(count, page_blocks)
    assert sorted(compare()) == [2 * number for number in range(count)]
    assert record.lines == [f"Verified: {count} of {count} blocks read back and equal."]
    moved = [event.done_bytes for event in record.events if isinstance(event, BytesMoved)]
    assert moved == [BLOCK * (number + 1) for number in range(count)]


def test_sample_reads_first_last_and_some_between(make_case, record):
    _aws, compare = make_case(500, 100)
    read = compare(is_full=False)
    assert len(set(read)) == len(read) == verify.SAMPLE_BLOCKS
    assert {0, 998} <= set(read)
    assert record.lines == ["Verified: 64 of 500 blocks read back and equal."]


def test_sample_of_few_is_all(make_case):
    _aws, compare = make_case(verify.SAMPLE_BLOCKS)
    assert len(compare(is_full=False)) == verify.SAMPLE_BLOCKS


def test_damaged_block_is_looked_at_twice_and_named(make_case, record):
    aws, compare = make_case()
    aws.snapshots[SNAPSHOT].blocks[4] = b"x"
    with pytest.raises(verify.MismatchError, match=f"block 4 of snapshot {SNAPSHOT} is not what was sent"):
        compare()
    assert [parameters["BlockIndex"] for parameters in aws.called("GetSnapshotBlock")].count(4) == 2
    assert record.lines == [f"Looking once more: block 4 of snapshot {SNAPSHOT} is not what was sent."]


def test_sampled_block_that_differs_is_in_the_second_sample_too(make_case):
    aws, compare = make_case(500)
    aws.snapshots[SNAPSHOT].blocks[0] = b"x"
    with pytest.raises(verify.MismatchError, match="block 0"):
        compare(is_full=False)


def short(answer):
    return answer | {"BlockData": io.BytesIO(answer["BlockData"].read()[:-3])}


def changed(answer):
    return answer | {"BlockData": io.BytesIO(b"x" * BLOCK)}


def headless(answer):
    return {"BlockData": io.BytesIO(b"")}


NOT_WHOLE = {"short": short, "other bytes": changed, "no headers": headless}


@pytest.mark.parametrize("fault", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_block_that_did_not_come_whole_is_read_again(make_case, fault):
    aws, compare = make_case(1)
    aws.faults["GetSnapshotBlock"] = [fault, fault]
    assert compare() == [0, 0, 0]


@pytest.mark.parametrize("fault", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_block_that_never_comes_whole_says_nothing_of_the_snapshot(make_case, fault):
    aws, compare = make_case(1)
    aws.faults["GetSnapshotBlock"] = [fault] * 9
    with pytest.raises(TransientError, match=f"block 0 of snapshot {SNAPSHOT} was not read whole"):
        compare()
    assert len(aws.called("GetSnapshotBlock")) >= 3


@pytest.mark.parametrize("is_full", [True, False])
def test_list_that_lacks_a_block_once_is_no_difference(make_case, record, is_full):
    aws, compare = make_case()
    aws.faults["ListSnapshotBlocks"] = [lambda answer: answer | {"Blocks": answer["Blocks"][:-1]}]
    compare(is_full=is_full)
    assert record.lines == [
        f"Looking once more: snapshot {SNAPSHOT} has 4 blocks, but 5 were sent.",
        "Verified: 5 of 5 blocks read back and equal.",
    ]


def test_block_too_many_is_found(make_case):
    aws, compare = make_case()
    aws.snapshots[SNAPSHOT].blocks[5] = b"x"
    with pytest.raises(verify.MismatchError, match="a block 5 that was not sent"):
        compare(is_full=False)


@pytest.mark.parametrize("is_full", [True, False])
def test_block_too_few_is_found(make_case, is_full):
    aws, compare = make_case()
    del aws.snapshots[SNAPSHOT].blocks[4]
    with pytest.raises(verify.MismatchError, match="has 4 blocks, but 5 were sent"):
        compare(is_full=is_full)


def test_snapshot_that_is_not_known_everywhere_yet_is_tried_again(make_case):
    aws, compare = make_case()
    not_yet = Refusal("ValidationException", Reason="INVALID_SNAPSHOT_ID")
    aws.faults["ListSnapshotBlocks"] = [Refusal("ResourceNotFoundException"), not_yet]
    assert len(compare()) == 5


def test_snapshot_that_stays_unknown_is_an_error(make_case):
    aws, compare = make_case()
    aws.faults["ListSnapshotBlocks"] = [Refusal("ResourceNotFoundException")] * 99
    with pytest.raises(PlatformReplyError, match="ResourceNotFoundException"):
        compare()
    assert aws.now() >= visibility.UNSEEN_SECONDS


def test_block_is_read_again_when_the_connection_fails(make_case):
    aws, compare = make_case(1)
    aws.faults["GetSnapshotBlock"] = [hang_up(), hang_up()]
    assert compare() == [0, 0, 0]


def test_block_that_cannot_be_read_is_an_error(make_case):
    aws, compare = make_case(1)
    aws.faults["GetSnapshotBlock"] = [hang_up()] * 9
    with pytest.raises(NetworkError):
        compare()


def test_list_without_a_block_size_is_asked_for_again(make_case):
    aws, compare = make_case()
    aws.faults["ListSnapshotBlocks"] = [lambda answer: {"Blocks": answer["Blocks"]}]
    assert len(compare()) == 5


def test_other_block_size_is_an_error(make_case):
    aws, compare = make_case()
    aws.faults["ListSnapshotBlocks"] = [lambda answer: answer | {"BlockSize": 512}] * 99
    with pytest.raises(PlatformReplyError, match="has blocks of 512 bytes"):
        compare()


def test_stop_ends_it(make_case):
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        make_case()[1](cancel=cancel)


@pytest.mark.parametrize("operation", ["ListSnapshotBlocks", "GetSnapshotBlock"])
def test_lack_of_rights_is_an_error_only_if_it_was_asked_for(make_case, record, tmp_path, operation):
    aws, _compare = make_case()
    digests = Digests(aws.snapshots[SNAPSHOT].blocks)

    def run(asked):
        aws.faults[operation] = [Refusal("AccessDeniedException")] * 9
        context = make_context(aws, make_request(tmp_path), record)
        verify.run(context, SNAPSHOT, digests, asked=asked)

    run(None)
    (line,) = record.lines
    assert line.startswith(f"Not verified: the role may not call ebs:{operation}")
    for asked in ("sample", "full"):
        with pytest.raises(DeniedError):
            run(asked)


def test_block_is_asked_for_by_the_token_of_the_list(make_case):
    aws, compare = make_case(1)
    compare()
    assert aws.called("ListSnapshotBlocks") == [{"SnapshotId": SNAPSHOT, "MaxResults": 10000}]
    assert aws.called("GetSnapshotBlock") == [{"SnapshotId": SNAPSHOT, "BlockIndex": 0, "BlockToken": "t0"}]
