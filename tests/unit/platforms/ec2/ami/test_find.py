import pytest
from fakes.direct_aws import REGION, FakeAws, FakeJournal, make_request, upload_context

from clouduploader.errors import PlatformReplyError
from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.ami import find
from clouduploader.plugin import visibility

SNAPSHOT = "snap-00000000000000001"
IMAGE = {
    "ImageId": "ami-1",
    "Name": "my image",
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": SNAPSHOT}},
        {"VirtualName": "ephemeral0"},
    ],
}


@pytest.fixture
def aws():
    """An account with one image."""
    found = FakeAws()
    found.images["ami-1"] = dict(IMAGE)
    return found


def test_image_is_found_by_its_very_name(aws):
    found = find.named(aws.ec2, "my image", REGION)
    assert [(thing.kind, thing.id) for thing in find.objects(found, REGION)] == [
        ("image", "ami-1"),
        ("snapshot", SNAPSHOT),
    ]
    assert find.named(aws.ec2, "my", REGION) is None
    aws.images["ami-1"]["Name"] = "my IMAGE"
    aws.faults["describe_images"] = [lambda _answer: {"Images": list(aws.images.values())}]
    assert find.named(aws.ec2, "my image", REGION) is None


def test_name_is_free_unless_an_image_has_it(aws):
    find.check_name(aws.ec2, "another image", REGION)
    with pytest.raises(PlatformReplyError, match=r"image of that name already \(ami-1\)"):
        find.check_name(aws.ec2, "my image", REGION)


@pytest.mark.parametrize(
    ("entries", "waited"),
    [
        ([], False),
        ([("asked", "image", REGION)], True),
        ([("made", "image", REGION)], True),
        ([("asked", "image", REGION), ("refused", "image", REGION)], False),
        ([("made", "image", REGION), ("removed", "image", REGION)], False),
        ([("asked", "image", "eu-west-2"), ("asked", "snapshot", REGION)], False),
    ],
)
@pytest.mark.parametrize("age", [0, 60, 500])
def test_look_by_name_waits_for_what_an_earlier_try_may_have_made(tmp_path, record, entries, waited, age):
    journal = FakeJournal(tmp_path / "journal")
    for what, kind, region in entries:
        journal.write(what, kind=kind, region=region)
    journal.age(age)
    ctx = upload_context(make_request(tmp_path, journal=journal), record)
    assert find.named_by_now(ctx, FakeAws().ec2) is None
    assert ctx.clock.now == pytest.approx(max(0, visibility.UNSEEN_SECONDS - age) if waited else 0, abs=5)


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ({labels.CONTENT: "1"}, {labels.CONTENT: "1"}, True),
        ({labels.CONTENT: "1", labels.KEY: "a"}, {labels.CONTENT: "2", labels.KEY: "a"}, False),
        ({labels.SHA256: "1", labels.CONTENT: "1"}, {labels.SHA256: "1", labels.KEY: "a"}, True),
        ({labels.SHA256: "2", labels.KEY: "a"}, {labels.SHA256: "1", labels.KEY: "a"}, False),
        ({labels.KEY: "a"}, {labels.KEY: "a", labels.SHA256: "1"}, True),
        ({}, {labels.KEY: "a"}, False),
        ({}, {}, False),
    ],
)
def test_images_are_the_same_by_content_first(found, wanted, expected):
    assert find.is_same(found, wanted) is expected
