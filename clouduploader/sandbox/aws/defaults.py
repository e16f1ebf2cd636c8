"""What an account has set for a region as a whole: keys and encryption of EBS, what may be public, where it may work.

The facts are those of the API reference of EC2: GetEbsDefaultKmsKeyId, ModifyEbsDefaultKmsKeyId,
GetImageBlockPublicAccessState, GetSnapshotBlockPublicAccessState and their likes, DescribeRegions; and of that of KMS,
DescribeKey.
"""

import json
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.kms.exceptions import NotFoundException
from moto.kms.responses import KmsResponse

from clouduploader.sandbox.aws import keys
from clouduploader.sandbox.aws.layout import REGIONS

UNBLOCKED = "unblocked"
SNAPSHOT_BLOCKS = ("block-all-sharing", "block-new-sharing")


def encryption_key(ec2: Any) -> str:  # noqa: ANN401  (rules.StrictEC2)
    """Return the ARN of the key that snapshots of a region are encrypted with where none is named."""
    return ec2.default_key_arn or keys.arn(ec2.region_name, keys.MANAGED_ALIAS)


def answer_get_ebs_default_kms_key_id(response: EC2Response) -> ActionResult:
    """Answer GetEbsDefaultKmsKeyId, which moto does not know."""
    response.error_on_dryrun()
    return ActionResult({"KmsKeyId": response.ec2_backend.default_key_arn or keys.MANAGED_ALIAS})


def answer_modify_ebs_default_kms_key_id(response: EC2Response) -> ActionResult:
    """Take the place of moto's answer, which goes by keys of its own."""
    response.error_on_dryrun()
    ec2: Any = response.ec2_backend
    name = response._get_param("KmsKeyId") or ""
    key_arn = keys.resolve(ec2.region_name, name)
    if key_arn is None:
        raise EC2ClientError("InvalidKmsKey.InvalidKeyId", f"The KMS key '{name}' is not valid")
    ec2.default_key_arn = key_arn
    return ActionResult({"KmsKeyId": key_arn})


def answer_reset_ebs_default_kms_key_id(response: EC2Response) -> ActionResult:
    """Answer ResetEbsDefaultKmsKeyId, which moto does not know."""
    response.error_on_dryrun()
    response.ec2_backend.default_key_arn = None
    return ActionResult({"KmsKeyId": keys.arn(response.ec2_backend.region_name, keys.MANAGED_ALIAS)})


def answer_get_image_block_public_access_state(response: EC2Response) -> ActionResult:
    """Answer GetImageBlockPublicAccessState, which moto does not know."""
    response.error_on_dryrun()
    return ActionResult({"ImageBlockPublicAccessState": response.ec2_backend.image_block, "ManagedBy": "account"})


def answer_enable_image_block_public_access(response: EC2Response) -> ActionResult:
    """Answer EnableImageBlockPublicAccess, which moto does not know."""
    response.error_on_dryrun()
    state = response._get_param("ImageBlockPublicAccessState")
    if state != "block-new-sharing":
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{state}' for ImageBlockPublicAccessState.")
    response.ec2_backend.image_block = state
    return ActionResult({"ImageBlockPublicAccessState": state})


def answer_disable_image_block_public_access(response: EC2Response) -> ActionResult:
    """Answer DisableImageBlockPublicAccess, which moto does not know."""
    response.error_on_dryrun()
    response.ec2_backend.image_block = UNBLOCKED
    return ActionResult({"ImageBlockPublicAccessState": UNBLOCKED})


def answer_get_snapshot_block_public_access_state(response: EC2Response) -> ActionResult:
    """Answer GetSnapshotBlockPublicAccessState, which moto does not know."""
    response.error_on_dryrun()
    return ActionResult({"State": response.ec2_backend.snapshot_block, "ManagedBy": "account"})


def answer_enable_snapshot_block_public_access(response: EC2Response) -> ActionResult:
    """Answer EnableSnapshotBlockPublicAccess, which moto does not know."""
    response.error_on_dryrun()
    state = response._get_param("State")
    if state not in SNAPSHOT_BLOCKS:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{state}' for State.")
    response.ec2_backend.snapshot_block = state
    return ActionResult({"State": state})


def answer_disable_snapshot_block_public_access(response: EC2Response) -> ActionResult:
    """Answer DisableSnapshotBlockPublicAccess, which moto does not know."""
    response.error_on_dryrun()
    response.ec2_backend.snapshot_block = UNBLOCKED
    return ActionResult({"State": UNBLOCKED})


def answer_describe_regions(response: EC2Response) -> ActionResult:
    """Take the place of moto's answer: the sandbox has fewer regions than moto knows of."""
    response.error_on_dryrun()
    names = response._get_param("RegionNames", [])
    if unknown := [name for name in names if name not in REGIONS]:
        raise EC2ClientError("InvalidParameterValue", f"Could not find region(s): {', '.join(unknown)}")
    found = [
        {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": "opt-in-not-required"}
        for name in REGIONS
        if not names or name in names
    ]
    return ActionResult({"Regions": found})


def answer_describe_key(response: KmsResponse) -> str:
    """Take the place of KMS's answer in moto: the keys are those of `keys`."""
    name, region = response._get_param("KeyId"), response.region
    key_arn = keys.resolve(region, name)
    if key_arn is None:
        raise NotFoundException(f"Key '{name}' does not exist")
    metadata = {
        "Arn": key_arn,
        "KeyId": key_arn.rpartition("/")[2],
        "AWSAccountId": key_arn.split(":")[4],
        "Enabled": True,
        "KeyState": "Enabled",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyManager": "AWS" if keys.is_managed(key_arn) else "CUSTOMER",
    }
    return json.dumps({"KeyMetadata": metadata})
