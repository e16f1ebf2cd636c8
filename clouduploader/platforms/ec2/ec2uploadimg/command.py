"""Find ec2uploadimg, make its arguments, and interpret its output and its calls of the API."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clouduploader.errors import (
    ClouduploaderError,
    ImageError,
    MissingProgramError,
    PlatformReplyError,
)
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.platforms.ec2.ec2uploadimg.helper_config import HelperInstance
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import CloudObject, JsonValue, PlatformContext
from clouduploader.util import privileges
from clouduploader.util.filenames import plain
from clouduploader.util.frozen import frozen

ENDINGS = {
    Compression.RAW: ".raw",
    Compression.XZ: ".raw.xz",
    Compression.TAR: ".tar",
}
TAR_ENDINGS = {
    Compression.TAR: ".tar",
    Compression.XZ: ".tar.xz",
    Compression.GZIP: ".tar.gz",
    Compression.BZIP2: ".tar.bz2",
}
"""The endings by which ec2uploadimg knows what to do; measured, reference section 2."""
KEY_FILES = "temporary_ec2_uploadkey.*.key"
"""The private keys that it leaves in HOME while it runs, each called like its key pair."""
_TAR_ANYWHERE = re.compile(r"\.(tar|tbz|tgz)")  # ec2uploadimg takes any name with one of these for a tarball
_FOREIGN_FORMAT = re.compile(r"\.(qcow2?|vmdk|vdi|vhdx?)(\.xz)?$", re.IGNORECASE)  # called .raw, it would become an AMI
_SHEBANG = re.compile(rb"#!\s*(?:/usr/bin/env\s+(?:-\S+\s+)*)?(\S*python[0-9.]*)(?:\s|$)")
_CREATED_IMAGE = re.compile(r"^Created image:\s+(ami-[0-9a-f]+)$")
PHASES = (
    ("Creating temporary key pair", "prepare"),
    ("Waiting for instance", "start helper"),
    ("Uploading image file", "upload"),
    ("Inflating image", "unpack"),
    ("Dumping raw image", "write volume"),
    ("Waiting for snapshot creation", "snapshot"),
    ("Registering image", "register"),
)
"""How lines of its verbose output begin, and which phase begins with them."""

MAKERS: Mapping[str, tuple[str, tuple[str | int, ...]]] = {
    "CreateKeyPair": ("key pair", ("KeyName",)),
    "CreateVpc": ("vpc", ("Vpc", "VpcId")),
    "CreateInternetGateway": ("internet gateway", ("InternetGateway", "InternetGatewayId")),
    "CreateRouteTable": ("route table", ("RouteTable", "RouteTableId")),
    "CreateSubnet": ("subnet", ("Subnet", "SubnetId")),
    "CreateSecurityGroup": ("security group", ("GroupId",)),
    "RunInstances": ("instance", ("Instances", 0, "InstanceId")),
    "CreateVolume": ("volume", ("VolumeId",)),
    "CreateSnapshot": ("snapshot", ("SnapshotId",)),
    "RegisterImage": ("image", ("ImageId",)),
}
"""What each call of ec2uploadimg makes, and where its answer names it."""

REMOVERS: Mapping[str, tuple[str, str]] = {
    "DeleteKeyPair": ("key pair", "KeyName"),
    "DeleteVpc": ("vpc", "VpcId"),
    "DeleteInternetGateway": ("internet gateway", "InternetGatewayId"),
    "DeleteRouteTable": ("route table", "RouteTableId"),
    "DeleteSubnet": ("subnet", "SubnetId"),
    "DeleteSecurityGroup": ("security group", "GroupId"),
    "TerminateInstances": ("instance", "InstanceIds"),
    "DeleteVolume": ("volume", "VolumeId"),
}
"""What each of its calls removes, and which parameter names it."""


@frozen()
class HelperProgram:
    """An ec2uploadimg that we can run.

    Attributes:
        script: Its file.
        interpreter: The Python of its first line, where ec2imgutils lives.
    """

    script: Path
    interpreter: str


def named(settings: Ec2Settings, context: PlatformContext) -> HelperProgram:
    """Find the ec2uploadimg that the settings name.

    Raises:
        MissingProgramError: See `find`.
        ConfigError: We are root, and another user may have named it.
    """
    if settings.ec2uploadimg != Ec2Settings.ec2uploadimg:
        privileges.check_program(context.home / "clouduploader.conf", settings.ec2uploadimg)
    return find(settings.ec2uploadimg, context.environment.get("PATH"))


def find(name: str, search_path: str | None) -> HelperProgram:
    """Find ec2uploadimg.

    Args:
        name: A name to look for, or a path.
        search_path: The value of PATH.

    Raises:
        MissingProgramError: It is not there, or is not a Python script, so that its arguments, which
            are secrets, would have to stand on a command line.
    """
    found = shutil.which(name, path=search_path)
    if found is None:
        raise MissingProgramError(
            f"{name} is not installed", hint="Install ec2imgutils, or set ec2uploadimg in [ec2] of clouduploader.conf."
        )
    with Path(found).open("rb") as file:
        first_line = file.readline(256)
    shebang = _SHEBANG.match(first_line)
    if shebang is None:
        raise MissingProgramError(
            f"{found} is not a Python script: secrets can't be handed to it safely",
            hint="Set ec2uploadimg in [ec2] of clouduploader.conf to the script itself.",
        )
    named = os.fsdecode(shebang[1])
    interpreter = shutil.which(named, path=search_path)
    if interpreter is None:
        raise MissingProgramError(f"{found} is run by {named}, which is not installed")
    return HelperProgram(Path(found), interpreter)


def link_name(image: Image) -> str:
    """Return the name under which ec2uploadimg does the right thing with an image.

    It goes by the name alone, and puts it into shell commands unquoted.

    Raises:
        ImageError: It can't unpack such an image.
    """
    endings = TAR_ENDINGS if image.is_tarball else ENDINGS
    if image.compression not in endings:
        raise ImageError(
            f"{image.filename} is packed with {image.compression}, which ec2uploadimg can't unpack",
            hint="Give it a .raw, .raw.xz or .vhdfixed.xz image, or a tarball of one.",
        )
    if _FOREIGN_FORMAT.search(image.filename):
        raise ImageError(
            f"{image.filename} is not a raw disk image, and ec2uploadimg can't convert it",
            hint="Convert it with `qemu-img convert -O raw`.",
        )
    name = plain(image.filename)
    if image.is_tarball or image.compression is Compression.RAW:
        stem = re.split(r"\.(?:raw|tar|tgz|tbz)", name)[0]
    else:
        stem = re.sub(r"(\.raw)?\.xz$", "", name)
    return _TAR_ANYWHERE.sub(r"_\1", stem or "image") + endings[image.compression]


def configuration(region: str, helper: HelperInstance) -> str:
    """Make the configuration file for one run: this region, and no secrets."""
    return f"[region-{region}]\nami = {helper.ami}\ninstance_type = {helper.instance_type}\nuser = {helper.user}\n"


def arguments(
    *,
    targetdata: Mapping[str, JsonValue],
    attributes: ImageAttributes,
    keys: AccessKeys,
    settings: Ec2Settings,
    configuration_path: Path,
    volume_gib: int,
    security_group: str | None,
    source: Path,
) -> list[str]:
    """Make the arguments of one run; secrets are among them.

    Args:
        targetdata: See `fields`.
        attributes: Of the AMI.
        keys: Temporary credentials.
        settings: See Ec2Settings.
        configuration_path: A file with what `configuration` gives.
        volume_gib: Of the root volume.
        security_group: Of the helper, needed with a subnet: ec2uploadimg's own would be in no VPC.
        source: The image under the name that `link_name` gave.
    """
    words = {
        "file": str(configuration_path),
        "description": attributes.description,
        "machine": attributes.architecture,
        "name": targetdata["ami_name"],
        "regions": targetdata["region"],
        "access-id": keys.access_key_id,
        "secret-key": keys.secret_access_key,
        "session-token": keys.session_token,
        "root-volume-size": volume_gib,
        "ssh-timeout": settings.ssh_timeout,
        "wait-count": settings.wait_count,
        "boot-mode": attributes.boot_mode,
        "imds-support": attributes.imds_support,
        "tpm-support": attributes.tpm_support,
        "vpc-subnet-id": targetdata.get("vpc_subnet_id"),
        "security-group-ids": security_group,
        "image-tags": _tags(targetdata.get("tags")),
    }
    flags = {
        "verbose": True,
        "ena-support": attributes.ena_support,
        "sriov-support": attributes.sriov_net_support is not None,
    }
    options = [f"--{name}={value}" for name, value in words.items() if value is not None]
    return [*options, *(f"--{name}" for name, is_set in flags.items() if is_set), str(source)]


def _tags(tags: JsonValue) -> str | None:
    if not isinstance(tags, dict) or not tags:
        return None
    return json.dumps([{"Key": key, "Value": value} for key, value in tags.items()])


def created_image(line: str) -> str | None:
    """Return the AMI's id, if this line of its stderr gives it."""
    found = _CREATED_IMAGE.match(line)
    return found[1] if found else None


