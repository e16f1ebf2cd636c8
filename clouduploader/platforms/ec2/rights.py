"""What the user's role must allow, and to whom: the policies that `account show` prints and the reference shows."""

from collections.abc import Sequence

from clouduploader.plugin import JsonValue

VERSION = "2012-10-17"  # of the policy language; IAM User Guide, "IAM JSON policy elements: Version"

ACTIONS = {
    # The first 34 are what ec2uploadimg was seen to call in one upload, the last two remove what a killed one made.
    "ec2uploadimg": (
        "ec2:AssociateRouteTable",
        "ec2:AttachInternetGateway",
        "ec2:AttachVolume",
        "ec2:AuthorizeSecurityGroupIngress",
        "ec2:CreateInternetGateway",
        "ec2:CreateKeyPair",
        "ec2:CreateRoute",
        "ec2:CreateRouteTable",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSnapshot",
        "ec2:CreateSubnet",
        "ec2:CreateTags",
        "ec2:CreateVolume",
        "ec2:CreateVpc",
        "ec2:DeleteInternetGateway",
        "ec2:DeleteKeyPair",
        "ec2:DeleteRoute",
        "ec2:DeleteRouteTable",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteSubnet",
        "ec2:DeleteVolume",
        "ec2:DeleteVpc",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSnapshots",
        "ec2:DescribeSubnets",
        "ec2:DescribeVolumes",
        "ec2:DetachInternetGateway",
        "ec2:DetachVolume",
        "ec2:ModifySubnetAttribute",
        "ec2:RegisterImage",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "ec2:DeregisterImage",
        "ec2:DeleteSnapshot",
    ),
    # The last two remove what a failed or killed upload leaves.
    "ebs-direct": (
        "ebs:StartSnapshot",
        "ebs:PutSnapshotBlock",
        "ebs:CompleteSnapshot",
        "ebs:ListSnapshotBlocks",
        "ebs:GetSnapshotBlock",
        "ec2:CreateTags",
        "ec2:DescribeImages",
        "ec2:DescribeSnapshots",
        "ec2:RegisterImage",
        "ec2:DeregisterImage",
        "ec2:DeleteSnapshot",
    ),
    # The last six only ask: what an image of an earlier upload is, and what would be refused after this one.
    "copies": (
        "ec2:CopyImage",
        "ec2:ModifyImageAttribute",
        "ec2:ModifySnapshotAttribute",
        "ec2:EnableImageDeprecation",
        "ec2:DescribeImageAttribute",
        "ec2:DescribeRegions",
        "ec2:GetEbsDefaultKmsKeyId",
        "ec2:GetEbsEncryptionByDefault",
        "ec2:GetImageBlockPublicAccessState",
        "ec2:GetSnapshotBlockPublicAccessState",
    ),
    "kms": (
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKeyWithoutPlaintext",
    ),
    "cleanup": (
        "ec2:DescribeVpcs",
        "ec2:DescribeKeyPairs",
        "ec2:DescribeRouteTables",
        "ec2:DescribeInternetGateways",
    ),
}
"""The actions of each policy, by what it is for."""
OF_METHOD = {
    "ec2uploadimg": ("ec2uploadimg",),
    "ebs-direct": ("ebs-direct",),
    "auto": ("ebs-direct", "ec2uploadimg"),
}
"""Which policies an upload by a method needs."""
EXTRAS = {
    "copies": "copies, sharing, deprecation and changes of an image",
    "kms": "a KMS key",
    "cleanup": "`cleanup` by tags",
}
"""Policies for what not everybody wants."""

Document = dict[str, JsonValue]


def trust(*, partition: str, account_id: str, external_id: str) -> Document:
    """Make the policy by which a role lets in this service, and through it only the user with the external id.

    Args:
        partition: Of AWS, `aws` for most.
        account_id: The service's own.
        external_id: The user's.
    """
    statement: JsonValue = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{partition}:iam::{account_id}:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
    }
    return {"Version": VERSION, "Statement": [statement]}


def permissions(name: str) -> Document:
    """Make a policy that allows what stands under a name in ACTIONS."""
    statement: JsonValue = {"Effect": "Allow", "Resource": "*", "Action": list(ACTIONS[name])}
    return {"Version": VERSION, "Statement": [statement]}


def names(method: str, extras: Sequence[str]) -> list[str]:
    """List the policies that a role needs, each once, in the order of ACTIONS."""
    wanted = {*OF_METHOD[method], *extras}
    return [name for name in ACTIONS if name in wanted]
