"""An upload through the EBS direct APIs, in an account that keeps Amazon's rules."""

import contextlib
import dataclasses
import hashlib
import signal
import types

import pytest
from fakes.aws_sdk import Refusal, hang_up, lose
from fakes.ec2_cloud import BLOCK, REGION, Ec2Cloud
from fakes.ec2_upload import GIB, make_context, make_facts, make_request, undone

from clouduploader.errors import (
    DeniedError,
    ImageError,
    LocalIOError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.ebs import snapshot, upload, verify
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    PhaseStarted,
    visibility,
)
from clouduploader.plugin.testing import FakeClock, MemoryBlocks, MemoryJournal
from clouduploader.util.cancel import Cancel

KEY = MemoryJournal.key
RAW = b"boot" + bytes(BLOCK) + bytes(BLOCK - 4) + b"end"  # data, zeros, and a last block of three bytes


@pytest.fixture
def aws():
    return Ec2Cloud()


@pytest.fixture
def make_upload(aws, tmp_path, record):
    """A factory of a try; all tries of a test share journal and account, and `made` is told to the journal."""
    record.journal = journal = MemoryJournal(tmp_path / "journal")
    clock = FakeClock()

    def make(raw=RAW, *, open_blocks=None, cancel=None, facts=None, file_digest="free", **targetdata):
        request = make_request(tmp_path, raw=raw, facts=facts, journal=journal, **targetdata)
        if open_blocks:
            request = dataclasses.replace(request, open_blocks=open_blocks)
        settings = Ec2Settings(connections=1, blocks_per_second=100_000, file_digest=file_digest)
        context = make_context(aws, request, record, cancel, clock, settings=settings)
        return types.SimpleNamespace(run=undone(context.ctx, upload.EbsUpload(context).run))

    make.journal = journal
    return make


def phases(record):
    return [event.phase for event in record.events if isinstance(event, PhaseStarted)]


def test_upload_makes_an_ami_that_is_the_image(aws, make_upload, record):
    result = make_upload(tags={"team": "blue"}).run()
    (snapshot_id,) = aws.snapshots
    assert aws.snapshots[snapshot_id].blocks == {i: RAW[i * BLOCK :][:BLOCK].ljust(BLOCK, b"\0") for i in range(3)}
    image = aws.images[result.id]
    assert result.objects == (CloudObject("image", result.id, REGION), CloudObject("snapshot", snapshot_id, REGION))
    assert record.existing == set(result.objects)
    assert (image["Architecture"], image["BootMode"], image["EnaSupport"]) == ("x86_64", "uefi-preferred", True)
    assert phases(record) == [
        "authenticate",
        "check image",
        "start snapshot",
        "upload",
        "seal",
        "verify",
        "register",
    ]
    assert f"Created image: {result.id}" in record.lines


def test_upload_tags_snapshot_and_image_with_where_it_came_from(aws, make_upload):
    result = make_upload(tags={"team": "blue", "long": "x" * 256}).run()
    found = labels.as_mapping(aws.images[result.id]["Tags"])
    (started,) = aws.called("StartSnapshot")
    assert labels.as_mapping(started["Tags"])[labels.KEY] == KEY
    started_tag = found.pop(labels.STARTED)
    assert found.pop(labels.CONTENT).endswith(f":{len(RAW)}")
    assert found == {
        "team": "blue",
        "long": "x" * 256,
        labels.KEY: KEY,
        labels.JOB: "42",
        "clouduploader:filename": "a.raw.zst",
        "clouduploader:version": found["clouduploader:version"],
        labels.SHA256: hashlib.sha256(RAW).hexdigest(),
        "clouduploader:project": "home:tom",
        "clouduploader:package": "image",
        "clouduploader:repository": "images",
        "clouduploader:arch": "x86_64",
    }
    (of_snapshot,) = aws.snapshots.values()
    assert of_snapshot.tags.items() >= {**found, labels.STARTED: started_tag}.items()


