"""OBS's call, which fails: the exit code, one line with the real cause, and nothing left."""

import gzip
import json
import os
import tarfile

import pytest
from samples.minimal_disk import as_disk

pytestmark = pytest.mark.sandbox

ALL = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}


def denying(*actions):
    """A policy that allows all but these actions."""
    denied = {"Effect": "Deny", "Action": [f"ec2:{action}" for action in actions], "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [ALL, denied]}


@pytest.fixture
def small_image(make_image):
    """An image that is fast to upload."""
    return make_image("x.raw.xz", size_bytes=1 << 20)


@pytest.fixture
def assert_nothing_left(sandbox):
    """Check that a failed upload left nothing, here or in the account, but what is named by its kind."""

    def check(job, *kinds):
        assert sandbox.left().keys() == set(kinds)
        assert job.litter() == []

    return check


# --- what is found before anything is asked of the cloud


@pytest.mark.parametrize(
    ("filename", "how", "words"),
    [
        ("x.raw.xz", {"cut_bytes": 4096}, "x.raw.xz is cut off, or has something else behind"),
        ("x.raw", {"packing": "gz"}, "x.raw is packed with gz, which ec2uploadimg can't unpack"),
        ("x.raw.bz2", {}, "x.raw.bz2 is packed with bz2, which ec2uploadimg can't unpack"),
        ("x.raw.zst", {"packing": "zst"}, "x.raw.zst is packed with zst, which ec2uploadimg can't unpack"),
        ("x.qcow2", {}, "x.qcow2 is not a raw disk image"),
        ("x.vmdk.xz", {}, "x.vmdk.xz is not the image of a disk: it is called .vmdk, and its bytes are not that"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_image_that_would_become_a_broken_ami_is_refused(
    sandbox, make_job, make_image, assert_nothing_left, filename, how, words
):
    job = make_job(make_image(filename, **how))
    job.run().assert_failed(65, words)
    assert_nothing_left(job)
    assert {call["action"] for call in sandbox.calls()} <= {"AssumeRole"}


def test_image_that_is_damaged_inside_is_refused(make_job, make_image, assert_nothing_left):
    image = make_image("x.raw.xz")
    data = bytearray(image.path.read_bytes())
    data[len(data) // 2] ^= 1
    image.path.write_bytes(data)
    job = make_job(image)
    job.run().assert_failed(65, "x.raw.xz is damaged: bad xz data before byte")
    assert_nothing_left(job)


def test_image_that_changes_while_it_is_sent_does_not_become_one(sandbox, make_job, small_image, assert_nothing_left):
    """ec2uploadimg opens the file itself: what it made of it is removed."""
    sandbox.helper(sftp_delay_seconds=0.1)
    job = make_job(small_image)
    process = job.start()
    job.wait_for("Phase: upload", process)
    os.utime(job.image_path)
    done = job.finish(process)
    done.assert_failed(65, "changed while it was read: it was written to, or replaced")
    assert "Removed image ami-" in done.log
    assert_nothing_left(job)


def test_image_larger_than_the_wanted_volume_is_refused(make_job, make_image, assert_nothing_left):
    member = tarfile.TarInfo("disk.raw")
    member.size = (1 << 30) + 512
    hole = gzip.compress(bytes(1 << 26), 1)  # a gzip file may consist of many
    image = make_image("x.tar.gz")
    image.path.write_bytes(gzip.compress(member.tobuf() + as_disk(b"")) + hole * 16 + gzip.compress(bytes(1024)))
    job = make_job(image, root_volume_size=1)
    job.run().assert_failed(65, "root_volume_size: found 1, but the image is 2 GiB unpacked. Raise it")
    assert_nothing_left(job)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arn": ""}, ["arn", "role"]),
        ({"arn": None, "external_id": None}, ["the user has no AWS role configured (arn). Let the user enter"]),
        ({"region": "eu-west-1,eu-west-2"}, ["region", "one region such as eu-west-1"]),
        ({"ami_name": "a:b", "boot_mode": "bios"}, ["ami_name", "boot_mode", "legacy-bios"]),
        ({"tpm_support": "2.0", "boot_mode": "uefi-preferred"}, ["tpm_support", "needs boot_mode uefi"]),
    ],
    ids=["no arn", "no role", "regions", "two things", "tpm"],
)
def test_target_data_that_are_wrong_are_refused(sandbox, make_job, small_image, changes, words):
    job = make_job(small_image, **changes)
    job.run().assert_failed(65, *words)
    assert job.litter() == []
    assert sandbox.calls() == []


# --- configuration


def test_region_without_a_helper_is_refused(sandbox, make_job, small_image):
    job = make_job(small_image, region="eu-west-3")
    job.run().assert_failed(
        78, "region eu-west-3 is not configured", "has no section [region-eu-west-3]. Add one with ami"
    )
    assert job.litter() == []
    assert sandbox.calls() == []


def test_helper_on_nitro_is_refused(sandbox, make_job, small_image):
    path = sandbox.home / ".ec2utils.conf"
    path.write_text(path.read_text().replace("t2.micro", "t3.micro"))
    job = make_job(small_image)
    job.run().assert_failed(78, "instance_type is t3.micro, on which ec2uploadimg can't find its disks. Use a Xen type")
    assert sandbox.calls() == []


def test_helper_ami_that_is_gone_is_named(sandbox, make_job, small_image, assert_nothing_left):
    path = sandbox.home / ".ec2utils.conf"
    path.write_text(path.read_text().replace(sandbox.description["helper_amis"]["us-east-1"], "ami-0123456789abcdef0"))
    job = make_job(small_image)
    job.run().assert_failed(
        78,
        "the helper AMI does not exist in region us-east-1: The image id '[ami-0123456789abcdef0]' does not exist",
        "(RunInstances: InvalidAMIID.NotFound)",
    )
    assert_nothing_left(job)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (None, "is not installed. Install ec2imgutils, or set ec2uploadimg in [ec2] of clouduploader.conf."),
        ("#!/bin/sh\nexit 0\n", "is not a Python script: secrets can't be handed to it safely"),
        ("\x7fELF", "is not a Python script: secrets can't be handed to it safely"),
        ("#!/no/such/python3\n", "is run by /no/such/python3, which is not installed"),
    ],
    ids=["absent", "shell", "binary", "interpreter"],
)
def test_ec2uploadimg_that_cannot_be_driven_is_refused(
    sandbox, make_job, small_image, settings, tmp_path, program, words
):
    path = tmp_path / "ec2uploadimg"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755)
    settings(f"[ec2]\nec2uploadimg = {path}\n")
    job = make_job(small_image)
    job.run().assert_failed(69, f"{path} {words}")
    assert job.litter() == []
    assert sandbox.calls() == []


