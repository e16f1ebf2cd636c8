"""What is done after an upload, in an EC2 of several regions."""

import datetime
import re
import signal
import threading

import pytest
from fakes.aws_sdk import Refusal, hang_up, lose
from fakes.ec2_cloud import Ec2Cloud
from fakes.ec2_upload import make_context, make_request, undone

from clouduploader.errors import StoppedError
from clouduploader.platforms.ec2 import image_spec, region_copy, replicate
from clouduploader.platforms.ec2 import labels as our_tags
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import CloudObject, ObjectCreated, ObjectRemoved, PhaseStarted, Shortfall, visibility
from clouduploader.plugin.testing import FakeClock, MemoryJournal
from clouduploader.util.cancel import Cancel

HOME = "eu-west-1"
KEY = MemoryJournal.key
TAGS = {our_tags.KEY: KEY, our_tags.CONTENT: "c0ffee:1024", "made by": "us"}
OTHER_UPLOADS = {**TAGS, our_tags.KEY: "f" * 32}
OTHERS = [f"xx-test-{number}" for number in range(1, 26)]


@pytest.fixture
def cloud():
    return Ec2Cloud()


@pytest.fixture
def journal(record, tmp_path):
    """A journal that is told what the reporter is told, as the runner does it."""
    record.journal = MemoryJournal(tmp_path)
    return record.journal


class HookedClock(FakeClock):
    """A clock in which a sleep takes no time, and calls a function."""

    def __init__(self, on_sleep):
        super().__init__()
        self._on_sleep = on_sleep

    def sleep(self, seconds):
        super().sleep(seconds)
        self._on_sleep(seconds)


@pytest.fixture
def run(cloud, journal, record, tmp_path):
    """A factory of runs for one image, which is made by the first of them."""

    def do(*, cancel=None, is_new=True, on_sleep=lambda _seconds: None, image_tags=TAGS, **targetdata):
        do.clock = HookedClock(on_sleep)
        if not cloud.images:
            cloud.add_image("my image", TAGS, is_encrypted=do.is_encrypted)
        (image_id,) = cloud.images
        request = make_request(tmp_path, journal=journal, **targetdata)
        context = make_context(cloud, request, record, cancel, do.clock, settings=Ec2Settings())
        distribution = replicate.Distribution(
            context,
            regions=targetdata.get("regions", []),
            attributes=image_spec.resolve_attributes(
                {"description": "words", **targetdata}, architecture="x86_64", boot_mode=None
            ),
            tags=image_tags,
            is_new=is_new,
        )
        image = CloudObject("image", image_id, HOME)
        result = undone(context.ctx, lambda: distribution.run([image]))()
        assert (result.id, result.objects[0], result.is_already_there) == (image_id, image, not is_new)
        return list(result.objects[1:]), list(result.shortfalls)

    do.is_encrypted = False
    return do


def created(record):
    return [event.object for event in record.events if isinstance(event, ObjectCreated)]


def removed(record):
    return [event.object for event in record.events if isinstance(event, ObjectRemoved)]


def test_nothing_asked_for_is_nothing_done(run, cloud):
    assert run() == ([], [])
    assert run(regions=[], share=[]) == ([], [])
    assert cloud.calls == []


def test_copies_are_made_in_all_regions(run, cloud, record):
    objects, shortfalls = run(regions=["eu-west-2", "us-east-1"])
    assert shortfalls == []
    assert [(thing.kind, thing.region) for thing in objects] == [
        ("image", "eu-west-2"),
        ("snapshot", "eu-west-2"),
        ("image", "us-east-1"),
        ("snapshot", "us-east-1"),
    ]
    assert sorted(created(record), key=str) == sorted(objects, key=str)
    assert PhaseStarted("copy") in record.events
    assert f"Copied to us-east-1: {objects[2].id}" in record.lines
    (asked,) = cloud.called("CopyImage", "us-east-1")
    (source,) = cloud.images
    assert (asked["SourceImageId"], asked["SourceRegion"]) == (source, HOME)
    assert (asked["Name"], asked["Description"]) == ("my image", "words")
    assert "Encrypted" not in asked
    assert our_tags.as_mapping(cloud.at("us-east-1").images[objects[2].id]["Tags"]) == TAGS
    assert cloud.at("us-east-1").snapshots[objects[3].id].tags == TAGS