@pytest.mark.parametrize("file_digest", ["free", "always"])
def test_file_that_is_not_read_in_order_is_digested_if_that_is_wanted(
    aws, make_upload, monkeypatch, tmp_path, file_digest
):
    monkeypatch.setattr(MemoryBlocks, "can_reread", True)
    monkeypatch.setattr(MemoryBlocks, "stats", without_digest(MemoryBlocks.stats))
    (tmp_path / "42.file").write_bytes(b"qcow2")
    result = make_upload(file_digest=file_digest).run()
    (of_snapshot,) = aws.snapshots.values()
    expected = hashlib.sha256(b"qcow2").hexdigest() if file_digest == "always" else None
    assert labels.as_mapping(aws.images[result.id]["Tags"]).get(labels.SHA256) == expected
    assert of_snapshot.tags.get(labels.SHA256) == expected


def without_digest(stats):
    return lambda source: dataclasses.replace(stats(source), file_sha256=None)


def test_upload_tells_bytes_up_to_the_size(make_upload, record):
    make_upload().run()
    moved = [event for event in record.events[: record.events.index(PhaseStarted("seal"))] if type(event) is BytesMoved]
    assert moved[-1] == BytesMoved(len(RAW), len(RAW))
    assert [event.done_bytes for event in moved] == sorted(event.done_bytes for event in moved)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"encrypted": True}, {"Encrypted": True}),
        ({"kms_key_id": "alias-1"}, {"Encrypted": True, "KmsKeyArn": f"arn:aws:kms:{REGION}:123456789012:key/alias-1"}),
    ],
)
def test_snapshot_is_encrypted_as_asked(aws, make_upload, given, expected):
    make_upload(**given).run()
    (started,) = aws.called("StartSnapshot")
    assert {name: started[name] for name in ("Encrypted", "KmsKeyArn") if name in started} == expected


@pytest.mark.parametrize(("size_bytes", "gib"), [(1, 1), (GIB, 1), (GIB + 1, 2)])
def test_volume_is_as_large_as_the_image_and_a_whole_number_of_gib(aws, make_upload, size_bytes, gib):
    make_upload(facts=make_facts(size_bytes=size_bytes)).run()
    (started,) = aws.called("StartSnapshot")
    assert started["VolumeSize"] == gib


def test_denied_start_is_told_apart_and_leaves_nothing(aws, make_upload):
    aws.faults["StartSnapshot"] = [Refusal("AccessDeniedException")]
    with pytest.raises(snapshot.StartDeniedError, match="may not call ebs:StartSnapshot"):
        make_upload().run()
    assert aws.snapshots == {}
    assert [entry["what"] for entry in make_upload.journal.entries()] == ["asked", "refused", "discarded"]


@pytest.mark.parametrize("what", ["started", "sealing"])
def test_journal_that_can_not_be_written_any_more_leaves_nothing(aws, make_upload, record, what):
    write = make_upload.journal.write

    def fail(entry, **values):
        if entry == what:
            raise LocalIOError("the journal can't be written: no space")
        write(entry, **values)

    make_upload.journal.write = fail
    with pytest.raises(LocalIOError):
        make_upload().run()
    assert (aws.snapshots, record.existing) == ({}, set())


def test_try_after_a_crash_with_a_snapshot_that_was_told_and_not_noted_goes_on_with_it(aws, make_upload):
    write = make_upload.journal.write

    def die(entry, **values):
        if entry == "started":
            die_after(aws)(None)
        write(entry, **values)

    make_upload.journal.write = die
    crash(aws, make_upload())
    make_upload.journal.write = write
    result = make_upload().run()
    assert [thing.id for thing in result.objects[1:]] == list(aws.snapshots)


NO = Refusal("ValidationException", Reason="INVALID_BLOCK")


# A name that is taken


def test_same_upload_again_gives_the_same_image_without_a_change(aws, make_upload, record):
    first = make_upload().run()
    calls = len(aws.called("StartSnapshot"))
    again = make_upload().run()
    assert again.id == first.id
    assert set(again.objects) == set(first.objects)
    assert len(aws.called("StartSnapshot")) == calls
    assert again.is_already_there
    assert not first.is_already_there
    assert f"{first.id} is already there: it has that name and this very content." in record.lines
    assert aws.called("ModifyImageAttribute") == []
    assert len(aws.called("CreateTags")) == 1


