"""Paths, endpoints and regions of AWS in a sandbox."""

from pathlib import Path

from clouduploader.sandbox.layout import Layout
from clouduploader.util.frozen import frozen

PORT = 5000  # moto's usual one; free in a network namespace that is new
ENDPOINT = f"http://127.0.0.1:{PORT}"
EBS_PORT = 5443
EBS_ENDPOINT = f"https://127.0.0.1:{EBS_PORT}"
# Regions that an account has without asking (EC2 user guide, "Regions and Zones").
REGIONS = (
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3",
    "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip


@frozen()
class AwsLayout(Layout):
    """The paths of AWS in a sandbox's directory, beside those that every sandbox has."""

    @property
    def auditor(self) -> Path:
        """Holds `credentials` and `config` of the auditor, a user with all rights."""
        return self.root / "auditor"

    @property
    def volumes(self) -> Path:
        """What is on the disks: a sparse file for each volume and snapshot."""
        return self.root / "volumes"

    @property
    def instances(self) -> Path:
        """A directory for each instance: its root disk as far as ssh users can reach it."""
        return self.root / "instances"

    @property
    def ebs_certificate(self) -> Path:
        """Private key and certificate of the EBS endpoint."""
        return self.root / "ebs.pem"
