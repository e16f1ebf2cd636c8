import pytest
from fakes.aws_sdk import Refusal, hang_up, lose
from fakes.ec2_cloud import REGION, Ec2Cloud
from fakes.ec2_upload import GIB, make_context, make_request

from clouduploader.errors import DeniedError, NetworkError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import ami, image_spec, labels
from clouduploader.platforms.ec2.image_spec import ImageSpec
from clouduploader.plugin import retry, visibility
from clouduploader.plugin.testing import FakeClock, MemoryJournal
from clouduploader.store import journal as journals
from clouduploader.util.cancel import Cancel

SNAPSHOT = "snap-00000000000000001"
IMAGE = {
    "ImageId": "ami-1",
    "Name": "my image",
    "State": "available",
    "Tags": [],
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": SNAPSHOT}},
        {"VirtualName": "ephemeral0"},
    ],
}


def parameters(architecture="x86_64", boot_mode=None, **targetdata):
    return ami.parameters(
        name="my image",
        wanted=ImageSpec(
            attributes=image_spec.resolve_attributes(targetdata, architecture=architecture, boot_mode=boot_mode),
            size_bytes=GIB,
            is_size_exact=True,
            minimum_bytes=0,
            copy_bytes=0,
            volume_gib=1,
        ),
        snapshot_id=SNAPSHOT,
        image_tags={"a": "b"},
    )


@pytest.fixture
def aws():
    found = Ec2Cloud()
    assert found.add_snapshot(state="completed") == SNAPSHOT
    return found


@pytest.fixture
def journal(tmp_path):
    return MemoryJournal(tmp_path / "journal")


@pytest.fixture
def clock(aws):
    """Seconds that only sleeping moves."""
    found = FakeClock()
    aws.now = found.monotonic
    return found


@pytest.fixture
def context(aws, tmp_path, record, journal, clock):
    """A factory of an upload's context."""
    return lambda cancel=None: make_context(aws, make_request(tmp_path, journal=journal), record, cancel, clock)


@pytest.fixture
def register_image(context):
    """Registers; `clock` tells how long that took."""
    return lambda asked, cancel=None: ami.register(context(cancel), asked)


def state(journal):
    """Whether the journal says that an image was asked for, and what came of it is not known."""
    return bool(journals.state_of(journal.entries()).asked)


def test_image_has_what_current_instances_need():
    assert parameters() == {
        "Name": "my image",
        "Description": "uploaded by clouduploader",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "SnapshotId": SNAPSHOT,
                    "VolumeSize": 1,
                    "VolumeType": "gp3",
                    "DeleteOnTermination": True,
                },
            }
        ],
        "EnaSupport": True,
        "ImdsSupport": "v2.0",
        "SriovNetSupport": "simple",
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"boot_mode": "uefi"}, {"BootMode": "uefi"}),
        ({"tpm_support": "2.0", "boot_mode": "uefi"}, {"TpmSupport": "v2.0", "BootMode": "uefi"}),
        ({"tpm_support": "2.0", "boot_mode": "uefi-preferred"}, {"TpmSupport": "v2.0", "BootMode": "uefi"}),
        ({"uefi_data": "AAAA", "boot_mode": "uefi-preferred"}, {"UefiData": "AAAA", "BootMode": "uefi-preferred"}),
        ({"imds_support": "optional"}, {"ImdsSupport": None}),
        ({"imds_support": "2.0"}, {"ImdsSupport": "v2.0"}),
        ({"ena_support": False}, {"EnaSupport": False}),
        ({"sriov_support": False}, {"SriovNetSupport": None}),
        ({"architecture": "arm64"}, {"Architecture": "arm64", "SriovNetSupport": None}),
        ({"architecture": "arm64", "sriov_support": True}, {"SriovNetSupport": "simple"}),
        ({"description": "a b"}, {"Description": "a b"}),
    ],
)
def test_image_is_as_the_target_data_say(given, expected):
    found = parameters(**given)
    assert {name: found.get(name) for name in expected} == expected


def test_image_is_registered_with_these_parameters(aws, register_image):
    asked = parameters(boot_mode="uefi", tpm_support="2.0", uefi_data="AAAA")
    assert register_image(asked) in aws.images
    assert aws.called("RegisterImage") == [asked]


@pytest.fixture
def other(aws):
    """The parameters for an image of the same name and another snapshot."""
    found = parameters()
    found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] = aws.add_snapshot(state="completed")
    return found


def test_name_of_another_image_is_refused_at_once(aws, register_image, other, journal, clock):
    image_id = register_image(parameters())
    with pytest.raises(PlatformReplyError, match=rf"image of that name already \({image_id}\)"):
        register_image(other)
    assert len(aws.images) == 1
    assert clock.now == 0
    assert not state(journal)


def test_name_of_an_image_that_does_not_show_is_refused_once_it_would(aws, register_image, other, journal, clock):
    image_id = register_image(parameters())
    aws.hidden_until[image_id] = 1e9
    with pytest.raises(PlatformReplyError, match="image of that name already"):
        register_image(other)
    assert clock.now >= visibility.UNSEEN_SECONDS
    assert state(journal)  # it may be ours all the same


def lost_and_retried(_answer):
    raise Refusal("InvalidAMIName.Duplicate")