def test_same_digest_of_the_file_needs_no_reading(aws, make_upload, record):
    digest = hashlib.sha256(RAW).hexdigest()
    first = make_upload().run()
    again = make_upload(raw=b"not read", sha256=digest.upper()).run()
    assert again.id == first.id


def test_other_content_of_that_name_is_refused_with_both_digests(aws, make_upload):
    theirs = labels.as_mapping(aws.images[make_upload().run().id]["Tags"])[labels.CONTENT]
    with pytest.raises(PlatformReplyError, match="there is an image of that name already") as caught:
        make_upload(raw=b"another").run()
    assert theirs in caught.value.message
    assert ":7" in caught.value.message.rpartition("this one ")[2]
    assert len(aws.images) == 1


def test_image_without_our_tags_of_that_name_is_refused(aws, make_upload):
    aws.images["ami-1"] = {"ImageId": "ami-1", "Name": "my image", "State": "available", "Tags": []}
    with pytest.raises(PlatformReplyError, match=r"already \(ami-1\): without a tag clouduploader:content"):
        make_upload().run()
    assert aws.snapshots == {}


def test_image_of_that_name_that_is_disabled_is_refused_before_anything_is_sent(aws, make_upload):
    image_id = make_upload().run().id
    aws.images[image_id]["State"] = "disabled"
    calls = len(aws.called("StartSnapshot"))
    with pytest.raises(
        PlatformReplyError, match=rf"already \({image_id}\): it can't be used, for its state is disabled"
    ):
        make_upload().run()
    assert len(aws.called("StartSnapshot")) == calls


def give_to_another_upload(aws, image_id):
    """Let an image be of other target data, of which another key is made."""
    others = [tag for tag in aws.images[image_id]["Tags"] if tag["Key"] != labels.KEY]
    aws.images[image_id]["Tags"] = [*others, {"Key": labels.KEY, "Value": "f" * 32}]


def test_image_of_this_very_upload_is_taken_whatever_ec2_leaves_out(aws, make_upload):
    image_id = make_upload().run().id
    for name in ("EnaSupport", "SriovNetSupport", "BootMode", "ImdsSupport", "RootDeviceName"):
        del aws.images[image_id][name]
    assert make_upload().run().id == image_id


KMS_ARN = f"arn:aws:kms:{REGION}:123456789012:key/k"


@pytest.mark.parametrize(
    ("theirs", "targetdata", "words"),
    [
        ({}, {"encrypted": True}, "it is not encrypted, as this one is to be"),
        ({}, {"kms_key_id": "k"}, "it is not encrypted, as this one is to be"),
        ({"Encrypted": True}, {"kms_key_id": "k"}, f"it is encrypted with another, this one is to be with {KMS_ARN}"),
        ({}, {"architecture": "arm64", "force": True}, "its architecture is x86_64, that of this one arm64"),
        ({}, {"boot_mode": "uefi"}, "its boot mode is uefi-preferred, that of this one uefi"),
        ({}, {"tpm_support": "v2.0"}, "its TPM support is not set, that of this one v2.0"),
        ({}, {"ena_support": False}, "its ENA support is on, that of this one off"),
        ({}, {"sriov_support": False}, "its SR-IOV support is simple, that of this one not set"),
        (
            {},
            {"imds_support": "optional"},
            "its IMDS support is v2.0, which can't be taken back, that of this one not set",
        ),
        ({}, {"root_volume_size": 20}, "its root volume has 1 GiB, that of this one 20"),
        ({"VolumeSize": 20}, {}, "its root volume has 20 GiB, that of this one 1"),
        ({}, {"uefi_data": "AAAA"}, "its UEFI data are not set, those of this one of SHA-256 709e80c8"),
        ({"Encrypted": True}, {"encrypted": False}, "it is encrypted, as this one is not to be"),
        ({}, {"tags": {f"t{n}": "" for n in range(47)}}, "with its own tags and those of this one it would have"),
    ],
)
def test_same_content_that_is_not_what_was_asked_for_is_refused(aws, make_upload, theirs, targetdata, words):
    image_id = make_upload().run().id
    give_to_another_upload(aws, image_id)
    ebs = aws.images[image_id]["BlockDeviceMappings"][0]["Ebs"]
    ebs.update(theirs)
    aws.snapshots[ebs["SnapshotId"]].key_arn = "another"
    with pytest.raises(PlatformReplyError, match="already") as caught:
        make_upload(**targetdata).run()
    assert words in caught.value.message
    assert len(aws.called("StartSnapshot")) == 1