def phase(line: str) -> str | None:
    """Return the phase that begins with this line of its stderr."""
    return next((name for beginning, name in PHASES if line.startswith(beginning)), None)


def kind_made_by(operation: str) -> str | None:
    """Return the kind of thing that a call makes, or None."""
    return MAKERS[operation][0] if operation in MAKERS else None


def made_by(operation: str, answer: Mapping[str, Any], region: str) -> CloudObject | None:
    """Return what a successful call made, or None."""
    if operation not in MAKERS:
        return None
    kind, path = MAKERS[operation]
    found: Any = answer
    for step in path:
        found = found[step]
    return CloudObject(kind, str(found), region)


def removed_by(operation: str, parameters: Mapping[str, Any], region: str) -> list[CloudObject]:
    """List what a successful call removed."""
    if operation not in REMOVERS:
        return []
    kind, name = REMOVERS[operation]
    value = parameters.get(name, [])
    return [CloudObject(kind, str(item), region) for item in (value if isinstance(value, list) else [value])]


def failure(
    *, exit_status: int, lines: Sequence[str], refusal: aws_errors.AwsError | None, region: str
) -> ClouduploaderError:
    """Say why a run failed that gave no image.

    Args:
        exit_status: Of the process; negative for a signal.
        lines: The last ones of its stderr.
        refusal: The last thing that AWS refused before it began to clean up: the cause, which its own
            lines often hide.
        region: For the words.
    """
    if refusal:
        return aws_errors.translate(refusal, subject=f"region {region}")
    if "already exists" in (words := _cause(lines)):
        return aws_errors.name_taken(words)
    if exit_status < 0:
        return PlatformReplyError(f"ec2uploadimg was killed by signal {-exit_status}")
    if exit_status == 0:
        return PlatformReplyError("ec2uploadimg ended without an image, and without a reason")
    return PlatformReplyError(f"ec2uploadimg failed: {words}")


_CLEAN_UP = "Deleting temporary key pair"  # with this line it begins, whatever became of the upload
_HELPER_FAILED = "command failed on helper instance"  # what comes after this line are consequences


def _cause(lines: Sequence[str]) -> str:
    """Find the line that says what went wrong, before the clean-up."""
    began = next((number for number, line in enumerate(lines) if line.startswith(_CLEAN_UP)), len(lines))
    before = lines[:began] or lines
    return next((line.rstrip(".") for line in before if _HELPER_FAILED in line), last_words(before))


_NOISE = ("Deleting ", "Successfully ", "Traceback ", "  ", "Wait ", "Waiting ", "Aborted ", "During handling ")


def last_words(lines: Sequence[str]) -> str:
    """Return its last line that is neither about cleaning up nor part of a traceback."""
    for line in reversed(lines):
        if line.strip() and not line.startswith(_NOISE):
            return line.strip().rpartition("EC2UploadImgException: ")[2].rstrip(".")
    return "it said nothing"
