"""RegisterImage as Amazon documents it; moto keeps the name and drops everything else.

The facts are those of the API reference, "RegisterImage" and "Image", of the error list of the
EC2 API, and of botocore's model of both.
"""

import re
from collections.abc import Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.utils import random_ami_id

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
ARCHITECTURES = ("i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac")
BOOT_MODES = ("legacy-bios", "uefi", "uefi-preferred")
VOLUME_TYPES = ("standard", "io1", "io2", "gp2", "gp3", "sc1", "st1")
MAX_DESCRIPTION = 255


class RegisteredImage(Ami):
    """An AMI that keeps what it was registered with.

    Args:
        ec2: Of the region.
        mappings: Block devices, as DescribeImages is to show them.
        kept: Attributes that moto's class has no argument for.
        shown: Arguments of moto's class.

    Attributes:
        ena_support: See RegisterImage, as all others.
        boot_mode: One of BOOT_MODES or None.
        sriov_net_support: "simple" or None.
        imds_support: "v2.0" or None.
        tpm_support: "v2.0" or None.
    """

    ena_support: bool
    sriov_net_support: str | None
    imds_support: str | None
    tpm_support: str | None

    def __init__(
        self,
        ec2: EC2Backend,
        *,
        mappings: list[dict[str, Any]],
        kept: Mapping[str, bool | str | None],
        shown: Mapping[str, Any],
    ) -> None:
        self._mappings = mappings
        super().__init__(ec2, random_ami_id(), root_device_type="ebs", hypervisor="xen", **shown)
        for name, value in kept.items():
            setattr(self, name, value)
        # moto made a snapshot of nothing; ours are those that were given.
        del ec2.snapshots[self.ebs_snapshot.id]

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """As registered, with the snapshot's size where none was given."""
        return self._mappings

    @property
    def snapshot_ids(self) -> list[str]:
        """The snapshots that can't be deleted as long as this exists."""
        return [mapping["Ebs"]["SnapshotId"] for mapping in self._mappings if "Ebs" in mapping]


def register(ec2: EC2Backend, parameters: Mapping[str, Any]) -> RegisteredImage:
    """Check and keep an AMI.

    Args:
        ec2: Of the region.
        parameters: Those of RegisterImage, as Python values.

    Raises:
        EC2ClientError: With Amazon's code.
    """
    name = _checked_name(ec2, parameters.get("Name"))
    description = parameters.get("Description") or ""
    if len(description) > MAX_DESCRIPTION:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value for parameter Description is too long, the maximum is {MAX_DESCRIPTION}."
        )
    architecture = _choice(parameters, "Architecture", ARCHITECTURES, default="i386")
    boot_mode = _choice(parameters, "BootMode", BOOT_MODES)
    tpm_support = _choice(parameters, "TpmSupport", ("v2.0",))
    if tpm_support and boot_mode not in ("uefi", "uefi-preferred"):
        raise EC2ClientError(
            "InvalidParameterCombination", "The TpmSupport parameter needs a BootMode of uefi or uefi-preferred."
        )
    virtualization = _choice(parameters, "VirtualizationType", ("hvm", "paravirtual"), default="paravirtual")
    if virtualization == "paravirtual" and not parameters.get("KernelId"):
        raise EC2ClientError("InvalidAMIAttributeValue", "A paravirtual image needs a kernel.")
    if architecture == "arm64" and (boot_mode == "legacy-bios" or not parameters.get("EnaSupport")):
        raise EC2ClientError("InvalidParameterCombination", "arm64 images need ENA and UEFI.")
    root_device = parameters.get("RootDeviceName") or ""
    mappings = [_checked_mapping(ec2, given) for given in parameters.get("BlockDeviceMappings") or []]
    if root_device not in [mapping["DeviceName"] for mapping in mappings]:
        raise EC2ClientError(
            "InvalidBlockDeviceMapping", f"The root device '{root_device}' is not in the block device mapping."
        )
    image = RegisteredImage(
        ec2,
        mappings=mappings,
        kept={
            "boot_mode": boot_mode,
            "ena_support": bool(parameters.get("EnaSupport")),
            "sriov_net_support": _choice(parameters, "SriovNetSupport", ("simple",)),
            "imds_support": _choice(parameters, "ImdsSupport", ("v2.0",)),
            "tpm_support": tpm_support,
        },
        shown={
            "name": name,
            "description": description,
            "architecture": architecture,
            "virtualization_type": virtualization,
            "root_device_name": root_device,
            "image_location": f"{ec2.account_id}/{name}",
            "region_name": f"{ec2.region_name}a",
        },
    )
    ec2.amis[image.id] = image
    for specification in parameters.get("TagSpecifications") or []:
        if specification.get("ResourceType") != "image":
            raise EC2ClientError("InvalidParameterValue", "Only tags for image can be given here.")
        image.add_tags({tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags", [])})
    return image


def register_helper(ec2: EC2Backend, size_gib: int) -> str:
    """Make the AMI that helper instances are launched from, with a snapshot of its own.

    Returns:
        Its id.
    """
    volume = ec2.create_volume(size_gib, f"{ec2.region_name}a")
    snapshot = ec2.create_snapshot(volume.id, "helper")
    ec2.delete_volume(volume.id)
    parameters = {
        "Name": "sandbox-helper",
        "Description": "The helper instance of the sandbox",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot.id}}],
    }
    return register(ec2, parameters).id