def test_same_content_with_other_uefi_data_is_refused(aws, make_upload):
    image_id = make_upload(uefi_data="AAAA").run().id
    give_to_another_upload(aws, image_id)
    with pytest.raises(PlatformReplyError, match=r"its UEFI data are of SHA-256 709e80c8.*, those of this one not set"):
        make_upload().run()
    aws.images[image_id]["UefiData"] = "AA\nAA"
    assert make_upload(uefi_data="AAAA").run().is_already_there


def test_role_that_may_not_look_at_uefi_data_fails_only_who_gives_some(aws, make_upload, record):
    first = make_upload().run()
    give_to_another_upload(aws, first.id)
    denied = [Refusal("UnauthorizedOperation") for _ in range(2)]
    aws.faults["DescribeImageAttribute"] = denied
    assert make_upload().run().id == first.id
    assert any(line.startswith(f"Whether {first.id} has UEFI data can't be told") for line in record.lines)
    with pytest.raises(DeniedError, match="may not call ec2:DescribeImageAttribute"):
        make_upload(uefi_data="AAAA").run()


def test_same_content_is_changed_to_what_is_asked_for(aws, make_upload, record):
    first = make_upload(imds_support="optional", description="old", tags={"a": "1"}).run()
    give_to_another_upload(aws, first.id)
    again = make_upload(description="new", tags={"a": "2", "b": "3"}).run()
    assert (again.id, again.is_already_there, again.shortfalls) == (first.id, True, ())
    image = aws.images[first.id]
    assert (image["Description"], image["ImdsSupport"]) == ("new", "v2.0")
    found = labels.as_mapping(image["Tags"])
    assert (found["a"], found["b"]) == ("2", "3")
    (snapshot_id,) = aws.snapshots
    assert aws.snapshots[snapshot_id].tags["a"] == "2"


def test_size_of_an_image_whose_size_is_a_guess_is_known_by_its_content(aws, make_upload):
    first = make_upload().run()
    give_to_another_upload(aws, first.id)
    guess = make_facts(size_bytes=len(RAW), is_size_exact=False)
    digest = hashlib.sha256(RAW).hexdigest()
    assert make_upload(facts=guess, sha256=digest).run().id == first.id
    ebs = aws.images[first.id]["BlockDeviceMappings"][0]["Ebs"]
    ebs["VolumeSize"] = 9
    with pytest.raises(PlatformReplyError, match="its root volume has 9 GiB, that of this one 1"):
        make_upload(facts=guess, sha256=digest).run()


def test_what_fails_only_after_an_upload_is_refused_before_it(aws, make_upload):
    aws.image_block = "block-new-sharing"
    with pytest.raises(DeniedError, match="the account blocks public images"):
        make_upload(share=["public"]).run()
    assert aws.snapshots == {}


def test_same_image_encrypted_as_asked_for_is_the_result(aws, make_upload):
    image_id = make_upload().run().id
    ebs = aws.images[image_id]["BlockDeviceMappings"][0]["Ebs"]
    ebs["Encrypted"] = True
    aws.snapshots[ebs["SnapshotId"]].key_arn = KMS_ARN
    assert make_upload(kms_key_id="k").run().id == image_id


def test_same_image_that_is_not_available_yet_is_waited_for(aws, make_upload):
    image_id = make_upload().run().id

    def pending(answer):
        return {"Images": [{**image, "State": "pending"} for image in answer["Images"]]}

    aws.faults["DescribeImages"] = [pending, pending]
    assert make_upload().run().id == image_id
    assert aws.faults["DescribeImages"] == []