# --- who we are


def test_role_that_does_not_trust_us_is_explained(sandbox, make_job, small_image):
    role = sandbox.description["role_arn"]
    job = make_job(small_image, external_id="anotherExternalId")
    job.run().assert_failed(
        77,
        f"AWS does not let us assume role {role} (AssumeRole: AccessDenied). The role's trust policy must name",
        "the external id must be the very one in its condition",
    )
    assert job.litter() == []


def test_own_credentials_that_are_wrong_are_explained(sandbox, make_job, small_image):
    path = sandbox.home / ".aws" / "credentials"
    path.write_text(path.read_text().replace("secret_access_key = ", "secret_access_key = x"))
    job = make_job(small_image)
    done = job.run("-v")
    done.assert_failed(77, "AWS does not know our access key, or its secret is wrong", "Check .aws/credentials")
    assert sandbox.description["obs"]["secret_access_key"] not in done.log


def test_region_that_is_not_enabled_is_explained(sandbox, make_job, small_image):
    with (sandbox.home / ".ec2utils.conf").open("a") as file:
        file.write("\n[region-af-south-1]\nami = ami-0123456789abcdef0\ninstance_type = t2.micro\nuser = ec2-user\n")
    job = make_job(small_image, region="af-south-1")
    job.run().assert_failed(77, "(AssumeRole: InvalidClientTokenId)", "region", "not enabled")


@pytest.mark.parametrize(("minutes", "direction"), [(20, "behind"), (-20, "ahead of")])
def test_clock_that_is_off_is_explained(sandbox, make_job, small_image, minutes, direction):
    sandbox.clock(minutes * 60)
    job = make_job(small_image)
    job.run().assert_failed(77, f"this machine's clock is 20 minutes {direction} Amazon's", "Set the clock")