def answer_register_image(response: AmisResponse) -> ActionResult:
    """Take the place of moto's answer to RegisterImage."""
    response.error_on_dryrun()
    names = (
        "Name Description Architecture BootMode TpmSupport ImdsSupport VirtualizationType KernelId "
        "EnaSupport RootDeviceName BlockDeviceMappings SriovNetSupport TagSpecifications"
    )
    parameters = {name: response._get_param(name) for name in names.split()}
    return ActionResult({"ImageId": register(response.ec2_backend, parameters).id})


def _checked_name(ec2: EC2Backend, name: str | None) -> str:
    if not name:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter Name")
    if not NAME.fullmatch(name):
        raise EC2ClientError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, "
            "'(', ')', '.', '-', '/' and '_'",
        )
    for image in ec2.amis.values():
        if image.name == name and image.owner_id == ec2.account_id:
            raise EC2ClientError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")
    return name


def _choice(
    parameters: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str | None = None
) -> str | None:
    value = parameters.get(key)
    if value is None or value == "":
        return default
    if value not in allowed:
        raise EC2ClientError("InvalidParameterValue", f"Value ({value}) for parameter {key} is invalid.")
    return str(value)


def _checked_mapping(ec2: EC2Backend, given: dict[str, Any]) -> dict[str, Any]:
    ebs = given.get("Ebs")
    if not ebs:
        return dict(given)
    snapshot_id = ebs.get("SnapshotId")
    snapshot = ec2.snapshots.get(snapshot_id)
    if snapshot is None:
        raise EC2ClientError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    if snapshot.status != "completed":
        raise EC2ClientError("IncorrectState", f"Snapshot '{snapshot_id}' is not completed.")
    size_gib = int(ebs.get("VolumeSize") or snapshot.volume_size)
    if size_gib < snapshot.volume_size:
        raise EC2ClientError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size_gib}GB is smaller than snapshot '{snapshot_id}', "
            f"expect size >= {snapshot.volume_size}GB",
        )
    volume_type = _choice(ebs, "VolumeType", VOLUME_TYPES, default="standard")
    kept = {
        "SnapshotId": snapshot_id,
        "VolumeSize": size_gib,
        "VolumeType": volume_type,
        "DeleteOnTermination": bool(ebs.get("DeleteOnTermination", True)),
        "Encrypted": snapshot.encrypted,
    }
    return {"DeviceName": given["DeviceName"], "Ebs": kept}