def test_wreck_of_an_earlier_try_gives_way(aws, make_upload, record):
    image_id = make_upload().run().id
    aws.images[image_id]["State"] = "failed"
    again = make_upload().run().id
    assert list(aws.images) == [again]
    assert again != image_id


# Failures


@pytest.mark.parametrize(
    ("operation", "code", "error"),
    [
        ("CompleteSnapshot", "ValidationException", PlatformReplyError),
        ("CompleteSnapshot", "AccessDeniedException", DeniedError),
        ("CreateTags", "UnauthorizedOperation", DeniedError),
        ("RegisterImage", "InvalidParameterValue", PlatformReplyError),
        ("RegisterImage", "UnauthorizedOperation", DeniedError),
    ],
)
def test_failure_leaves_nothing(aws, make_upload, record, operation, code, error):
    aws.faults[operation] = [Refusal(code)] * 9
    with pytest.raises(error, match=code):
        make_upload().run()
    assert (aws.snapshots, aws.images, record.existing) == ({}, {}, set())


def test_failure_leaves_the_snapshot_if_that_is_asked_for(aws, make_upload, record):
    aws.faults["RegisterImage"] = [Refusal("InvalidParameterValue")]
    with pytest.raises(PlatformReplyError):
        make_upload(keep="snapshot").run()
    (snapshot_id,) = aws.snapshots
    assert any(line.startswith(f"Kept: snapshot {snapshot_id}") for line in record.lines)
    last = make_upload.journal.entries()[-1]
    assert [last[name] for name in ("what", "kind", "id", "region")] == ["kept", "snapshot", snapshot_id, REGION]
    result = make_upload(keep="snapshot").run()
    assert [thing.id for thing in result.objects] == [result.id, snapshot_id]
    assert len(aws.called("StartSnapshot")) == 1


def test_snapshot_that_reads_back_differently_is_not_registered_and_not_kept(aws, make_upload):
    def damage(answer):
        next(iter(aws.snapshots.values())).blocks[2] = b"x" * BLOCK
        return answer

    aws.faults["CompleteSnapshot"] = [damage]
    with pytest.raises(verify.MismatchError, match="block 2"):
        make_upload(keep="snapshot").run()
    assert (aws.snapshots, aws.images) == ({}, {})


@pytest.mark.parametrize("phase", ["upload", "seal", "verify", "register", "clean up"])
def test_stop_leaves_nothing(aws, make_upload, record, phase):
    cancel = Cancel()

    def request_stop(event):
        if event == PhaseStarted(phase):
            cancel.request(signal.SIGTERM)

    record.on_event = request_stop
    if phase == "clean up":
        aws.faults["CreateTags"] = [Refusal("InvalidParameterValue")]
    with pytest.raises(StoppedError):
        make_upload(cancel=cancel).run()
    assert (aws.snapshots, aws.images, record.existing) == ({}, {}, set())


def test_stop_after_the_registration_undoes_it(aws, make_upload, record):
    cancel = Cancel()

    def request_stop(answer):
        cancel.request(signal.SIGTERM)
        return answer

    aws.faults["RegisterImage"] = [request_stop]
    with pytest.raises(StoppedError):
        make_upload(cancel=cancel).run()
    assert (aws.snapshots, aws.images, record.existing) == ({}, {}, set())


# Lost answers


def test_lost_answer_to_the_completion_is_recognised(aws, make_upload):
    aws.faults["CompleteSnapshot"] = [lose]
    assert make_upload().run().id in aws.images
    assert len(aws.called("CompleteSnapshot")) == 1


def test_lost_answer_to_the_registration_is_recognised(aws, make_upload):
    aws.faults["RegisterImage"] = [lose]
    result = make_upload().run()
    assert list(aws.images) == [result.id]


def test_registration_that_met_its_own_first_try_is_recognised(aws, make_upload):
    def lost_and_retried(_answer):
        raise Refusal("InvalidAMIName.Duplicate")

    aws.faults["RegisterImage"] = [lost_and_retried]
    assert [make_upload().run().id] == list(aws.images)