# --- what the cloud refuses


def test_name_that_is_taken_is_said(sandbox, make_job, small_image, aws, assert_nothing_left):
    (volume,) = aws(("ec2", "create_volume", {"Size": 1, "AvailabilityZone": "us-east-1a"}))
    (snapshot,) = aws(("ec2", "create_snapshot", {"VolumeId": volume["VolumeId"]}))
    mapping = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot["SnapshotId"]}}
    aws(
        ("ec2", "delete_volume", {"VolumeId": volume["VolumeId"]}),
        (
            "ec2",
            "register_image",
            {
                "Name": "taken",
                "Architecture": "x86_64",
                "VirtualizationType": "hvm",
                "RootDeviceName": "/dev/sda1",
                "BlockDeviceMappings": [mapping],
            },
        ),
    )
    before = sandbox.left()
    job = make_job(small_image, ami_name="taken")
    job.run().assert_failed(76, "there is an image of that name already", "Choose another name")
    assert sandbox.left() == before
    assert job.litter() == []


def test_vpc_quota_is_said_although_ec2uploadimg_hides_it(sandbox, make_job, small_image, aws):
    aws(*[("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16"})] * 3)
    before = sandbox.left()
    job = make_job(small_image)
    done = job.run()
    done.assert_failed(
        76,
        "a quota of the account is used up: The maximum number of VPCs has been reached (CreateVpc: VpcLimitExceeded)",
    )
    assert "VpcLimitExceeded" not in "".join(line for line in done.lines if not line.startswith("Error: "))
    assert sandbox.left() == before


@pytest.mark.parametrize(
    ("fault", "exit_code", "words"),
    [
        (
            {"action": "CreateVolume", "code": "VolumeLimitExceeded", "message": "Too many volumes."},
            76,
            "a quota of the account is used up: Too many volumes (CreateVolume: VolumeLimitExceeded)",
        ),
        (
            {"action": "CreateVolume", "nth": 2, "code": "InternalError", "message": "Oops."},
            75,
            "AWS can't serve this now: Oops (CreateVolume: InternalError). Try again.",
        ),
        (
            {"action": "RunInstances", "code": "RequestLimitExceeded", "message": "Slow down."},
            75,
            "AWS asks for fewer requests (RunInstances: RequestLimitExceeded). Try again later.",
        ),
        (
            {"action": "AuthorizeSecurityGroupIngress", "code": "Fancy<New>&Code", "message": "No\nway."},
            76,
            "AWS refused: No\\nway (AuthorizeSecurityGroupIngress: Fancy<New>&Code)",
        ),
    ],
    ids=lambda value: f"{value['action']}-{value['code']}" if isinstance(value, dict) else "",
)
def test_refusal_in_the_middle_is_said_and_cleaned_up(
    sandbox, make_job, small_image, assert_nothing_left, fault, exit_code, words
):
    sandbox.fault(**fault)
    job = make_job(small_image)
    job.run().assert_failed(exit_code, words)
    assert_nothing_left(job)