def test_request_is_in_the_journal_before_it_is_made(run, cloud, journal):
    seen = []
    cloud.on_call = lambda _region, operation: operation == "CopyImage" and seen.append(journal.entries())
    run(regions=["eu-west-2"])
    (asked,) = cloud.called("CopyImage")
    expected = {"kind": "image", "region": "eu-west-2", "token": asked["ClientToken"], "tags": TAGS}
    ((entry,),) = seen
    assert entry == {"what": "asked", "time": entry["time"], **expected}
    assert re.fullmatch(r"[!-~]{1,64}", asked["ClientToken"])  # EC2 API, "Ensuring idempotency"
    assert [entry["what"] for entry in journal.entries()] == ["asked", "made", "made"]


def test_nothing_is_asked_for_that_can_not_be_written_down(run, cloud, journal):
    journal.is_full = True
    objects, shortfalls = run(regions=["eu-west-2"])
    assert objects == []
    assert [(item.subject, "No space left" in item.reason) for item in shortfalls] == [("eu-west-2", True)]
    assert cloud.called("CopyImage") == []


def test_kms_key_is_that_of_the_region(run, cloud):
    run(regions=["eu-west-2", "us-east-1"], kms_keys={"us-east-1": "alias/mine"})
    (plain,), (with_key,) = cloud.called("CopyImage", "eu-west-2"), cloud.called("CopyImage", "us-east-1")
    assert "Encrypted" not in plain
    assert (with_key["Encrypted"], with_key["KmsKeyId"]) == (True, "alias/mine")


def test_copy_of_an_encrypted_image_is_encrypted(run, cloud):
    run.is_encrypted = True
    run(regions=["eu-west-2"])
    (asked,) = cloud.called("CopyImage")
    assert asked["Encrypted"] is True
    assert "KmsKeyId" not in asked


def test_twenty_regions_are_served_at_once_and_no_more(run, cloud):
    """The first twenty wait for each other; whoever is served meanwhile would need one thread more."""
    together = threading.Barrier(20, timeout=30)
    first = {HOME, *OTHERS[:19]}
    threads = set()

    def on_call(region, operation):
        if threading.current_thread() is not threading.main_thread():
            threads.add(threading.current_thread().name)
        if region in first and operation == "ModifyImageAttribute":
            together.wait()

    cloud.on_call = on_call
    objects, shortfalls = run(regions=OTHERS, share=["123456789012"])
    assert shortfalls == []
    assert {thing.region for thing in objects} == set(OTHERS)
    assert len(threads) == 20


def test_failing_regions_do_not_lose_the_others(run, cloud, record):
    cloud.faults = {
        ("xx-test-1", "DescribeImages"): [Refusal("OptInRequired", "You are not subscribed to this service")],
        ("xx-test-2", "CopyImage"): [Refusal("UnauthorizedOperation", "not authorized to perform: ec2:CopyImage")],
        ("xx-test-3", "CopyImage"): [Refusal("SnapshotLimitExceeded", "Too many snapshots.")],
    }
    cloud.outcome = {"xx-test-4": "failed"}
    cloud.add_image("my image", {our_tags.KEY: KEY, our_tags.CONTENT: "other:1024"}, region="xx-test-5")
    objects, shortfalls = run(regions=OTHERS[:6])
    assert {thing.region for thing in objects} == {"xx-test-6"}
    assert [item.subject for item in shortfalls] == OTHERS[:5]
    words = ["not accept the credentials", "may not call ec2:CopyImage", "quota", "The key is disabled", "of that name"]
    for item, word in zip(shortfalls, words, strict=True):
        assert item.reason.startswith("not copied: ")
        assert word in item.reason
        assert "\n" not in item.reason
    assert cloud.left("xx-test-4") == []
    assert {thing.region for thing in removed(record)} == {"xx-test-4"}
    assert len(cloud.called("CopyImage", "xx-test-5")) == 0


