"""What the user's role must allow, and to whom: the policies that `account show` prints and the reference shows.

Each action is tied to our tag where it can be: what is made must get it, what is there must have it. Which action knows
which condition is said by the service authorization reference of AWS, "Actions, resources, and condition keys" for
Amazon EC2, Amazon Elastic Block Store and AWS KMS. EC2 asks about each resource of a call by itself: about a subnet
that is made by the tags of the request, about its VPC by those that the VPC has.

The policy of a session narrows what the role allows to what the session is for; a role that allows less, or was made
for an earlier version, works as before.
"""

import json
from collections.abc import Mapping, Sequence

from clouduploader.plugin import JsonValue, labels
from clouduploader.util.frozen import frozen

VERSION = "2012-10-17"  # of the policy language; IAM User Guide, "IAM JSON policy elements: Version"
MAX_SESSION_POLICY = 2048  # characters; STS API, AssumeRole, Policy

Document = dict[str, JsonValue]
Condition = Mapping[str, Mapping[str, JsonValue]]

OURS: Condition = {"Null": {f"aws:ResourceTag/{labels.KEY}": "false"}}
"""Met by what bears our tag."""
MADE: Condition = {"Null": {f"aws:RequestTag/{labels.KEY}": "false"}}
"""Met by what gets our tag with the call."""
NO_PARENT: Condition = {"Null": {"ebs:ParentSnapshot": "true"}}
"""Met by a snapshot that holds no blocks of another: these could be read from it."""


@frozen()
class Grant:
    """One statement of a policy.

    Attributes:
        name: Of the statement; may be empty.
        actions: With their service.
        condition: Under which; none for always.
        kinds: Of the things that are meant, by the words of their ARNs; none for all.
    """

    name: str
    actions: tuple[str, ...]
    condition: Condition | None = None
    kinds: tuple[str, ...] = ()

    def statement(self, partition: str) -> Document:
        """Write it as JSON has it."""
        arns = [f"arn:{partition}:ec2:*:*:{kind}/*" for kind in self.kinds]
        name: Document = {"Sid": self.name} if self.name else {}
        condition: Document = {"Condition": _json(self.condition)} if self.condition else {}
        return {
            **name,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": [*arns] if arns else "*",
            **condition,
        }


def _tagging(*makers: str) -> Grant:
    """Allow to tag what these calls make, while they make it: with a tag, what is another's would become ours."""
    condition: Condition = {**MADE, "StringEquals": {"ec2:CreateAction": list(makers)}}
    return Grant("TagWhatIsMade", ("ec2:CreateTags",), condition)


HELPER_MAKERS = (
    "CreateInternetGateway",
    "CreateKeyPair",
    "CreateRouteTable",
    "CreateSecurityGroup",
    "CreateSnapshot",
    "CreateSubnet",
    "CreateVolume",
    "CreateVpc",
    "RegisterImage",
    "RunInstances",
)
"""The calls of ec2uploadimg that make things; `ec2uploadimg/wrapper.py` gives each the tags."""
REMOVERS = (
    "ec2:DeleteInternetGateway",
    "ec2:DeleteKeyPair",
    "ec2:DeleteRouteTable",
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSnapshot",
    "ec2:DeleteSubnet",
    "ec2:DeleteVolume",
    "ec2:DeleteVpc",
    "ec2:DeregisterImage",
    "ec2:DetachInternetGateway",
    "ec2:TerminateInstances",
)
"""What removes things of either method; see `cleanup`."""
BLOCKS = ("ebs:CompleteSnapshot", "ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks", "ebs:PutSnapshotBlock")