def test_image_that_cannot_be_tagged_is_removed_again(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.fault("CreateTags", nth=2, code="TagLimitExceeded", message="Too many tags.")  # the first is the VPC's
    job = make_job(small_image, tags={"a": "b"})
    done = job.run()
    done.assert_failed(76, "Too many tags (CreateTags: TagLimitExceeded)")
    assert_nothing_left(job)
    assert len(sandbox.calls("RegisterImage")) == 1
    assert any(line.startswith("Removed image ami-") for line in done.lines)


def test_right_that_the_role_lacks_is_named(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.policy(denying("AttachVolume"))
    job = make_job(small_image)
    job.run().assert_failed(
        77,
        "the role may not call ec2:AttachVolume (AttachVolume: UnauthorizedOperation). Attach the policy",
    )
    assert_nothing_left(job)


def test_what_cannot_be_removed_is_listed_with_its_id(sandbox, make_job, small_image, aws):
    sandbox.policy(denying("RunInstances", "DeleteKeyPair"))
    job = make_job(small_image)
    done = job.run()
    done.assert_failed(77, "the role may not call ec2:RunInstances")
    assert sandbox.left().keys() == {"key_pairs"}
    ((pair,),) = [sandbox.account()["key_pairs"]]
    assert [line for line in done.lines if line.startswith("Left behind: ")] == [
        f"Left behind: key pair {pair['name']} in us-east-1: "
        "the role may not call ec2:DeleteKeyPair (DeleteKeyPair: UnauthorizedOperation)"
    ]


def test_clean_up_that_fails_makes_no_failure_of_an_image(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.fault("DeleteSecurityGroup", nth=1, code="DependencyViolation", message="Still there.")
    job = make_job(small_image)
    done = job.run()
    ((image,),) = [sandbox.account()["images"]]
    assert (done.status, done.result) == (0, image["id"])
    assert any(f"ec2uploadimg made {image['id']}, but failed afterwards: " in line for line in done.lines)
    assert_nothing_left(job, "images", "snapshots")


# --- the helper instance


def test_helper_that_refuses_ssh_is_given_up(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.helper(mode="refuse")
    job = make_job(small_image)
    job.run().assert_failed(76, "ec2uploadimg failed: Time out for ssh connection reached, could not connect")
    assert_nothing_left(job)


def test_helper_that_says_nothing_is_given_up(sandbox, make_job, small_image, settings, assert_nothing_left):
    settings("[ec2]\nssh_timeout = 10\n")
    sandbox.helper(mode="silent")
    job = make_job(small_image)
    job.run().assert_failed(76, "ec2uploadimg failed: Time out for ssh connection reached, could not connect")
    assert_nothing_left(job)


def test_helper_with_a_chatty_sudo_is_named(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.helper(broken={"sudo": "sudo: unable to resolve host ip-10-0-0-1"})
    job = make_job(small_image)
    job.run().assert_failed(76, '"lsblk -a -J" command failed')
    assert_nothing_left(job)


# --- time


def test_credentials_that_expire_are_replaced_for_the_clean_up(sandbox, make_job, small_image, assert_nothing_left):
    sandbox.helper(command_delays={"dd": 1})
    job = make_job(small_image)
    process = job.start()
    job.wait_for("Dumping raw image", process)
    sandbox.expire()
    done = job.finish(process)
    done.assert_failed(77, "the temporary credentials have expired", "raise session_seconds in [ec2]")
    assert_nothing_left(job)
    assert len(sandbox.calls("AssumeRole")) == 2


def test_snapshot_that_never_completes_is_given_up(sandbox, make_job, small_image, settings, assert_nothing_left):
    settings("[ec2]\nwait_count = 1\n")
    sandbox.pace(snapshot_seconds=3600)
    job = make_job(small_image)
    job.run().assert_failed(76, "ec2uploadimg failed: ", "napshot")
    assert_nothing_left(job)


def test_instance_of_a_lost_answer_is_found(sandbox, make_job, small_image, assert_nothing_left):
    """The SDK asks again, with the same token; ec2uploadimg never learns the id, and we by the tag only."""
    sandbox.fault("RunInstances", lose_answer=True)
    job = make_job(small_image)
    done = job.run()
    done.assert_failed(76, "ec2uploadimg failed: Connection was closed before we received a valid response")
    assert_nothing_left(job)
    assert len(sandbox.calls("RunInstances")) > 1
    assert len([line for line in done.lines if line.startswith("Removed instance ")]) == 1


# --- the contract's own files


def test_failure_with_five_operands_is_told_on_stderr(make_job, small_image):
    job = make_job(small_image, data=json.dumps({"region": 7}).encode())
    done = job.run(has_result_file=False)
    assert done.status == 65
    assert done.stdout == ""
    reason = done.stderr.removeprefix("clouduploader: ").removesuffix("\n")
    assert "\n" not in reason
    assert done.lines[-1] == f"Error: {reason}"


def test_result_that_has_no_directory_fails_the_job_before_anything_is_made(sandbox, make_job, small_image):
    job = make_job(small_image)
    job.result_path = job.result_path.parent / "no-such-directory" / "1.result"
    done = job.run()
    assert done.status == 73
    assert done.lines[-1].startswith(f"Error: the result {job.result_path} can't be written: there is no directory")
    assert sandbox.left() == {}
    assert not sandbox.calls("RunInstances")
