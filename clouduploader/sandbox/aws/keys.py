"""The KMS keys of the account: names, no cryptography.

Each region has the one that AWS manages for EBS, and one of the customer.
"""

import uuid

from moto.core.models import DEFAULT_ACCOUNT_ID

MANAGED_ALIAS = "alias/aws/ebs"
CUSTOMER_ALIAS = "alias/images"
NAMESPACE = uuid.UUID("7d1b0a4e-6a39-4c6b-9a57-3a1f0c8f5a11")  # ours, made up


def arn(region: str, alias: str) -> str:
    """Return the ARN of a region's key."""
    return f"arn:aws:kms:{region}:{DEFAULT_ACCOUNT_ID}:key/{uuid.uuid5(NAMESPACE, f'{region} {alias}')}"


def resolve(region: str, name: str) -> str | None:
    """Find a key of a region.

    Args:
        region: See arn.
        name: A key id, an alias, or the ARN of one of these (API reference of EC2, KmsKeyId).

    Returns:
        Its ARN; None if there is no such key.
    """
    for alias in (MANAGED_ALIAS, CUSTOMER_ALIAS):
        key_arn = arn(region, alias)
        if name in (key_arn, key_arn.rpartition("/")[2], alias, f"{key_arn.partition(':key/')[0]}:{alias}"):
            return key_arn
    return None


def is_managed(key_arn: str | None) -> bool:
    """Return whether it is AWS's own, of any region."""
    return key_arn is not None and key_arn == arn(key_arn.split(":")[3], MANAGED_ALIAS)
