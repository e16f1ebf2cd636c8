"""Where everything of a sandbox lies, and what is in the environment of a command in it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from clouduploader.util.frozen import frozen

PORT = 5000  # moto's usual one; free in a network namespace that is new
ENDPOINT = f"http://127.0.0.1:{PORT}"
EBS_PORT = 5443
EBS_ENDPOINT = f"https://127.0.0.1:{EBS_PORT}"
VARIABLE = "CLOUDUPLOADER_SANDBOX"
# Regions that an account has without asking (EC2 user guide, "Regions and Zones").
REGIONS = (
    "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
    "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3",
    "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip


@frozen()
class Layout:
    """The paths in a sandbox's directory.

    Attributes:
        root: The directory; private, and nothing else is in it.
    """

    root: Path

    @property
    def description(self) -> Path:
        """The file that tells all others; see the package."""
        return self.root / "sandbox.json"

    @property
    def home(self) -> Path:
        """The home of clouduploader."""
        return self.root / "home"

    @property
    def spool(self) -> Path:
        """The spool, as OBS has it."""
        return self.root / "spool"

    @property
    def bin(self) -> Path:
        """Holds ec2uploadimg."""
        return self.root / "bin"

    @property
    def auditor(self) -> Path:
        """Holds `credentials` and `config` of the user who may do everything."""
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
    def sample(self) -> Path:
        """The image of job 1, packed."""
        return self.root / "sample.raw.xz"

    @property
    def ca(self) -> Path:
        """The certificate of the CA that `ebs_certificate` is from; public."""
        return self.root / "ca.pem"

    @property
    def ebs_certificate(self) -> Path:
        """Private key and certificate of the EBS endpoint."""
        return self.root / "ebs.pem"

    @property
    def calls(self) -> Path:
        """One JSON object for each API call."""
        return self.root / "calls.jsonl"

    @property
    def server_log(self) -> Path:
        """What the server writes to stdout and stderr."""
        return self.root / "server.log"

    @property
    def socket(self) -> Path:
        """A Unix socket that gives the same answers as the endpoint, from outside as well."""
        return self.root / "socket"

    @property
    def namespaces(self) -> Path:
        """Holds the pid, as seen from outside, of a process that nsenter can be pointed at."""
        return self.root / "namespaces.pid"


def environment(layout: Layout, base: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of a command in the sandbox.

    Args:
        layout: Of the sandbox.
        base: The environment to start from; AWS settings and the ssh agent are taken out.
    """
    kept = {name: value for name, value in base.items() if not name.startswith("AWS_") and name != "SSH_AUTH_SOCK"}
    # The Python that runs the sandbox has clouduploader beside it, perhaps not on PATH.
    path = [str(layout.bin), str(Path(sys.executable).parent), base.get("PATH", os.defpath)]
    return kept | {
        "PATH": os.pathsep.join(path),
        VARIABLE: str(layout.root),
        "CLOUDUPLOADER_HOME": str(layout.home),
        "CLOUDUPLOADER_SPOOL": str(layout.spool),
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ENDPOINT_URL_EBS": EBS_ENDPOINT,
        "AWS_CA_BUNDLE": str(layout.ca),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(layout.auditor / "credentials"),
        "AWS_CONFIG_FILE": str(layout.auditor / "config"),
    }
