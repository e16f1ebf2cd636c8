import botocore.session
import botocore.stub
import pytest
from fake_direct import GIB, REGION, FakeAws, hang_up, refusal

from clouduploader.errors import DeniedError, NetworkError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import attributes
from clouduploader.platforms.ec2.ebs_direct import register
from clouduploader.platforms.ec2.ebs_direct.wanted import Wanted
from clouduploader.stop import Stop

SNAPSHOT = "snap-00000000000000001"


def parameters(architecture="x86_64", boot_mode=None, **targetdata):
    return register.parameters(
        name="my image",
        wanted=Wanted(
            attributes=attributes.resolve(targetdata, architecture=architecture, boot_mode=boot_mode),
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
    found = FakeAws()
    found.start_snapshot(ClientToken="t", Tags=[])
    found.snapshots[SNAPSHOT].state = "completed"
    found.calls.clear()
    return found


def register_image(aws, asked):
    slept = []
    try:
        return register.register(aws.ec2, asked, region=REGION, sleep=slept.append), slept
    finally:
        assert len(slept) <= register.SETTLE_TRIES


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


def test_parameters_are_those_of_the_api():
    ec2 = botocore.session.Session().create_client("ec2", REGION, aws_access_key_id="A", aws_secret_access_key="x")
    asked = parameters(boot_mode="uefi", tpm_support="2.0", uefi_data="AAAA")
    with botocore.stub.Stubber(ec2) as stubber:
        stubber.add_response("register_image", {"ImageId": "ami-1"}, asked)
        assert register.register(ec2, asked, region=REGION) == "ami-1"


def test_image_is_found_by_its_very_name(aws):
    image_id, _ = register_image(aws, parameters())
    found = register.named(aws.ec2, "my image", REGION)
    assert [(thing.kind, thing.id) for thing in register.objects(found, REGION)] == [
        ("image", image_id),
        ("snapshot", SNAPSHOT),
    ]
    assert register.named(aws.ec2, "my", REGION) is None
    aws.images[image_id]["Name"] = "my IMAGE"
    aws.faults["describe_images"] = [lambda _answer: {"Images": list(aws.images.values())}]
    assert register.named(aws.ec2, "my image", REGION) is None


def test_name_of_another_image_is_refused_at_once(aws):
    register_image(aws, parameters())
    aws.start_snapshot(ClientToken="u", Tags=[])
    other = parameters()
    other["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] = "snap-00000000000000002"
    aws.snapshots["snap-00000000000000002"].state = "completed"
    with pytest.raises(PlatformReplyError, match="image of that name already"):
        register_image(aws, other)
    assert len(aws.images) == 1


def test_answer_that_was_lost_is_looked_for_a_while(aws):
    def lose(_answer):
        raise hang_up()

    aws.faults["register_image"] = [lose]
    aws.faults["describe_images"] = [lambda _answer: {"Images": []}, refusal("DescribeImages", "Unavailable")]
    image_id, slept = register_image(aws, parameters())
    assert image_id in aws.images
    assert slept == [0, register.POLL_SECONDS, register.POLL_SECONDS]


def test_registration_that_never_came_through_is_an_error(aws):
    aws.faults["register_image"] = [hang_up()]
    with pytest.raises(NetworkError):
        register_image(aws, parameters())


def test_denied_registration_is_not_looked_for(aws):
    aws.faults["register_image"] = [refusal("RegisterImage", "UnauthorizedOperation")]
    with pytest.raises(DeniedError, match="ec2:RegisterImage"):
        register_image(aws, parameters())
    assert aws.called("describe_images") == []


@pytest.fixture
def wait(aws):
    """Waits for an image that is in these states, one a look."""

    def run(*states, stop=None):
        image_id, _ = register_image(aws, parameters())
        clock = [0.0]

        def answer(state):
            return lambda _answer: {"Images": [{"ImageId": image_id, "State": state}] if state else []}

        aws.faults["describe_images"] = [item if isinstance(item, Exception) else answer(item) for item in states]
        register.wait(
            aws.ec2,
            image_id,
            region=REGION,
            stop=stop or Stop(),
            sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds),
            clock=lambda: clock[0],
        )
        return len(aws.called("describe_images"))

    return run


def test_image_that_is_not_there_yet_is_waited_for(wait):
    assert wait(refusal("DescribeImages", "InvalidAMIID.NotFound"), None, "pending", "available") == 4


def test_image_that_fails_is_an_error(wait):
    with pytest.raises(PlatformReplyError, match="its state is failed"):
        wait("pending", "failed")


def test_image_that_stays_pending_is_an_error_in_the_end(wait):
    with pytest.raises(TransientError, match="was not available after 10 minutes"):
        wait(*["pending"] * 400)


def test_stop_ends_the_wait(wait):
    stop = Stop()
    stop.request(15)
    with pytest.raises(StoppedError):
        wait("pending", stop=stop)