GRANTS: Mapping[str, tuple[Grant, ...]] = {
    # 35 of these actions ec2uploadimg was seen to call in one upload, and one removes what a killed one made.
    "ec2uploadimg": (
        Grant("Make", tuple(f"ec2:{name}" for name in HELPER_MAKERS), MADE),
        _tagging(*HELPER_MAKERS),
        Grant(
            "UseWhatIsOurs",
            (
                "ec2:AssociateRouteTable",
                "ec2:AttachInternetGateway",
                "ec2:AttachVolume",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:CreateRoute",
                "ec2:CreateRouteTable",
                "ec2:CreateSecurityGroup",
                "ec2:CreateSnapshot",
                "ec2:CreateSubnet",
                "ec2:CreateTags",
                "ec2:DeleteRoute",
                "ec2:DetachVolume",
                "ec2:ModifySubnetAttribute",
                "ec2:RegisterImage",
                "ec2:RunInstances",
                *REMOVERS,
            ),
            OURS,
        ),
        # A helper starts from an image of another account, may start in a subnet of the user's, and its network
        # interface and the rules of its group get no tags.
        Grant("StartTheHelper", ("ec2:RunInstances",), kinds=("image", "network-interface", "subnet")),
        Grant("GroupInASubnet", ("ec2:CreateSecurityGroup",), kinds=("vpc",)),
        Grant("LetSshIn", ("ec2:AuthorizeSecurityGroupIngress",), kinds=("security-group-rule",)),
        Grant(
            "Look",
            (
                "ec2:DescribeImages",
                "ec2:DescribeInstances",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSnapshots",
                "ec2:DescribeSubnets",
                "ec2:DescribeVolumes",
            ),
        ),
    ),
    "ebs-direct": (
        Grant("Start", ("ebs:StartSnapshot",), {"Null": {**MADE["Null"], **NO_PARENT["Null"]}}),
        Grant("Make", ("ec2:RegisterImage",), MADE),
        # Which of the two StartSnapshot is called there, the reference does not say.
        _tagging("CreateSnapshot", "RegisterImage", "StartSnapshot"),
        Grant(
            "UseWhatIsOurs",
            (*BLOCKS, "ec2:CreateTags", "ec2:DeleteSnapshot", "ec2:DeregisterImage", "ec2:RegisterImage"),
            OURS,
        ),
        Grant("Look", ("ec2:DescribeImages", "ec2:DescribeSnapshots")),
    ),
    # The last of these only ask: what an image of an earlier upload is, and what would be refused after this one.
    "copies": (
        Grant("Make", ("ec2:CopyImage",), MADE),
        # The copies of its snapshots may be tagged under another name; CopySnapshot itself is allowed nowhere.
        _tagging("CopyImage", "CopySnapshot"),
        Grant("CopyFrom", ("ec2:CopyImage",), kinds=("image",)),  # EC2 knows no condition for the source's tags
        Grant(
            "UseWhatIsOurs",
            (
                "ec2:CopyImage",  # from our snapshots, should EC2 ask about them too
                "ec2:DescribeImageAttribute",
                "ec2:EnableImageDeprecation",
                "ec2:ModifyImageAttribute",
                "ec2:ModifySnapshotAttribute",
            ),
            OURS,
        ),
        Grant(
            "Look",
            (
                "ec2:DescribeRegions",
                "ec2:GetEbsDefaultKmsKeyId",
                "ec2:GetEbsEncryptionByDefault",
                "ec2:GetImageBlockPublicAccessState",
                "ec2:GetSnapshotBlockPublicAccessState",
            ),
        ),
    ),
    "kms": (
        # EBS User Guide, "Requirements for Amazon EBS encryption" and "Control access to EBS direct APIs using IAM":
        # grants are needed for EBS alone
        Grant("GrantToEbs", ("kms:CreateGrant",), {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
        Grant(
            "UseTheKey",
            (
                "kms:Decrypt",
                "kms:DescribeKey",
                "kms:Encrypt",
                "kms:GenerateDataKey",
                "kms:GenerateDataKeyWithoutPlaintext",
                "kms:ReEncryptFrom",
                "kms:ReEncryptTo",
            ),
        ),
    ),
    "cleanup": (
        Grant(
            "Look",
            ("ec2:DescribeInternetGateways", "ec2:DescribeKeyPairs", "ec2:DescribeRouteTables", "ec2:DescribeVpcs"),
        ),
    ),
}
"""The statements of each policy, by what it is for."""
OF_METHOD = {
    "ec2uploadimg": ("ec2uploadimg",),
    "ebs-direct": ("ebs-direct",),
    "auto": ("ebs-direct", "ec2uploadimg"),
}
"""Which policies an upload by a method needs."""
BOUNDARY = "boundary"
EXTRAS = {
    "copies": "copies, sharing, deprecation and changes of an image",
    "kms": "a KMS key",
    "cleanup": "`cleanup` by tags",
    BOUNDARY: "a permissions boundary: what the role can do at most, whatever it is given later",
}
"""Policies for what not everybody wants."""


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


def permissions(name: str, partition: str) -> Document:
    """Make a policy that allows what stands under a name in GRANTS."""
    return {"Version": VERSION, "Statement": [grant.statement(partition) for grant in GRANTS[name]]}


def boundary(partition: str) -> Document:
    """Make the policy of a permissions boundary: all that any upload can need, statements of one condition joined."""
    joined: dict[str, Grant] = {}
    for grant in (grant for grants in GRANTS.values() for grant in grants):
        place = json.dumps([grant.kinds, _json(grant.condition)])
        earlier = joined[place].actions if place in joined else ()
        joined[place] = Grant("", tuple(dict.fromkeys([*earlier, *grant.actions])), grant.condition, grant.kinds)
    return {"Version": VERSION, "Statement": [grant.statement(partition) for grant in joined.values()]}


def service(roles: Sequence[str]) -> Document:
    """Make the policy of the service's own user.

    Args:
        roles: Patterns of the ARNs of the roles that it may assume.
    """
    looks = ["ec2:DescribeImages", "ec2:DescribeInstanceTypes"]
    return {
        "Version": VERSION,
        "Statement": [
            {"Sid": "AssumeRoles", "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": list(roles)},
            {"Sid": "LookAtHelpers", "Effect": "Allow", "Action": [*looks], "Resource": "*"},
        ],
    }


def names(method: str, extras: Sequence[str]) -> list[str]:
    """List the policies that a role needs, each once, in the order of GRANTS."""
    wanted = {*OF_METHOD[method], *extras}
    return [name for name in GRANTS if name in wanted]


def actions(name: str) -> list[str]:
    """List the actions of a policy, each once."""
    return list(dict.fromkeys(action for grant in GRANTS[name] for action in grant.actions))


# --- sessions

NOTHING = json.dumps({"Version": VERSION, "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
"""The policy of a session that is only there to see whether the role lets us in."""
ASKED_FOR = {
    "regions": "ec2:CopyImage",
    "share": "ec2:ModifySnapshotAttribute",
    "deprecate_at": "ec2:EnableImageDeprecation",
}
"""Actions that an upload needs only if its target data have the key."""
LOOKS = "ec2:Describe*"  # the role says which of them


def of_upload(targetdata: Mapping[str, JsonValue], method: str, regions: Sequence[str]) -> str:
    """Make the policy of the session of an upload.

    An account may encrypt by a key of its own without the target data saying so, and a change of an image that is
    there is found out late: the rights for both are always there.

    Args:
        targetdata: Those of the upload.
        method: One of OF_METHOD.
        regions: In which it works; empty for any.

    Returns:
        JSON of at most MAX_SESSION_POLICY characters. Regions that do not fit are left out, all of them.
    """
    needed = {action for name in (*OF_METHOD[method], "copies") for action in actions(name)}
    absent = {action for key, action in ASKED_FOR.items() if not targetdata.get(key)}
    free = [LOOKS, *sorted(name for name in needed - absent - {*BLOCKS} if not name.startswith("ec2:Describe"))]
    blocks = tuple(name for name in BLOCKS if name in needed)
    in_regions: Condition = {"StringEquals": {"aws:RequestedRegion": list(regions)}} if regions else {}
    made = _session(
        Grant("", tuple(free), in_regions),
        *([Grant("", blocks, {**OURS, **in_regions})] if blocks else ()),
        Grant("", tuple(actions("kms"))),  # EBS asks KMS where the key is
    )
    return made if len(made) <= MAX_SESSION_POLICY else of_upload(targetdata, method, ())


def of_clean_up() -> str:
    """Make the policy of the session of a clean-up: it removes, and makes nothing.

    It is tied to no tag and no region: what ec2uploadimg made for a role that may not tag has none.
    """
    return _session(Grant("", (LOOKS, *REMOVERS)))


def _session(*grants: Grant) -> str:
    statements: list[JsonValue] = [grant.statement("*") for grant in grants]
    return json.dumps({"Version": VERSION, "Statement": statements}, separators=(",", ":"))


def _json(condition: Condition | None) -> JsonValue:
    return {operator: dict(keys) for operator, keys in (condition or {}).items()}