def test_same_again_finishes_the_rest(run, cloud, record):
    cloud.faults = {("eu-west-2", "CopyImage"): [Refusal("SnapshotLimitExceeded")]}
    cloud.outcome = {"eu-west-3": "failed"}
    regions = ["us-east-1", "eu-west-2", "eu-west-3"]
    first, shortfalls = run(regions=regions)
    assert [item.subject for item in shortfalls] == ["eu-west-2", "eu-west-3"]
    cloud.outcome = {}
    objects, shortfalls = run(regions=regions)
    assert shortfalls == []
    assert [thing.region for thing in objects if thing.kind == "image"] == regions
    assert objects[:2] == first
    assert len(cloud.called("CopyImage", "us-east-1")) == 1
    tokens = [given["ClientToken"] for given in cloud.called("CopyImage", "eu-west-3")]
    assert len(set(tokens)) == 2
    assert created(record).count(first[0]) == 1


def test_copy_of_the_same_content_is_taken_whoever_made_it(run, cloud):
    there = cloud.add_image("my image", {**TAGS, our_tags.KEY: "f" * 32}, region="eu-west-2")
    objects, shortfalls = run(regions=["eu-west-2"])
    assert shortfalls == []
    assert objects[0] == CloudObject("image", there, "eu-west-2")
    assert cloud.called("CopyImage") == []


def test_copy_that_is_under_way_is_waited_for(run, cloud):
    there = cloud.add_image("my image", TAGS, region="eu-west-2", state="pending", looks=3)
    objects, shortfalls = run(regions=["eu-west-2"])
    assert (objects[0].id, shortfalls) == (there, [])
    assert cloud.called("CopyImage") == []


def test_failed_copy_of_an_earlier_try_is_replaced(run, cloud):
    dead = cloud.add_image("my image", TAGS, region="eu-west-2", state="failed")
    objects, shortfalls = run(regions=["eu-west-2"])
    assert shortfalls == []
    assert objects[0].id != dead
    assert len(cloud.left("eu-west-2")) == 2


def test_failed_image_of_somebody_else_is_left_alone(run, cloud):
    dead = cloud.add_image("my image", {}, region="eu-west-2", state="failed")
    assert run(regions=["eu-west-2"])[1] == []
    assert dead in cloud.left("eu-west-2")


def test_disabled_copy_is_neither_used_nor_removed(run, cloud):
    there = cloud.add_image("my image", TAGS, region="eu-west-2", state="disabled")
    _, shortfalls = run(regions=["eu-west-2"])
    assert [item.reason for item in shortfalls] == [f"not copied: the copy {there} is disabled: AWS gives no reason"]
    assert there in cloud.left("eu-west-2")


def test_lost_answer_is_asked_for_again_with_the_same_token(run, cloud, journal):
    cloud.faults = {("eu-west-2", "CopyImage"): [lose] * 99}
    cloud.looks_pending = 0
    objects, shortfalls = run(regions=["eu-west-2"])
    assert "can't be reached" in shortfalls[0].reason
    assert [entry["what"] for entry in journal.entries()] == ["asked"]
    ((image_id, hidden),) = cloud.at("eu-west-2").images.items()
    hidden["Name"] = "not to be seen yet"
    cloud.faults = {}
    objects, shortfalls = run(regions=["eu-west-2"], image_tags={**TAGS, our_tags.JOB: "43"})
    assert shortfalls == []
    assert objects[0].id == image_id
    first, second = cloud.called("CopyImage")
    assert first == second


def test_copy_that_is_not_there_at_once_is_waited_for(run, cloud):
    def on_call(_region, operation):
        if operation == "CopyImage":
            cloud.faults = {("eu-west-2", "DescribeImages"): [Refusal("InvalidAMIID.NotFound")]}

    cloud.on_call = on_call
    objects, shortfalls = run(regions=["eu-west-2"])
    assert (len(objects), shortfalls) == (2, [])
    assert cloud.faults == {("eu-west-2", "DescribeImages"): []}


