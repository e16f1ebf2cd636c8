"""The helper instances of ec2uploadimg: `HOME/.ec2utils.conf`, one section `[region-R]` a region."""

import configparser
import re
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import ConfigError, TargetDataError
from clouduploader.plugin import Context
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

FILE_NAME = ".ec2utils.conf"
XEN_FAMILIES = frozenset(
    {"c1", "c3", "c4", "cc1", "cc2", "cg1", "cr1", "d2", "f1", "g2", "g3", "g3s", "h1", "hi1", "hs1", "i2", "i3"}
    | {"m1", "m2", "m3", "m4", "p2", "p3", "r3", "r4", "t1", "t2", "x1", "x1e"}
)
"""Instance families on Xen, where a volume appears as /dev/xvdX: "Instances built on the Nitro System"
in the EC2 user guide names all others. On Nitro ec2uploadimg formats /dev/nvme1n11, which does not exist."""
_AMI = re.compile(r"ami-[0-9a-f]{8,17}")


@frozen()
class HelperInstance:
    """What ec2uploadimg starts in a region to write an image through.

    Attributes:
        ami: The helper's own image; it needs lsblk 2.27, parted, xz and sudo.
        instance_type: On Xen.
        user: For the login by ssh.
    """

    ami: str
    instance_type: str
    user: str

    @property
    def is_xen(self) -> bool:
        """Tell whether ec2uploadimg can find the disks on an instance of this type."""
        return self.instance_type.partition(".")[0] in XEN_FAMILIES


def names(home: Path) -> list[str]:
    """List the regions that are configured.

    Raises:
        ConfigError: The file is not there or can't be read.
    """
    prefix = "region-"
    return [name.removeprefix(prefix) for name in _read(home).sections() if name.startswith(prefix)]


def helper(home: Path, region: str) -> HelperInstance:
    """Read the helper of a region, checked as far as can be told without AWS.

    Raises:
        ConfigError: It is not configured, or ec2uploadimg can't use it.
    """
    path, section = home / FILE_NAME, f"region-{region}"
    parser = _read(home)
    if not parser.has_section(section):
        raise ConfigError(
            f"region {region} is not configured: {path} has no section [{section}]",
            hint="Add one with ami, instance_type and user, see the sample, or choose another region.",
        )
    values = parser[section]
    missing = [key for key in ("ami", "instance_type", "user") if not values.get(key)]
    if missing:
        raise ConfigError(f"{path}: [{section}] lacks {', '.join(missing)}")
    found = HelperInstance(values["ami"], values["instance_type"], values["user"])
    if not _AMI.fullmatch(found.ami):
        raise ConfigError(f"{path}: [{section}] ami is '{found.ami}', not the id of an AMI")
    if not found.is_xen:
        raise ConfigError(
            f"{path}: [{section}] instance_type is {found.instance_type}, on which ec2uploadimg can't find its disks",
            hint="Use a Xen type, for example t2.micro.",
        )
    return found


def check_ami(ctx: Context, ec2: "EC2Client", ami: str, region: str) -> None:
    """Check that the helper's AMI is available.

    Raises:
        ConfigError: It is not.
        ClouduploaderError: AWS refuses to tell.
    """
    with ctx.translated(f"region {region}"):
        found = ec2.describe_images(ImageIds=[ami])["Images"]
    if not found:
        raise ConfigError(f"the helper AMI {ami} does not exist in {region}", hint="Put another into .ec2utils.conf.")
    if found[0].get("State") != "available":
        raise ConfigError(f"the helper AMI {ami} in {region} is {found[0].get('State')}, not available")


def check_subnet(ctx: Context, ec2: "EC2Client") -> None:
    """Check that the subnet of the target data, if they name one, exists.

    Raises:
        TargetDataError: It is not.
        ClouduploaderError: AWS refuses to tell.
    """
    subnet = ctx.targetdata.get("vpc_subnet_id")
    if not subnet:
        return
    with ctx.translated(f"region {ctx.region}"):
        found = ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": [str(subnet)]}])["Subnets"]
    if not found:
        raise TargetDataError(f"vpc_subnet_id: there is no {subnet} in {ctx.region}")


def _read(home: Path) -> configparser.ConfigParser:
    path = home / FILE_NAME
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as exc:
        raise ConfigError(
            f"{path} can't be read: {exc.strerror}", hint="It names the helper instance of each region; see the sample."
        ) from exc
    except (configparser.Error, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not an INI file: {str(exc).splitlines()[0]}") from exc
    return parser
