#!{python}
"""Plays ec2uploadimg: takes its arguments, makes what it makes, says what it says; no ssh, no waiting.

A test puts its Python's path above, and a line of code in place of the marks below.
"""

import argparse
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
for option in (
    "file", "description", "machine", "name", "regions", "access-id", "secret-key", "session-token", "root-volume-size",
    "ssh-timeout", "wait-count", "boot-mode", "imds-support", "tpm-support", "vpc-subnet-id", "security-group-ids",
    "image-tags",
):  # fmt: skip
    parser.add_argument(f"--{option}")
for flag in ("verbose", "ena-support", "sriov-support"):
    parser.add_argument(f"--{flag}", action="store_true")
parser.add_argument("--version", action="version", version="10.0.5")
parser.add_argument("source")
given = parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)  # noqa: T201


# AT START
import boto3  # noqa: E402 it and a client take most of a second, which not every test needs

ec2 = boto3.client(
    "ec2",
    region_name=given.regions,
    aws_access_key_id=given.access_id,
    aws_secret_access_key=given.secret_key,
    aws_session_token=given.session_token,
)
say("Creating temporary key pair")
key = ec2.create_key_pair(KeyName=f"temporary_ec2_uploadkey.{time.time_ns()}.key")["KeyName"]
vpc = ec2.create_vpc(CidrBlock="192.168.0.0/16")["Vpc"]["VpcId"]
# AT SETUP
subnet = given.vpc_subnet_id or ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.1.0/24")["Subnet"]["SubnetId"]
lines = Path(given.file).read_text().splitlines()
ami = next(line.removeprefix("ami = ") for line in lines if line.startswith("ami"))
instance = ec2.run_instances(ImageId=ami, MinCount=1, MaxCount=1, KeyName=key, SubnetId=subnet)["Instances"][0][
    "InstanceId"
]
volume = ec2.create_volume(Size=int(given.root_volume_size), AvailabilityZone=f"{given.regions}a")["VolumeId"]
say(f"Uploading image file: {given.source}")
with Path(given.source).open("rb", 0) as file:
    file.read(1000)
    say("...")
    # AT READ
# AT UPLOAD
say("Waiting for snapshot creation")
snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
ec2.terminate_instances(InstanceIds=[instance])
ec2.delete_volume(VolumeId=volume)
image = ec2.register_image(
    Name=given.name,
    RootDeviceName="/dev/sda1",
    BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
)["ImageId"]
say(f"Created image:  {image}")
# AT END
say(f"Deleting temporary key pair  {key}")
ec2.delete_key_pair(KeyName=key)
if not given.vpc_subnet_id:
    ec2.delete_subnet(SubnetId=subnet)
ec2.delete_vpc(VpcId=vpc)