def test_copy_that_is_never_there_is_told(run, cloud, journal):
    def on_call(region, operation):
        if (region, operation) == ("eu-west-2", "CopyImage"):
            cloud.faults = {("eu-west-2", "DescribeImages"): [Refusal("InvalidAMIID.NotFound")] * 999}

    cloud.on_call = on_call
    objects, shortfalls = run(regions=["eu-west-2"])
    assert "is gone" in shortfalls[0].reason
    assert run.clock.now >= visibility.UNSEEN_SECONDS
    assert objects == []


def test_copy_that_takes_too_long_is_left_for_the_next_try(run, cloud):
    cloud.looks_pending = 10**6
    objects, shortfalls = run(regions=["eu-west-2"])
    assert "not complete after 6 hours" in shortfalls[0].reason
    assert run.clock.now == pytest.approx(region_copy.COPY_SECONDS, rel=0.1)
    assert len(cloud.left("eu-west-2")) == 2
    cloud.looks[objects[0].id] = 0
    assert run(regions=["eu-west-2"])[1] == []
    assert len(cloud.called("CopyImage")) == 1


def test_network_that_fails_for_a_moment_does_not_lose_a_copy(run, cloud):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 1:
            cloud.faults = {("eu-west-2", "DescribeImages"): [Refusal("InternalError", "Oh.", status=500)]}

    assert run(regions=["eu-west-2"], on_sleep=sleep)[1] == []


def test_stop_removes_the_copies_that_this_run_made_and_no_other(run, cloud, record):
    cloud.looks_pending = 10**6
    kept = cloud.add_image("my image", TAGS, region="eu-west-3")
    adopted = cloud.add_image("my image", TAGS, region="us-east-2", state="pending", looks=10**6)
    cancel = Cancel()

    def sleep(_seconds):
        is_adopted = any("ImageIds" in given for given in cloud.called("DescribeImages", "us-east-2"))
        if is_adopted and len(cloud.called("CopyImage")) == 2:
            cancel.request(signal.SIGTERM)

    with pytest.raises(StoppedError):
        run(regions=["eu-west-2", "eu-west-3", "us-east-1", "us-east-2"], cancel=cancel, on_sleep=sleep)
    assert cloud.left("eu-west-2") == cloud.left("us-east-1") == cloud.left("us-east-2") == []
    assert kept in cloud.left("eu-west-3")
    assert len(cloud.left(HOME)) == 2
    assert {thing.region for thing in removed(record)} == {"eu-west-2", "us-east-1", "us-east-2"}
    assert CloudObject("image", adopted, "us-east-2") in removed(record)


def test_stop_leaves_the_copy_alone_that_another_upload_makes(run, cloud, record):
    theirs = cloud.add_image(
        "my image", TAGS | {our_tags.KEY: "f" * 32}, region="eu-west-2", state="pending", looks=10**6
    )
    cancel = Cancel()
    with pytest.raises(StoppedError):
        run(regions=["eu-west-2"], cancel=cancel, on_sleep=lambda _seconds: cancel.request(signal.SIGTERM))
    assert theirs in cloud.left("eu-west-2")
    assert removed(record) == []


def test_snapshot_of_an_earlier_success_outlives_a_failed_copy(run, cloud):
    kept = cloud.add_snapshot("eu-west-2", tags=TAGS, state="completed")  # its image was deregistered by the user
    cloud.outcome = {"eu-west-2": "failed"}
    _, shortfalls = run(regions=["eu-west-2"])
    assert len(shortfalls) == 1
    assert cloud.left("eu-west-2") == [kept]


def test_failed_copy_of_another_upload_is_told_and_left(run, cloud):
    theirs = cloud.add_image("my image", TAGS | {our_tags.KEY: "f" * 32}, region="eu-west-2", state="pending")
    cloud.outcome = {"eu-west-2": "failed"}
    _, shortfalls = run(regions=["eu-west-2"])
    assert "is failed" in shortfalls[0].reason
    assert theirs in cloud.left("eu-west-2")