@pytest.mark.parametrize("hidden_seconds", [5, 100])
@pytest.mark.parametrize("fault", ["lost", "lost, and met by the SDK's second request"])
def test_image_that_shows_late_is_no_image_of_others(aws, make_upload, fault, hidden_seconds):
    def lost_and_retried(_answer):
        raise Refusal("InvalidAMIName.Duplicate")

    aws.hidden_until[f"ami-{1:017x}"] = hidden_seconds
    aws.faults["RegisterImage"] = [lose if fault == "lost" else lost_and_retried]
    assert [make_upload().run().id] == list(aws.images)


# What is finished is not undone for what another try may mend


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("CreateTags", Refusal("RequestLimitExceeded")),
        ("CreateTags", Refusal("InvalidSnapshot.NotFound")),
        ("CreateTags", hang_up()),
        ("RegisterImage", Refusal("RequestLimitExceeded")),
        ("RegisterImage", Refusal("InternalError")),
    ],
)
def test_call_that_fails_for_a_while_after_all_was_sent_is_made_again(aws, make_upload, operation, fault):
    aws.faults[operation] = [fault] * 9
    assert make_upload().run().id in aws.images
    assert aws.faults[operation] == []
    assert len(aws.snapshots) == 1


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("CompleteSnapshot", Refusal("InternalServerException")),
        ("ListSnapshotBlocks", hang_up()),
        ("GetSnapshotBlock", hang_up()),
        ("GetSnapshotBlock", lambda answer: answer | {"Checksum": "AAAA"}),
        ("CreateTags", Refusal("RequestLimitExceeded")),
        ("RegisterImage", hang_up()),
    ],
)
def test_call_that_goes_on_failing_does_not_cost_what_was_sent(aws, make_upload, record, operation, fault):
    aws.faults[operation] = [fault] * 999
    with pytest.raises(TransientError):
        make_upload().run()
    (snapshot_id,) = aws.snapshots
    assert any(line.startswith(f"Kept: snapshot {snapshot_id}") for line in record.lines)
    aws.faults.clear()
    result = make_upload().run()
    assert [thing.id for thing in result.objects] == [result.id, snapshot_id]
    assert puts(aws) == [0, 1, 2]


@pytest.mark.parametrize("keep", ["nothing", "snapshot"])
def test_stop_while_nobody_knows_of_the_image_removes_it_too(aws, make_upload, record, keep):
    cancel = Cancel()

    def lose_and_stop(_answer):
        cancel.request(signal.SIGTERM)
        raise hang_up()

    aws.faults["RegisterImage"] = [lose_and_stop]
    aws.faults["DescribeImages"] = [None, hang_up()]
    with pytest.raises(StoppedError):
        make_upload(cancel=cancel, keep=keep).run()
    assert aws.images == {}
    assert len(aws.snapshots) == len(record.existing) == (keep == "snapshot")


def test_undo_waits_for_what_does_not_show_yet(aws, make_upload, record):
    aws.hidden_until[f"snap-{1:017x}"] = 60
    aws.faults["DescribeImages"] = [None]
    aws.faults["PutSnapshotBlock"] = [NO]
    with pytest.raises(PlatformReplyError):
        make_upload().run()
    assert (aws.snapshots, record.existing) == ({}, set())


def test_undo_after_a_stop_waits_for_nothing(aws, make_upload, record):
    cancel = Cancel()
    snapshot_id = f"snap-{1:017x}"
    aws.hidden_until[snapshot_id] = 60

    def stop(_answer):
        cancel.request(signal.SIGTERM)
        raise NO

    aws.faults["PutSnapshotBlock"] = [stop]
    with pytest.raises(StoppedError):
        make_upload(cancel=cancel).run()
    assert aws.now() == 0
    assert record.existing == {CloudObject("snapshot", snapshot_id, REGION)}
    assert any(
        line.startswith(f"Left behind: snapshot {snapshot_id} in {REGION}: the cloud does not show it")
        for line in record.lines
    )


def test_undo_believes_at_last_that_a_thing_is_gone(aws, make_upload, record):
    def lose_all(_answer):
        aws.snapshots.clear()
        raise NO

    aws.faults["PutSnapshotBlock"] = [lose_all]
    with pytest.raises(PlatformReplyError):
        make_upload().run()
    assert aws.now() >= visibility.UNSEEN_SECONDS
    assert record.existing == set()


