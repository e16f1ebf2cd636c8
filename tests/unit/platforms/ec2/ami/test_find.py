import pytest
from fakes.direct_aws import REGION, FakeAws, FakeJournal, make_context, make_request

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


@pytest.fixture
def named(aws, tmp_path, record):
    """A function that looks for a name in that account."""

    def look(name, look=find.named):
        context = make_context(aws, make_request(tmp_path, ami_name=name), record)
        return look(context.ctx, context.account)

    return look


def test_image_is_found_by_its_very_name(aws, named):
    found = named("my image")
    assert [(thing.kind, thing.id) for thing in find.objects(found, REGION)] == [
        ("image", "ami-1"),
        ("snapshot", SNAPSHOT),
    ]
    assert named("my") is None
    aws.images["ami-1"]["Name"] = "my IMAGE"
    aws.faults["describe_images"] = [lambda _answer: {"Images": list(aws.images.values())}]
    assert named("my image") is None


def test_name_is_free_unless_an_image_has_it(named):
    named("another image", find.check_name)
    with pytest.raises(PlatformReplyError, match=r"image of that name already \(ami-1\)"):
        named("my image", find.check_name)


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
    context = make_context(FakeAws(), make_request(tmp_path, journal=journal), record)
    assert find.named_by_now(context) is None
    assert context.ctx.clock.now == pytest.approx(max(0, visibility.UNSEEN_SECONDS - age) if waited else 0, abs=5)


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