@pytest.mark.parametrize("state", ["available", "pending"])
@pytest.mark.parametrize("is_source_encrypted", [False, True])
def test_open_copy_is_not_taken_for_one_that_is_to_be_encrypted(run, cloud, state, is_source_encrypted):
    run.is_encrypted = is_source_encrypted
    there = cloud.add_image("my image", TAGS, region="eu-west-2", state=state, looks=1)
    keys = {} if is_source_encrypted else {"kms_keys": {"eu-west-2": "alias/k"}}
    _, shortfalls = run(regions=["eu-west-2"], share=["123456789012"], **keys)
    (shortfall,) = [item for item in shortfalls if item.reason.startswith("not copied")]
    assert f"({there}): it is not encrypted, as this copy is to be" in shortfall.reason
    assert "eu-west-2" not in cloud.permissions
    assert there in cloud.left("eu-west-2")


@pytest.mark.parametrize(
    "error", [hang_up(), Refusal("InternalError"), Refusal("502", status=502), Refusal("IdempotentThing", retries=1)]
)
def test_stop_finds_copies_whose_answer_was_lost(run, cloud, error):
    cancel = Cancel()

    def fail(_answer):
        raise error

    cloud.faults = {("eu-west-2", "CopyImage"): [fail] * 99}
    cloud.looks_pending = 10**6

    def on_call(_region, operation):
        if operation == "CopyImage":
            cancel.request(signal.SIGTERM)

    cloud.on_call = on_call
    with pytest.raises(StoppedError):
        run(regions=["eu-west-2"], cancel=cancel)
    assert cloud.left("eu-west-2") == []


def test_copy_that_can_not_be_removed_is_said(run, cloud, record):
    cancel = Cancel()
    cloud.faults = {("eu-west-2", "DescribeSnapshots"): [Refusal("UnauthorizedOperation")] * 99}
    cloud.looks_pending = 10**6
    with pytest.raises(StoppedError):
        run(regions=["eu-west-2"], cancel=cancel, on_sleep=lambda _seconds: cancel.request(signal.SIGTERM))
    assert any(line.startswith("Left behind, perhaps: parts of a copy of ami-") for line in record.lines)


def test_stop_before_anything_asks_for_nothing(run, cloud):
    cancel = Cancel()
    cancel.request(signal.SIGINT)
    with pytest.raises(StoppedError):
        run(regions=["eu-west-2"], cancel=cancel)
    assert cloud.called("CopyImage") == []


def test_bug_leaves_no_copies(run, cloud):
    def sleep(_seconds):
        raise ZeroDivisionError

    cloud.looks_pending = 10**6
    with pytest.raises(ZeroDivisionError):
        run(regions=["eu-west-2"], on_sleep=sleep)
    assert cloud.left("eu-west-2") == []


ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
UNIT = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-11111111"


def test_image_and_copies_are_shared_and_deprecated(run, cloud, record):
    objects, shortfalls = run(
        regions=["eu-west-2"],
        share=["210987654321", ORGANIZATION, UNIT, "public", "210987654321"],
        deprecate_at="2027-01-31",
    )
    assert shortfalls == []
    given = [
        {"UserId": "210987654321"},
        {"OrganizationArn": ORGANIZATION},
        {"OrganizationalUnitArn": UNIT},
        {"Group": "all"},
    ]
    assert cloud.permissions == {HOME: given, "eu-west-2": given}
    assert list(cloud.grants.values()) == [[{"UserId": "210987654321"}]] * 2
    assert f"Shared in eu-west-2: {objects[1].id} with 210987654321" in record.lines
    moment = datetime.datetime(2027, 1, 31, tzinfo=datetime.UTC)
    assert cloud.deprecations == {HOME: moment, "eu-west-2": moment}
    assert f"Shared in eu-west-2: {objects[0].id} with public" in record.lines
    assert f"Deprecated in eu-west-2 from 2027-01-31T00:00Z: {objects[0].id}" in record.lines


@pytest.mark.parametrize(
    ("share", "wish", "expected"),
    [
        (["210987654321", "public"], True, [{"UserId": "210987654321"}, {"Group": "all"}]),
        (["210987654321", "public"], None, [{"UserId": "210987654321"}]),
        (["210987654321", "public"], False, []),
        ([ORGANIZATION], None, []),
    ],
)
def test_snapshots_are_shared_as_asked(run, cloud, share, wish, expected):
    assert run(share=share, share_snapshot=wish) == ([], [])
    assert [grant for grants in cloud.grants.values() for grant in grants] == expected


