"""What the calls that ec2uploadimg makes create and remove."""

from collections.abc import Mapping
from typing import Any

from clouduploader.plugin import CloudObject

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


def kind_of(operation: str) -> str | None:
    """Return the kind of thing that a call makes, or None."""
    return MAKERS[operation][0] if operation in MAKERS else None


def made(operation: str, answer: Mapping[str, Any], region: str) -> CloudObject | None:
    """Return what a successful call made, or None."""
    if operation not in MAKERS:
        return None
    kind, path = MAKERS[operation]
    found: Any = answer
    for step in path:
        found = found[step]
    return CloudObject(kind, str(found), region)


def removed(operation: str, parameters: Mapping[str, Any], region: str) -> list[CloudObject]:
    """List what a successful call removed."""
    if operation not in REMOVERS:
        return []
    kind, name = REMOVERS[operation]
    value = parameters.get(name, [])
    return [CloudObject(kind, str(item), region) for item in (value if isinstance(value, list) else [value])]
