"""The sandbox, driven by the real ec2uploadimg as OBS calls it."""

import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.sandbox

# How a wrapper hides the arguments: they come through a pipe, the script runs in this very process.
LAUNCHER = """
import json, runpy, sys
sys.argv = [sys.argv[1], *json.load(sys.stdin)]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def assume_role(sandbox, aws):
    """A factory of temporary credentials."""

    def assume(**changes):
        described = sandbox.description
        arguments = {
            "RoleArn": described["role_arn"],
            "ExternalId": described["external_id"],
            "RoleSessionName": "obs",
            "DurationSeconds": 1800,
        } | changes
        (answer,) = aws(("sts", "assume_role", arguments), keys=described["obs"])
        return answer["Credentials"]

    return assume


@pytest.fixture
def upload_arguments(sandbox, assume_role):
    """A factory of the command line that OBS gives to ec2uploadimg."""

    def arguments(image, *further, name="my-image", region=None):
        credentials = assume_role()
        return [
            "--description='obs uploader'",
            "--machine=x86_64",
            f"--name={name}",
            f"--region={region or sandbox.description['region']}",
            f"--secret-key={credentials['SecretAccessKey']}",
            f"--access-id={credentials['AccessKeyId']}",
            f"--session-token={credentials['SessionToken']}",
            "--verbose",
            *further,
            image.path.name,
        ]

    return arguments


@pytest.fixture
def start_upload(sandbox, upload_arguments):
    """A factory of running uploads, output and errors in one pipe, as OBS has it."""

    def start(image, *further, **how):
        return sandbox.popen(
            ["ec2uploadimg", *upload_arguments(image, *further, **how)],
            cwd=image.path.parent,
            env=sandbox.environment(HOME=str(sandbox.home), PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def upload(start_upload):
    """Upload to the end; gives the exit status and the output."""

    def run(image, *further, **how):
        process = start_upload(image, *further, **how)
        output, _ = process.communicate()
        return process.returncode, output

    return run


def image_id_in(output):
    return re.search(r"^Created image: (ami-\w+)$", output, re.MULTILINE)[1]


def test_upload_arrives_byte_for_byte_and_leaves_only_the_image(sandbox, make_image, upload):
    image = make_image()
    status, output = upload(image)
    assert status == 0, output
    (registered,) = sandbox.account()["images"]
    assert registered["id"] == image_id_in(output)
    assert sandbox.image_bytes(registered["id"], len(image.raw)) == image.raw
    assert sandbox.left().keys() == {"images", "snapshots"}
    assert registered["name"] == "my-image"
    assert registered["description"] == "'obs uploader'"
    assert registered["architecture"] == "x86_64"
    assert registered["ena_support"] is False
    assert registered["boot_mode"] is None
    assert registered["block_device_mappings"] == [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {
                "SnapshotId": sandbox.left()["snapshots"][0],
                "VolumeSize": 10,
                "VolumeType": "gp3",
                "DeleteOnTermination": True,
                "Encrypted": False,
            },
        }
    ]


def test_upload_through_a_launcher_keeps_all_that_is_registered(sandbox, make_image, upload_arguments, aws):
    image = make_image("x.tar.gz")
    tags = [{"Key": "Distribution", "Value": "openSUSE"}]
    arguments = upload_arguments(
        image,
        "--ena-support",
        "--sriov-support",
        "--boot-mode=uefi",
        "--tpm-support=2.0",
        "--imds-support=2.0",
        "--root-volume-size=12",
        f"--image-tags={json.dumps(tags)}",
        region="eu-central-1",
    )
    done = sandbox.run(
        [sys.executable, "-c", LAUNCHER, sandbox.layout.bin / "ec2uploadimg"],
        input=json.dumps(arguments),
        cwd=image.path.parent,
        env=sandbox.environment(HOME=str(sandbox.home)),
    )
    assert done.returncode == 0, done.stderr
    (answer,) = aws(("ec2", "describe_images", {"ImageIds": [image_id_in(done.stderr)]}), region="eu-central-1")
    (shown,) = answer["Images"]
    assert shown["EnaSupport"] is True
    assert shown["SriovNetSupport"] == "simple"
    assert shown["BootMode"] == "uefi"
    assert shown["TpmSupport"] == "v2.0"
    assert shown["ImdsSupport"] == "v2.0"
    assert shown["Tags"] == tags
    assert shown["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 12
    assert sandbox.image_bytes(shown["ImageId"], len(image.raw)) == image.raw


def test_two_uploads_side_by_side_do_not_mix(sandbox, make_image, start_upload):
    images = [make_image(f"{seed}.raw.xz", seed=seed) for seed in (1, 2)]
    sandbox.helper(command_delays={"xz": 1, "dd": 1})
    running = [start_upload(image, name=image.path.name) for image in images]
    outputs = [process.communicate()[0] for process in running]
    for image, output in zip(images, outputs, strict=True):
        assert sandbox.image_bytes(image_id_in(output), len(image.raw)) == image.raw
    assert sandbox.left().keys() == {"images", "snapshots"}


def test_upload_into_a_subnet_needs_a_group_of_its_vpc_that_lets_ssh_in(sandbox, make_image, upload, aws):
    image, described = make_image(), sandbox.description
    subnet = f"--vpc-subnet-id={described['subnet_id']}"
    status, output = upload(image, subnet)
    assert status == 1
    assert "belong to different networks" in output
    group_arguments = {"GroupName": "g", "Description": "d", "VpcId": described["vpc_id"]}
    (group,) = aws(("ec2", "create_security_group", group_arguments))
    subnet_and_group = [subnet, f"--security-group-ids={group['GroupId']}", "--ssh-timeout=10"]
    status, output = upload(image, *subnet_and_group)
    assert status == 1
    assert "Time out for ssh connection reached" in output, "the group does not let ssh in yet"
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0"}
    aws(("ec2", "authorize_security_group_ingress", {"GroupId": group["GroupId"], **ssh}))
    status, output = upload(image, *subnet_and_group)
    assert status == 0, output
    assert sandbox.image_bytes(image_id_in(output), len(image.raw)) == image.raw


def test_upload_by_a_nitro_instance_misses_the_storage_volume(sandbox, make_image, upload):
    config = sandbox.home / ".ec2utils.conf"
    config.write_text(config.read_text().replace("t2.micro", "t3.micro"))
    sandbox.helper(command_delays={"dd": 0.5})
    status, output = upload(make_image())
    assert status == 0, output
    roots = list(sandbox.layout.instances.glob("*/root-mnt/*.raw"))
    assert len(roots) == 1, "the image was unpacked on the root disk"


def test_upload_of_a_cut_image_registers_an_empty_one(sandbox, make_image, upload):
    image = make_image(cut_bytes=4096)
    status, output = upload(image)
    assert status == 0
    image_id_in(output)
    assert not list(sandbox.layout.volumes.glob("*.raw")), "nothing was ever written"


def test_credentials_that_expire_stop_the_upload_and_its_clean_up(sandbox, make_image, start_upload):
    sandbox.helper(command_delays={"dd": 1})
    process = start_upload(make_image())
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Dumping raw image"):
            sandbox.expire()
    assert process.wait() == 1
    assert "RequestExpired" in "".join(lines)
    assert {"instances", "volumes", "key_pairs", "vpcs"} <= sandbox.left().keys()


def test_instance_that_is_terminated_ends_its_connections(sandbox, make_image, start_upload, aws):
    sandbox.helper(sftp_delay_seconds=0.2)
    process = start_upload(make_image(size_bytes=64 << 20))
    for line in process.stdout:
        if line.startswith("Uploading image file"):
            break
    aws(("ec2", "terminate_instances", {"InstanceIds": sandbox.left()["instances"]}))
    output = process.stdout.read()
    assert process.wait() == 1
    assert "Created image" not in output


def test_account_shows_what_a_killed_upload_left(sandbox, make_image, start_upload):
    process = start_upload(make_image())
    for line in process.stdout:
        if line.startswith("Attempt ssh connection"):
            break
    process.kill()
    process.wait()
    left = sandbox.left()
    assert {kind: len(ids) for kind, ids in left.items()} == {
        "instances": 1,
        "volumes": 2,  # its root disk and the storage volume
        "key_pairs": 1,
        "security_groups": 1,
        "vpcs": 1,
        "subnets": 1,
        "gateways": 1,
        "route_tables": 1,
    }
    sandbox.reset()
    assert sandbox.left() == {}


@pytest.mark.parametrize("mode", ["refuse", "silent"])
def test_helper_without_ssh_fails_the_upload(sandbox, make_image, upload, mode):
    sandbox.helper(mode=mode)
    status, output = upload(make_image(), "--ssh-timeout=1")
    assert status == 1
    assert "Time out for ssh connection reached" in output
    assert sandbox.left() == {}


def test_helper_with_a_chatty_sudo_fails_the_upload(sandbox, make_image, upload):
    sandbox.helper(broken={"sudo": "sudo: unable to resolve host ip-10-0-0-1"})
    status, output = upload(make_image())
    assert status == 1
    assert '"lsblk -a -J" command failed' in output


def test_fault_hits_the_nth_call_only(sandbox, make_image, upload):
    sandbox.fault("CreateVolume", nth=2, code="VolumeLimitExceeded", message="Too many.")
    status, output = upload(make_image())
    assert status == 1
    assert "VolumeLimitExceeded" in output
    assert [call["code"] for call in sandbox.calls("CreateVolume")] == [None, "VolumeLimitExceeded"]


def test_calls_name_all_but_secrets(sandbox, make_image, upload, assume_role):
    status, output = upload(make_image())
    assert status == 0, output
    calls = sandbox.calls()
    assert len({call["action"] for call in calls}) > 30
    assert calls[0]["action"] == "AssumeRole"
    assert calls[0]["has_token"] is False
    assert calls[-1]["has_token"] is True
    text = sandbox.layout.calls.read_text()
    described = sandbox.description
    for secret in (described["external_id"], described["obs"]["secret_access_key"], "PRIVATE KEY"):
        assert secret not in text
    credentials = assume_role()
    later = sandbox.layout.calls.read_text()
    assert credentials["AccessKeyId"] not in later
    assert credentials["SecretAccessKey"] not in later
