"""What is done to an AMI that is there: shared, described, deprecated.

The facts are those of the API reference, "ModifyImageAttribute", "ModifySnapshotAttribute" and
"EnableImageDeprecation", and of the EC2 user guide, "Shared AMI usage".
"""

import datetime
import re
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.amis import AmisResponse

from clouduploader.sandbox.aws import defaults, images, keys
from clouduploader.sandbox.aws.images import RegisteredImage

# What one may share with, and how it is written.
PERMISSIONS = {
    "UserId": re.compile(r"\d{12}"),
    "Group": re.compile("all"),
    "OrganizationArn": re.compile(r"arn:aws[a-z-]*:organizations::\d{12}:organization/o-[a-z0-9]{10,32}"),
    "OrganizationalUnitArn": re.compile(
        r"arn:aws[a-z-]*:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}"
    ),
}
LISTS = {
    "UserIds": "UserId",
    "UserGroups": "Group",
    "OrganizationArns": "OrganizationArn",
    "OrganizationalUnitArns": "OrganizationalUnitArn",
}
ATTRIBUTES = {
    "description": ("Description", "description"),
    "bootMode": ("BootMode", "boot_mode"),
    "tpmSupport": ("TpmSupport", "tpm_support"),
    "uefiData": ("UefiData", "uefi_data"),
    "imdsSupport": ("ImdsSupport", "imds_support"),
    "sriovNetSupport": ("SriovNetSupport", "sriov_net_support"),
}
MAX_GRANTS = 500  # "up to 500 modifications to a snapshot in a single operation"
YEAR = datetime.timedelta(days=365)
MAX_DEPRECATION = 10 * YEAR
MAX_PUBLIC_DEPRECATION = 2 * YEAR  # from its creation on


def answer_modify_image_attribute(response: AmisResponse) -> EmptyResult:
    """Take the place of moto's answer to ModifyImageAttribute."""
    response.error_on_dryrun()
    image = _image(response)
    attribute = response._get_param("Attribute")
    description = response._get_param("Description") or {}
    imds_support = response._get_param("ImdsSupport") or {}
    given = [name for name in ("Description", "ImdsSupport", "LaunchPermission") if response._get_param(name)]
    if len(given) > 1:
        raise EC2ClientError("InvalidParameterCombination", "Only one attribute can be modified at a time.")
    if attribute == "description" or description:
        image.description = images.checked_description(description.get("Value", response._get_param("Value")))
    elif attribute == "imdsSupport" or imds_support:
        if imds_support.get("Value", response._get_param("Value")) != "v2.0":
            raise EC2ClientError("InvalidParameterValue", "ImdsSupport can be v2.0 only.")
        image.imds_support = "v2.0"
    else:
        _change_permissions(image, response)
    return EmptyResult()


def _change_permissions(image: RegisteredImage, response: AmisResponse) -> None:
    changes = response._get_param("LaunchPermission") or {}
    added, removed = list(changes.get("Add") or []), list(changes.get("Remove") or [])
    operation = response._get_param("OperationType")
    if operation not in (None, "add", "remove"):
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{operation}' for OperationType.")
    listed = [{key: value} for name, key in LISTS.items() for value in response._get_param(name) or []]
    (removed if operation == "remove" else added).extend(listed)
    if not added and not removed:
        raise EC2ClientError("MissingParameter", "The request must contain an attribute to be modified.")
    for permission in (*added, *removed):
        for key, value in permission.items():
            if not PERMISSIONS[key].fullmatch(value):
                raise EC2ClientError(
                    "InvalidAMIAttributeItemValue", f'Invalid attribute item value "{value}" for {key}'
                )
    if added:
        _check_can_be_shared(image, is_public={"Group": "all"} in added)
        if {"Group": "all"} in added and image.ec2_backend.image_block != defaults.UNBLOCKED:
            raise EC2ClientError(
                "OperationNotPermitted", "You can't publicly share this image because block public access is enabled."
            )
    kept = [permission for permission in image.launch_permissions if permission not in removed]
    image.launch_permissions = kept + [permission for permission in added if permission not in kept]


def _check_can_be_shared(image: RegisteredImage, *, is_public: bool) -> None:
    for snapshot_id in image.snapshot_ids:
        snapshot = image.ec2_backend.snapshots[snapshot_id]
        if snapshot.encrypted and is_public:
            raise EC2ClientError("OperationNotPermitted", "An AMI with encrypted snapshots can't be made public.")
        if snapshot.encrypted and keys.is_managed(snapshot.kms_key_id):
            raise EC2ClientError("OperationNotPermitted", "An AMI encrypted with the AWS managed key can't be shared.")


