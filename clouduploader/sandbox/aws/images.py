"""RegisterImage as Amazon documents it; moto keeps the name and drops everything else.

The facts are those of the API reference, "RegisterImage" and "Image", of the error list of the
EC2 API, and of botocore's model of both.
"""

import base64
import binascii
import re
from collections.abc import Collection, Mapping
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
MAX_DESCRIPTION = 255
MAX_UEFI_DATA = 64000
MAX_TAGS = 50  # EC2 user guide, "Tag restrictions"
MAX_GIB = {"gp2": 16384, "gp3": 65536, "io1": 16384, "io2": 65536, "st1": 16384, "sc1": 16384, "standard": 1024}


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
        uefi_data: In base64, or None.
        deprecation_time: As DescribeImages shows it, or None.
        state_reason: Why it failed, if it did.
    """

    ena_support: bool
    sriov_net_support: str | None
    imds_support: str | None
    tpm_support: str | None
    uefi_data: str | None
    deprecation_time: str | None = None
    state_reason: dict[str, str] | None = None

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
    name = checked_name(ec2, parameters.get("Name"))
    description = checked_description(parameters.get("Description"))
    tags = checked_tags(parameters.get("TagSpecifications"), ("image",))
    architecture = _choice(parameters, "Architecture", ARCHITECTURES, default="i386")
    boot_mode = _choice(parameters, "BootMode", BOOT_MODES)
    tpm_support = _choice(parameters, "TpmSupport", ("v2.0",))
    if tpm_support and boot_mode != "uefi":  # EC2 user guide, "NitroTPM"; tried by users: uefi-preferred is refused too
        raise EC2ClientError("InvalidParameterCombination", "The TpmSupport parameter needs a BootMode of uefi.")
    if architecture == "i386" and boot_mode in ("uefi", "uefi-preferred"):
        raise EC2ClientError("InvalidParameterCombination", "i386 images do not boot by UEFI.")
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
            "uefi_data": _checked_uefi_data(parameters.get("UefiData"), boot_mode),
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
    image.add_tags(tags.get("image", {}))
    return image


def copy_ami(
    ec2: EC2Backend, source: RegisteredImage, *, name: str, description: str, mappings: list[dict[str, Any]]
) -> RegisteredImage:
    """Make a pending AMI that is as another, but for what is given."""
    kept = ("boot_mode", "ena_support", "sriov_net_support", "imds_support", "tpm_support", "uefi_data")
    image = RegisteredImage(
        ec2,
        mappings=mappings,
        kept={key: getattr(source, key) for key in kept},
        shown={
            "name": name,
            "description": description,
            "architecture": source.architecture,
            "virtualization_type": source.virtualization_type,
            "root_device_name": source.root_device_name,
            "image_location": f"{ec2.account_id}/{name}",
            "region_name": f"{ec2.region_name}a",
            "state": "pending",
        },
    )
    ec2.amis[image.id] = image
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
        "EnaSupport RootDeviceName BlockDeviceMappings SriovNetSupport TagSpecifications UefiData"
    )
    parameters = {name: response._get_param(name) for name in names.split()}
    return ActionResult({"ImageId": register(response.ec2_backend, parameters).id})


def answer_deregister_image(response: AmisResponse) -> ActionResult:
    """Take the place of moto's answer to DeregisterImage: the snapshots can go with the image."""
    response.error_on_dryrun()
    ec2, image_id = response.ec2_backend, response._get_param("ImageId")
    snapshot_ids = getattr(ec2.amis.get(image_id), "snapshot_ids", [])
    ec2.deregister_image(image_id)
    if not response._get_bool_param("DeleteAssociatedSnapshots"):
        return ActionResult({"Return": True})
    results = []
    for snapshot_id in snapshot_ids:
        is_shared = any(snapshot_id in getattr(image, "snapshot_ids", ()) for image in ec2.amis.values())
        if not is_shared:
            ec2.delete_snapshot(snapshot_id)
        results.append({"SnapshotId": snapshot_id, "ReturnCode": "skipped" if is_shared else "success"})
    return ActionResult({"Return": True, "DeleteSnapshotResults": results})