# Tries after a crash


class Crash(BaseException):
    """The end of the process."""


def die_after(aws):
    """As a fault: the call has its effect, and that is the last thing we live to see; nothing is removed."""

    def die(_answer):
        aws.is_dead = True
        raise Crash

    return die


def crash(aws, try_):
    """Run a try that ends with a crash; afterwards the account can be reached again."""
    with pytest.raises(Crash):
        try_.run()
    aws.is_dead = False


def crash_in_transfer(aws, make_upload):
    """Run a try that dies before AWS answers to the third block."""
    aws.faults["PutSnapshotBlock"] = [None, None, die_after(aws)]
    crash(aws, make_upload())


def puts(aws):
    return [parameters["BlockIndex"] for parameters in aws.called("PutSnapshotBlock")]


def test_try_after_a_crash_in_the_transfer_sends_only_what_is_missing(aws, make_upload, record):
    crash_in_transfer(aws, make_upload)
    result = make_upload().run()
    assert puts(aws) == [0, 1, 2, 2]
    assert len(aws.called("StartSnapshot")) == 1
    (snapshot_id,) = aws.snapshots
    assert any(line == f"Going on with snapshot {snapshot_id}, which has 2 blocks already." for line in record.lines)
    assert record.existing == set(result.objects)


def test_try_after_a_crash_before_the_answer_asks_for_the_same_snapshot_again(aws, make_upload):
    aws.faults["StartSnapshot"] = [die_after(aws)]
    crash(aws, make_upload())
    aws.hidden_until[next(iter(aws.snapshots))] = aws.now() + 100
    result = make_upload().run()
    first, second = aws.called("StartSnapshot")
    assert first == second
    assert [thing.id for thing in result.objects[1:]] == list(aws.snapshots)


@pytest.mark.parametrize("operation", ["CompleteSnapshot", "ListSnapshotBlocks", "CreateTags"])
def test_try_after_a_crash_behind_the_seal_goes_on_with_the_sealed_snapshot(aws, make_upload, operation):
    aws.faults[operation] = [die_after(aws)]
    crash(aws, make_upload())
    result = make_upload().run()
    assert puts(aws) == [0, 1, 2]
    assert [thing.id for thing in result.objects[1:]] == list(aws.snapshots)
    content = labels.as_mapping(aws.images[result.id]["Tags"])[labels.CONTENT]
    assert content.endswith(f":{len(RAW)}")


def test_try_after_a_crash_waits_for_a_completion_that_takes_long(aws, make_upload):
    aws.completion_seconds = 10 * snapshot.SETTLE_SECONDS
    aws.faults["CompleteSnapshot"] = [die_after(aws)]
    crash(aws, make_upload())
    result = make_upload().run()
    assert puts(aws) == [0, 1, 2]
    assert [thing.id for thing in result.objects[1:]] == list(aws.snapshots)


def test_try_after_a_crash_behind_the_registration_gives_that_image(aws, make_upload):
    aws.faults["RegisterImage"] = [die_after(aws)]
    crash(aws, make_upload())
    assert [make_upload().run().id] == list(aws.images)
    assert len(aws.called("RegisterImage")) == 1


@pytest.mark.parametrize("where", ["transfer", "CompleteSnapshot", "CreateTags"])
def test_try_after_a_crash_with_another_image_starts_anew(aws, make_upload, where):
    if where == "transfer":
        crash_in_transfer(aws, make_upload)
    else:
        aws.faults[where] = [die_after(aws)]
        crash(aws, make_upload())
    other = b"other" + RAW[5:]
    result = make_upload(raw=other).run()
    (left,) = aws.snapshots.values()
    assert left.blocks[0][:5] == b"other"
    assert [thing.id for thing in result.objects[1:]] == list(aws.snapshots)
    tokens = [call["ClientToken"] for call in aws.called("StartSnapshot")]
    assert len(set(tokens)) == 2