def answer_modify_snapshot_attribute(response: AmisResponse) -> EmptyResult:
    """Take the place of moto's answer, which knows neither the list of changes nor the rules."""
    response.error_on_dryrun()
    ec2: Any = response.ec2_backend
    snapshot = ec2.get_snapshot(response._get_param("SnapshotId"))
    if response._get_param("Attribute") not in (None, "createVolumePermission"):
        raise EC2ClientError("InvalidParameterValue", "Only createVolumePermission can be modified.")
    changes = response._get_param("CreateVolumePermission") or {}
    added, removed = list(changes.get("Add") or []), list(changes.get("Remove") or [])
    listed = [
        {key: value}
        for name, key in (("UserIds", "UserId"), ("GroupNames", "Group"))
        for value in response._get_param(name) or []
    ]
    (removed if response._get_param("OperationType") == "remove" else added).extend(listed)
    if not added and not removed:
        raise EC2ClientError("MissingParameter", "The request must contain an attribute to be modified.")
    if added and removed:
        raise EC2ClientError("InvalidParameterCombination", "Permissions can't be added and removed at once.")
    if len(added + removed) > MAX_GRANTS:
        raise EC2ClientError("InvalidParameterValue", f"More than {MAX_GRANTS} modifications at once.")
    for permission in (*added, *removed):
        for key, value in permission.items():
            if key not in ("UserId", "Group") or not PERMISSIONS[key].fullmatch(value):
                raise EC2ClientError("InvalidAttributeValue", f'Invalid attribute item value "{value}" for {key}')
    if added:
        _check_snapshot_can_be_shared(ec2, snapshot, is_public={"Group": "all"} in added)
    for permission in added:
        snapshot.create_volume_permission_userids |= {permission[key] for key in permission if key == "UserId"}
        snapshot.create_volume_permission_groups |= {permission[key] for key in permission if key == "Group"}
    for permission in removed:
        snapshot.create_volume_permission_userids -= set(permission.values())
        snapshot.create_volume_permission_groups -= set(permission.values())
    return EmptyResult()


def _check_snapshot_can_be_shared(ec2: Any, snapshot: Any, *, is_public: bool) -> None:  # noqa: ANN401
    if snapshot.encrypted and is_public:
        raise EC2ClientError("OperationNotPermitted", "Encrypted snapshots can't be made public.")
    if snapshot.encrypted and keys.is_managed(snapshot.kms_key_id):
        raise EC2ClientError("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
    if is_public and ec2.snapshot_block != defaults.UNBLOCKED:
        raise EC2ClientError(
            "OperationNotPermitted", "You can't publicly share this snapshot because block public access is enabled."
        )


def answer_describe_image_attribute(response: AmisResponse) -> ActionResult:
    """Take the place of moto's answer to DescribeImageAttribute."""
    response.error_on_dryrun()
    image = _image(response)
    attribute = response._get_param("Attribute")
    if attribute == "launchPermission":
        return ActionResult({"ImageId": image.id, "LaunchPermissions": image.launch_permissions})
    if attribute not in ATTRIBUTES:
        raise EC2ClientError("InvalidRequest", f"The sandbox keeps no attribute '{attribute}'.")
    shown, kept = ATTRIBUTES[attribute]
    return ActionResult({"ImageId": image.id, shown: {"Value": getattr(image, kept)}})


def answer_enable_image_deprecation(response: AmisResponse) -> ActionResult:
    """Answer EnableImageDeprecation, which moto does not know."""
    response.error_on_dryrun()
    image = _image(response)
    given: Any = response._get_param("DeprecateAt")
    if not given:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter DeprecateAt")
    moment = given if isinstance(given, datetime.datetime) else datetime.datetime.fromisoformat(given)
    moment = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).astimezone(datetime.UTC)
    # "Amazon EC2 rounds the seconds to the nearest minute"
    moment = (moment + datetime.timedelta(seconds=30)).replace(second=0, microsecond=0)
    now = datetime.datetime.now(datetime.UTC)
    created = image.creation_date.replace(tzinfo=datetime.UTC)
    limit = created + MAX_PUBLIC_DEPRECATION if image.is_public else now + MAX_DEPRECATION
    if not now < moment <= limit:
        raise EC2ClientError(
            "InvalidParameterValue", f"The deprecation date must be in the future, and not after {limit.isoformat()}."
        )
    image.deprecation_time = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return ActionResult({"Return": True})


def answer_disable_image_deprecation(response: AmisResponse) -> ActionResult:
    """Answer DisableImageDeprecation, which moto does not know."""
    response.error_on_dryrun()
    _image(response).deprecation_time = None
    return ActionResult({"Return": True})


def _image(response: AmisResponse) -> RegisteredImage:
    """Find the image that is meant, which must not be pending (error list of EC2, InvalidAMIID.Unavailable)."""
    image_id = response._get_param("ImageId")
    image = response.ec2_backend.amis.get(image_id)
    if image is None:
        raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if image.state != "available":
        raise EC2ClientError("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available")
    assert isinstance(image, RegisteredImage)  # noqa: S101  (no others are made)
    return image