def test_snapshot_is_shared_with_many_accounts_in_several_calls(run, cloud):
    accounts = [f"{number:012}" for number in range(1, 1002)]
    assert run(share=accounts) == ([], [])
    assert [len(given["CreateVolumePermission"]["Add"]) for given in cloud.called("ModifySnapshotAttribute")] == [
        500, 500, 1,
    ]  # fmt: skip


@pytest.mark.parametrize("wish", [None, True])
def test_role_that_may_not_share_snapshots_fails_only_who_asked_for_it(run, cloud, record, wish):
    cloud.faults = {(HOME, "ModifySnapshotAttribute"): [Refusal("UnauthorizedOperation")]}
    _, shortfalls = run(share=["210987654321"], share_snapshot=wish)
    words = "the role may not call ec2:ModifySnapshotAttribute"
    assert [item.reason.startswith(f"snapshots not shared: {words}") for item in shortfalls] == ([True] if wish else [])
    assert any(words in line for line in record.lines) is not bool(wish)
    assert cloud.permissions[HOME] == [{"UserId": "210987654321"}]


def test_account_that_blocks_public_snapshots_is_told_with_what_to_do(run, cloud):
    cloud.faults = {(HOME, "ModifySnapshotAttribute"): [Refusal("OperationNotPermitted", "Block public access is on")]}
    (_, (shortfall,)) = run(share=["public"], share_snapshot=True)
    assert shortfall.reason.startswith("snapshots not shared: the account blocks public snapshots in eu-west-1")
    assert "disable-snapshot-block-public-access" in shortfall.reason


def test_image_under_a_key_of_aws_is_told_with_what_to_do(run, cloud):
    run.is_encrypted = True
    refused = Refusal("OperationNotPermitted", "No.")
    cloud.faults = {(HOME, operation): [refused] for operation in ("ModifyImageAttribute", "ModifySnapshotAttribute")}
    _, shortfalls = run(share=["210987654321"], share_snapshot=True)
    assert "a KMS key of AWS's own" in shortfalls[0].reason
    assert "Give kms_key_id" in shortfalls[0].reason


def test_too_many_copies_under_way_are_waited_for(run, cloud, record):
    refused = Refusal("ResourceLimitExceeded", "Too many snapshot copies in progress.")
    cloud.faults = {("eu-west-2", "CopyImage"): [refused] * 9999}

    def sleep(_seconds):
        if run.clock.now > 900:
            cloud.faults = {}

    objects, shortfalls = run(regions=["eu-west-2"], on_sleep=sleep)
    assert (len(objects), shortfalls) == (2, [])
    assert sum(line.startswith("Waiting to copy to eu-west-2: a quota of the account") for line in record.lines) == 1
    tokens = [given["ClientToken"] for given in cloud.called("CopyImage")]
    assert len(set(tokens)) == len(tokens) > 10


def test_too_many_copies_under_way_are_not_waited_for_for_ever(run, cloud, monkeypatch):
    monkeypatch.setattr(region_copy, "COPY_SECONDS", 3600.0)
    refused = Refusal("ResourceLimitExceeded", "Too many snapshot copies in progress.")
    cloud.faults = {("eu-west-2", "CopyImage"): [refused] * 9999}
    (_, (shortfall,)) = run(regions=["eu-west-2"])
    assert "Too many snapshot copies" in shortfall.reason
    assert region_copy.COPY_SECONDS <= run.clock.now < region_copy.COPY_SECONDS + 120


def test_stop_ends_the_wait_for_other_copies(run, cloud):
    refused = Refusal("ResourceLimitExceeded", "Too many snapshot copies in progress.")
    cloud.faults = {("eu-west-2", "CopyImage"): [refused] * 9999}
    cancel = Cancel()
    with pytest.raises(StoppedError):
        run(regions=["eu-west-2"], cancel=cancel, on_sleep=lambda _seconds: cancel.request(signal.SIGTERM))
    assert cloud.left("eu-west-2") == []