def test_try_after_a_crash_goes_on_with_a_snapshot_that_does_not_show_yet(aws, make_upload):
    crash_in_transfer(aws, make_upload)
    (snapshot_id,) = aws.snapshots
    aws.hidden_until[snapshot_id] = aws.now() + 100
    result = make_upload().run()
    assert result.objects[1].id == snapshot_id
    assert puts(aws) == [0, 1, 2, 2]


def test_try_after_a_crash_gives_an_image_that_does_not_show_yet(aws, make_upload):
    aws.faults["RegisterImage"] = [die_after(aws)]
    crash(aws, make_upload())
    (image_id,) = aws.images
    aws.hidden_until[image_id] = aws.now() + 100
    assert make_upload().run().id == image_id
    assert len(aws.called("RegisterImage")) == 1


@pytest.mark.parametrize("state", ["error", None])
def test_try_after_a_crash_without_the_snapshot_starts_anew(aws, make_upload, record, state):
    crash_in_transfer(aws, make_upload)
    (snapshot_id,) = aws.snapshots
    if state:
        aws.snapshots[snapshot_id].state = state
    else:
        del aws.snapshots[snapshot_id]
    result = make_upload().run()
    assert puts(aws) == [0, 1, 2, 0, 1, 2]
    assert result.objects[1].id != snapshot_id
    assert list(aws.snapshots) == [result.objects[1].id]
    said = "Starting anew: snapshot {} of an earlier try is lost, its state is error." if state else None
    assert (said or "Snapshot {} of an earlier try is gone.").format(snapshot_id) in record.lines


def test_try_with_other_needs_does_not_go_on_with_the_snapshot(aws, make_upload):
    crash_in_transfer(aws, make_upload)
    make_upload(encrypted=True).run()
    (left,) = aws.snapshots.values()
    assert left.is_encrypted is True


def test_lost_log_of_blocks_is_no_reason_to_believe_a_sealed_snapshot(aws, make_upload):
    aws.faults["CreateTags"] = [die_after(aws)]
    crash(aws, make_upload())
    for path in make_upload.journal.directory.iterdir():
        path.unlink()
    make_upload().run()
    assert puts(aws) == [0, 1, 2, 0, 1, 2]
    assert len(aws.snapshots) == 1


# An image that is not what it seemed to be


def test_image_that_turns_out_larger_is_sent_to_a_larger_snapshot(aws, make_upload, record):
    facts = make_facts(size_bytes=1, is_size_exact=False)
    result = make_upload(raw=_Sparse(GIB + BLOCK), facts=facts, verify="none").run()
    assert [call["VolumeSize"] for call in aws.called("StartSnapshot")] == [1, 2]
    assert result.objects[1].id == aws.called("PutSnapshotBlock")[-1]["SnapshotId"]
    assert len(aws.snapshots) == 1
    assert any("larger than it seemed" in line for line in record.lines)


def test_image_that_turns_out_to_end_before_its_partitions_is_not_sealed(aws, make_upload):
    facts = make_facts(size_bytes=BLOCK, minimum_bytes=len(RAW) + 1, is_size_exact=False)
    with pytest.raises(ImageError, match=f"reach to byte {len(RAW) + 1}, but the disk has {len(RAW)}"):
        make_upload(facts=facts).run()
    assert aws.called("CompleteSnapshot") == []
    assert aws.snapshots == {}


def test_image_that_keeps_changing_is_an_error_and_leaves_nothing(aws, make_upload):
    class Changing(MemoryBlocks):
        def next_into(self, buffer):
            self._next = min(self._next, 1)
            self._data = bytes([1 + self._data_blocks]) * len(self._data)
            return super().next_into(buffer)

    with pytest.raises(ImageError, match="changes while it is read: block 1"):
        make_upload(open_blocks=lambda *how: contextlib.nullcontext(Changing(RAW, *how))).run()
    assert aws.snapshots == {}
    assert len(aws.called("StartSnapshot")) == 3


class _Sparse:
    """Bytes of which only the length matters: all are zeros."""

    def __init__(self, size):
        self._size = size

    def __len__(self):
        return self._size

    def __getitem__(self, _slice):
        return b""