@pytest.mark.parametrize("fault", [lose, lost_and_retried])
@pytest.mark.parametrize("hidden_seconds", [0, 5, 100])
def test_image_of_a_lost_answer_is_waited_for(aws, register_image, clock, fault, hidden_seconds):
    aws.hidden_until = {f"ami-{1:017x}": hidden_seconds}
    aws.faults["RegisterImage"] = [fault]
    assert [register_image(parameters())] == list(aws.images)
    assert hidden_seconds <= clock.now <= hidden_seconds + 1.2 * retry.LONGEST_PAUSE_SECONDS


def test_image_that_can_not_be_looked_for_is_looked_for_again(aws, register_image):
    aws.faults["RegisterImage"] = [lose]
    aws.faults["DescribeImages"] = [Refusal("Unavailable"), hang_up()]
    assert register_image(parameters()) in aws.images


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError", "InvalidSnapshot.NotFound"])
def test_registration_that_aws_refuses_for_a_while_is_asked_for_again(aws, register_image, journal, code):
    aws.faults["RegisterImage"] = [Refusal(code)] * 5
    assert register_image(parameters()) in aws.images
    asked = [entry for entry in journal.entries() if entry["what"] == "asked"]
    assert {(entry["kind"], entry["region"], entry["token"]) for entry in asked} == {("image", REGION, "my image")}


def test_registration_that_never_came_through_is_an_error_and_stays_open(aws, register_image, journal, clock):
    aws.faults["RegisterImage"] = [hang_up()] * 99
    with pytest.raises(NetworkError):
        register_image(parameters())
    assert retry.PATIENCE_SECONDS <= clock.now <= retry.PATIENCE_SECONDS + 15
    assert state(journal)


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidParameterValue"])
def test_refused_registration_is_an_error_at_once(aws, register_image, journal, clock, code):
    aws.faults["RegisterImage"] = [Refusal(code)]
    with pytest.raises((DeniedError, PlatformReplyError), match=code):
        register_image(parameters())
    assert clock.now == 0
    assert not state(journal)


def test_refusal_after_a_lost_answer_leaves_the_request_open(aws, register_image, journal):
    aws.hidden_until = {f"ami-{1:017x}": 1e9}
    aws.faults["RegisterImage"] = [lose, Refusal("UnauthorizedOperation")]
    with pytest.raises(DeniedError):
        register_image(parameters())
    assert state(journal)


def test_stop_ends_the_tries(aws, register_image):
    cancel = Cancel()
    cancel.request(15)
    aws.faults["RegisterImage"] = [hang_up()] * 9
    with pytest.raises(StoppedError):
        register_image(parameters(), cancel)
    assert len(aws.called("RegisterImage")) == 1


@pytest.fixture
def wait(aws, context, register_image):
    """Waits for an image that is in these states, one a look."""

    def run(*states, cancel=None):
        image_id = register_image(parameters())

        def answer(state):
            return lambda _answer: {"Images": [{"ImageId": image_id, "State": state}] if state else []}

        aws.faults["DescribeImages"] = [item if isinstance(item, Exception) else answer(item) for item in states]
        ami.wait(context(cancel), image_id)
        return len(aws.called("DescribeImages"))

    return run


def test_image_that_is_not_there_yet_is_waited_for(wait):
    assert wait(Refusal("InvalidAMIID.NotFound"), None, "pending", "available") == 4


def test_image_of_which_aws_does_not_tell_for_a_while_is_waited_for(wait):
    assert wait(hang_up(), Refusal("RequestLimitExceeded"), "pending", hang_up(), "available") == 5


def test_image_that_may_not_be_looked_at_is_an_error(wait):
    with pytest.raises(DeniedError):
        wait(Refusal("UnauthorizedOperation"))


def test_image_that_fails_is_an_error(wait):
    with pytest.raises(PlatformReplyError, match="its state is failed"):
        wait("pending", "failed")


def test_image_that_stays_pending_is_an_error_in_the_end(wait):
    with pytest.raises(TransientError, match="was not available after 10 minutes"):
        wait(*["pending"] * 400)


def test_stop_ends_the_wait(wait):
    cancel = Cancel()
    cancel.request(15)
    with pytest.raises(StoppedError):
        wait("pending", cancel=cancel)


@pytest.fixture
def taken():
    """An account with one image."""
    found = Ec2Cloud()
    found.images["ami-1"] = dict(IMAGE)
    return found


@pytest.fixture
def named(taken, tmp_path, record):
    """A function that looks for a name in that account."""

    def look(name, look=ami.named):
        context = make_context(taken, make_request(tmp_path, ami_name=name), record)
        return look(context.ctx, context.account)

    return look


def test_image_is_found_by_its_very_name(taken, named):
    found = named("my image")
    assert [(thing.kind, thing.id) for thing in ami.objects(found, REGION)] == [
        ("image", "ami-1"),
        ("snapshot", SNAPSHOT),
    ]
    assert named("my") is None
    taken.images["ami-1"]["Name"] = "my IMAGE"
    taken.faults["DescribeImages"] = [lambda _answer: {"Images": list(taken.images.values())}]
    assert named("my image") is None


def test_name_is_free_unless_an_image_has_it(named):
    named("another image", ami.check_name)
    with pytest.raises(PlatformReplyError, match=r"image of that name already \(ami-1\)"):
        named("my image", ami.check_name)


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
    journal = MemoryJournal(tmp_path / "journal")
    for what, kind, region in entries:
        journal.write(what, kind=kind, region=region)
    journal.age(age)
    context = make_context(Ec2Cloud(), make_request(tmp_path, journal=journal), record)
    assert ami.named_by_now(context) is None
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
    assert ami.is_same(found, wanted) is expected