def test_image_of_an_earlier_upload_is_changed_to_what_is_asked_for(run, cloud, record):
    image_id = cloud.add_image("my image", OTHER_UPLOADS)
    image = cloud.images[image_id]
    del image["ImdsSupport"]
    asked = {"description": "other words", "tags": {"made by": "others", "new": "yes"}}
    assert run(is_new=False, **asked) == ([], [])
    assert (image["Description"], image["ImdsSupport"]) == ("other words", "v2.0")
    expected = TAGS | asked["tags"]
    assert our_tags.as_mapping(image["Tags"]) == expected  # with our key, by which the next try knows that all is done
    assert [snapshot.tags for snapshot in cloud.snapshots.values()] == [expected | {our_tags.KEY: "f" * 32}]
    assert [line for line in record.lines if line.startswith("Changed in")] == [
        f"Changed in {HOME}: {image_id}, description from 'words' to 'other words'",
        f"Changed in {HOME}: {image_id}, IMDS support from not set to v2.0",
        f"Changed in {HOME}: {image_id}, tags from made by=us, no new to made by=others, new=yes",
    ]
    cloud.calls.clear()
    assert run(is_new=False, **asked) == ([], [])
    assert [operation for _, operation, _ in cloud.calls] == ["DescribeImages"]


def test_image_of_this_very_upload_is_not_changed_whatever_ec2_leaves_out(run, cloud):
    run()
    (image,) = cloud.images.values()
    del image["ImdsSupport"], image["Description"]
    assert run(is_new=False) == ([], [])
    assert [operation for _, operation, _ in cloud.calls] == ["DescribeImages"]


def test_image_that_can_not_be_given_our_key_is_changed_all_the_same(run, cloud):
    image_id = cloud.add_image("my image", OTHER_UPLOADS)
    cloud.faults = {(HOME, "CreateTags"): [Refusal("UnauthorizedOperation")]}
    assert run(is_new=False, description="other words") == ([], [])
    assert cloud.images[image_id]["Description"] == "other words"


def test_change_that_is_refused_is_a_shortfall(run, cloud):
    image_id = cloud.add_image("my image", OTHER_UPLOADS)
    cloud.faults = {(HOME, "ModifyImageAttribute"): [Refusal("UnauthorizedOperation")]}
    (_, (shortfall,)) = run(is_new=False, description="other words")
    assert shortfall.reason.startswith(
        "not changed, description from 'words' to 'other words': the role may not call ec2:ModifyImageAttribute"
    )
    assert our_tags.as_mapping(cloud.images[image_id]["Tags"]) == OTHER_UPLOADS


def test_copies_have_the_new_description_and_tags_of_the_user(run, cloud):
    run(is_new=False, regions=["eu-west-2"], description="other words", tags={"new": "yes"})
    (asked,) = cloud.called("CopyImage")
    assert asked["Description"] == "other words"
    assert {"Key": "new", "Value": "yes"} in asked["TagSpecifications"][0]["Tags"]


def test_copies_are_given_no_tags_of_aws(run, cloud):
    run(regions=["eu-west-2"], image_tags={**TAGS, "aws:created-by": "AWS"})
    (asked,) = cloud.called("CopyImage")
    assert our_tags.as_mapping(asked["TagSpecifications"][0]["Tags"]) == TAGS


def test_copy_of_an_earlier_upload_is_changed_too(run, cloud, record):
    copy_id = cloud.add_image("my image", OTHER_UPLOADS, region="eu-west-2")
    run(regions=["eu-west-2"], description="other words", is_new=False)
    assert cloud.at("eu-west-2").images[copy_id]["Description"] == "other words"
    assert f"Already there in eu-west-2: {copy_id}" in record.lines


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"EnaSupport": False}, "its ENA support is off, that of this one on"),
        ({"BootMode": "uefi"}, "its boot mode is uefi, that of this one not set"),
        ({"SriovNetSupport": None}, "its SR-IOV support is not set, that of this one simple"),
        ({"TpmSupport": "v2.0"}, "its TPM support is v2.0, that of this one not set"),
    ],
)
def test_copy_that_is_another_is_told_with_both_values(run, cloud, theirs, words):
    copy_id = cloud.add_image("my image", TAGS, region="eu-west-2")
    cloud.at("eu-west-2").images[copy_id] |= theirs
    (_, (shortfall,)) = run(regions=["eu-west-2"])
    assert shortfall.subject == "eu-west-2"
    assert words in shortfall.reason
    assert cloud.called("CopyImage") == []