def checked_description(text: str | None) -> str:
    """Check the description of an AMI."""
    if len(text or "") > MAX_DESCRIPTION:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value for parameter Description is too long, the maximum is {MAX_DESCRIPTION}."
        )
    if text and not text.isascii():
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({text}) for parameter Description is invalid. Character sets beyond ASCII are not supported.",
        )
    return text or ""


def check_tags(tags: Mapping[str, str], there: Collection[str] = ()) -> None:
    """Check keys and values of tags that a resource is to get (EC2 user guide, "Tag restrictions"; EC2 API, Tag).

    Args:
        tags: The new ones.
        there: The keys that it has already.
    """
    if len({*there, *tags}) > MAX_TAGS:
        raise EC2ClientError("TagLimitExceeded", f"A resource can have no more than {MAX_TAGS} tags.")
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            raise EC2ClientError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        if not 1 <= len(key) <= 127 or len(value or "") > 256:
            raise EC2ClientError("InvalidParameterValue", f"Tag '{key}' exceeds the maximum length.")


def checked_tags(specifications: Any, kinds: tuple[str, ...]) -> dict[str, dict[str, str]]:  # noqa: ANN401
    """Sort tags by what they are for, one of `kinds`."""
    tags: dict[str, dict[str, str]] = {}
    for specification in specifications or []:
        kind = specification.get("ResourceType")
        if kind not in kinds:
            raise EC2ClientError("InvalidParameterValue", f"Only tags for {' and '.join(kinds)} can be given here.")
        given = [(tag["Key"], tag.get("Value", "")) for tag in specification.get("Tags") or []]
        if len(dict(given)) < len(given) or kind in tags:
            raise EC2ClientError("InvalidParameterValue", "Duplicate tag key or resource type specified.")
        check_tags(dict(given))
        tags[kind] = dict(given)
    return tags


def _checked_uefi_data(data: str | None, boot_mode: str | None) -> str | None:
    if not data:
        return None
    if len(data) > MAX_UEFI_DATA:
        raise EC2ClientError("InvalidParameterValue", f"The UefiData parameter is longer than {MAX_UEFI_DATA}.")
    if boot_mode not in ("uefi", "uefi-preferred"):
        raise EC2ClientError(
            "InvalidParameterCombination", "The UefiData parameter needs a BootMode of uefi or uefi-preferred."
        )
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        raise EC2ClientError("InvalidParameterValue", "The UefiData parameter is not in base64.") from None
    return data


def checked_name(ec2: EC2Backend, name: str | None) -> str:
    """Check the name of an AMI that is to be made."""
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
    if ebs.get("Encrypted") is not None or ebs.get("KmsKeyId"):
        raise EC2ClientError(
            "InvalidBlockDeviceMapping", "The encryption state can't be specified together with a snapshot."
        )
    size_gib = int(ebs.get("VolumeSize") or snapshot.volume_size)
    if size_gib < snapshot.volume_size:
        raise EC2ClientError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size_gib}GB is smaller than snapshot '{snapshot_id}', "
            f"expect size >= {snapshot.volume_size}GB",
        )
    volume_type = _choice(ebs, "VolumeType", tuple(MAX_GIB), default="standard") or ""
    if size_gib > MAX_GIB[volume_type]:
        raise EC2ClientError("InvalidParameterValue", f"Volume of {size_gib}GiB is too large for type {volume_type}.")
    kept = {
        "SnapshotId": snapshot_id,
        "VolumeSize": size_gib,
        "VolumeType": volume_type,
        "DeleteOnTermination": bool(ebs.get("DeleteOnTermination", True)),
        "Encrypted": snapshot.encrypted,
        **{key: int(ebs[key]) for key in ("Iops", "Throughput") if ebs.get(key)},
    }
    return {"DeviceName": given["DeviceName"], "Ebs": kept}