def test_sharing_alone_has_no_phase_of_copies(run, cloud, record):
    assert run(share=["210987654321"]) == ([], [])
    assert cloud.permissions == {HOME: [{"UserId": "210987654321"}]}
    assert not any(isinstance(event, PhaseStarted) for event in record.events)


def test_what_can_not_be_shared_or_deprecated_is_told_by_region(run, cloud):
    cloud.faults = {
        (HOME, "ModifyImageAttribute"): [Refusal("InvalidAMIAttributeItemValue", "Invalid attribute item value.")],
        ("eu-west-2", "EnableImageDeprecation"): [Refusal("UnauthorizedOperation")],
    }
    objects, shortfalls = run(regions=["eu-west-2"], share=["210987654321", "public"], deprecate_at="2027-01-31T10:00Z")
    assert len(objects) == 2
    assert [item.subject for item in shortfalls] == [HOME, "eu-west-2"]
    assert shortfalls[0].reason.startswith("not shared: AWS refused: Invalid attribute item value (")
    assert shortfalls[1].reason.startswith("not deprecated: the role may not call ec2:EnableImageDeprecation")
    assert cloud.permissions[HOME] == [{"Group": "all"}]
    assert len(cloud.permissions["eu-west-2"]) == 2
    assert run(regions=["eu-west-2"], share=["210987654321"], deprecate_at="2027-01-31T10:00Z")[1] == []


def test_account_that_blocks_public_images_is_told_with_what_to_do(run, cloud):
    cloud.faults = {(HOME, "ModifyImageAttribute"): [Refusal("OperationNotPermitted", "You can't publicly share this")]}
    (_, (shortfall,)) = run(share=["public"])
    assert shortfall == Shortfall(
        HOME,
        "not made public: the account blocks public images in eu-west-1. "
        "Allow them with `aws ec2 disable-image-block-public-access`.",
    )


def test_other_refusals_of_that_code_are_told_in_amazons_words(run, cloud):
    cloud.faults = {(HOME, "ModifyImageAttribute"): [Refusal("OperationNotPermitted", "The key is AWS's own.")]}
    (_, (shortfall,)) = run(share=["210987654321"])
    assert shortfall.reason.startswith("not shared: AWS refused: The key is AWS's own (")


def test_copy_that_became_encrypted_is_not_made_public(run, cloud, record):
    cloud.encrypting = {"eu-west-2"}
    (_, (shortfall,)) = run(regions=["eu-west-2"], share=["public", "210987654321"])
    assert shortfall == Shortfall("eu-west-2", "not made public: an encrypted image can't be public")
    assert cloud.permissions[HOME][-1] == {"Group": "all"}
    assert sum("is encrypted" in line for line in record.lines) == 1


def test_region_without_a_copy_shares_nothing(run, cloud):
    cloud.faults = {("eu-west-2", "CopyImage"): [Refusal("SnapshotLimitExceeded")]}
    _, shortfalls = run(regions=["eu-west-2"], share=["210987654321"])
    assert [item.subject for item in shortfalls] == ["eu-west-2"]
    assert "eu-west-2" not in cloud.permissions


def test_image_that_can_not_be_looked_at_is_a_shortfall_everywhere(run, cloud):
    cloud.faults = {(HOME, "DescribeImages"): [Refusal("UnauthorizedOperation")]}
    objects, shortfalls = run(regions=["eu-west-2"])
    assert objects == []
    assert [item.subject for item in shortfalls] == [HOME, "eu-west-2"]
    assert all(item.reason.startswith("nothing was done: the role may not") for item in shortfalls)
