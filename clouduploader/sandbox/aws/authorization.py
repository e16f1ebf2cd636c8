"""What EC2 asks IAM before it does a call: about each resource by itself, and about the tags of what is made.

Source: the service authorization reference, "Actions, resources, and condition keys for Amazon EC2". A call that is not
in RESOURCES is asked about as a whole, without tags.
"""

import re
from collections.abc import Mapping
from typing import Any

from clouduploader.sandbox.aws.policies import Context, Request, Rights
from clouduploader.util.frozen import frozen


@frozen()
class Use:
    """A resource that a call is about.

    Attributes:
        kind: The word of its ARN.
        argument: Names it, a pattern; "" for what the call makes.
    """

    kind: str
    argument: str = ""


def _made(*kinds: str) -> tuple[Use, ...]:
    return tuple(Use(kind) for kind in kinds)


def _there(**arguments: str) -> tuple[Use, ...]:
    return tuple(Use(kind.replace("_", "-"), argument) for kind, argument in arguments.items())


RESOURCES: Mapping[str, tuple[Use, ...]] = {
    "AssociateRouteTable": _there(route_table="RouteTableId", subnet="SubnetId", internet_gateway="GatewayId"),
    "AttachInternetGateway": _there(internet_gateway="InternetGatewayId", vpc="VpcId"),
    "AttachVolume": _there(instance="InstanceId", volume="VolumeId"),
    "AuthorizeSecurityGroupIngress": (*_there(security_group="GroupId"), *_made("security-group-rule")),
    # The source's own tags are not asked for.
    "CopyImage": (*_made("image", "snapshot"), Use("image", "SourceImageId")),
    "CreateInternetGateway": _made("internet-gateway"),
    "CreateKeyPair": _made("key-pair"),
    "CreateRoute": _there(route_table="RouteTableId"),
    "CreateRouteTable": (*_made("route-table"), *_there(vpc="VpcId")),
    "CreateSecurityGroup": (*_made("security-group"), *_there(vpc="VpcId")),
    "CreateSnapshot": (*_made("snapshot"), *_there(volume="VolumeId")),
    "CreateSubnet": (*_made("subnet"), *_there(vpc="VpcId")),
    "CreateTags": (Use("*", r"ResourceId\.\d+"),),
    "CreateVolume": (*_made("volume"), *_there(snapshot="SnapshotId")),
    "CreateVpc": _made("vpc"),
    "DeleteInternetGateway": _there(internet_gateway="InternetGatewayId"),
    "DeleteKeyPair": _there(key_pair="KeyName"),
    "DeleteRoute": _there(route_table="RouteTableId"),
    "DeleteRouteTable": _there(route_table="RouteTableId"),
    "DeleteSecurityGroup": _there(security_group="GroupId"),
    "DeleteSnapshot": _there(snapshot="SnapshotId"),
    "DeleteSubnet": _there(subnet="SubnetId"),
    "DeleteVolume": _there(volume="VolumeId"),
    "DeleteVpc": _there(vpc="VpcId"),
    "DeregisterImage": _there(image="ImageId"),
    "DescribeImageAttribute": _there(image="ImageId"),
    "DetachInternetGateway": _there(internet_gateway="InternetGatewayId", vpc="VpcId"),
    "DetachVolume": _there(volume="VolumeId", instance="InstanceId"),
    "EnableImageDeprecation": _there(image="ImageId"),
    "ModifyImageAttribute": _there(image="ImageId"),
    "ModifySnapshotAttribute": _there(snapshot="SnapshotId"),
    "ModifySubnetAttribute": _there(subnet="SubnetId"),
    "RegisterImage": (*_made("image"), *_there(snapshot=r"BlockDeviceMapping\.\d+\.Ebs\.SnapshotId")),
    "RunInstances": (
        *_made("instance", "volume", "network-interface"),
        *_there(
            image="ImageId",
            key_pair="KeyName",
            snapshot=r"BlockDeviceMapping\.\d+\.Ebs\.SnapshotId",
            security_group=r"(?:NetworkInterface\.\d+\.)?SecurityGroupId\.\d+",
            subnet=r"(?:NetworkInterface\.\d+\.)?SubnetId",
        ),
    ),
    "TerminateInstances": _there(instance=r"InstanceId\.\d+"),
}
KINDS = {
    "ami": "image",
    "eipassoc": "elastic-ip",
    "i": "instance",
    "igw": "internet-gateway",
    "key": "key-pair",
    "rtb": "route-table",
    "sg": "security-group",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
"""What the ids begin with, and the words of ARNs."""
WITHOUT_ACCOUNT = ("image", "snapshot")  # "arn:${Partition}:ec2:${Region}::snapshot/${SnapshotId}"


class AboutNothing(dict[str, str | tuple[str, ...]]):
    """A context about a thing that is not there. It has every tag, for EC2 answers before IAM that there is none.

    The driver of Kubernetes for EBS, which may delete volumes with a certain tag only, relies on NotFound for one that
    is gone.
    """

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401 dict's
        """Return what there is, and "" for a tag."""
        return super().get(key, "" if ":resourcetag/" in key else default)


_TAG = re.compile(r"TagSpecification\.(\d+)\.Tag\.(\d+)\.Key")


def arn(region: str, account_id: str, kind: str, name: str) -> str:
    """Make the ARN of a resource of EC2."""
    return f"arn:aws:ec2:{region}:{'' if kind in WITHOUT_ACCOUNT else account_id}:{kind}/{name}"


def request_tags(tags: Mapping[str, str]) -> Context:
    """Make the keys of conditions for the tags of a request; none if it has none."""
    keys: Context = {f"aws:requesttag/{name.lower()}": value for name, value in tags.items()}
    return {**keys, "aws:tagkeys": tuple(tags)} if tags else {}


def resource_tags(tags: Mapping[str, str]) -> Context:
    """Make the keys of conditions for the tags that a resource has."""
    prefixes = ("aws:resourcetag", "ec2:resourcetag")
    return {f"{prefix}/{name.lower()}": value for prefix in prefixes for name, value in tags.items()}


class Ec2Call:
    """One call of EC2, as far as IAM is asked about it.

    Args:
        ec2: moto's backend of the region.
        action: For example DeleteSnapshot.
        form: The arguments as they came.
    """

    def __init__(self, ec2: Any, action: str, form: Mapping[str, str]) -> None:  # noqa: ANN401 moto's
        self._ec2 = ec2
        self._action = action
        self._form = form
        self._everywhere: Context = {"aws:requestedregion": ec2.region_name}

    def refused(self, rights: Rights) -> Request | None:
        """Return the first question that is answered with no; None if there is none."""
        return next((request for request in self.requests() if not rights.allow(request)), None)

    def requests(self) -> list[Request]:
        """List what IAM is asked."""
        action, uses = f"ec2:{self._action}", RESOURCES.get(self._action, ())
        asked = [
            Request(action, self._arn(use.kind, "*"), {**self._everywhere, **self._new_tags(use.kind)})
            for use in uses
            if not use.argument
        ]
        asked += [self._about(action, use.kind, name) for use in uses if use.argument for name in self._named(use)]
        for kind in sorted({use.kind for use in uses if not use.argument}):
            if tags := self._new_tags(kind):
                context: Context = {**self._everywhere, **tags, "ec2:createaction": self._action}
                asked.append(Request("ec2:CreateTags", self._arn(kind, "*"), context))
        return asked or [Request(action, "*", self._everywhere)]

    def _about(self, action: str, kind: str, name: str) -> Request:
        """Ask about a thing that is there, by its tags."""
        kind = KINDS.get(name.partition("-")[0], kind) if kind == "*" else kind
        given = request_tags(self._plain_tags()) if self._action == "CreateTags" else {}
        tags = self._tags_of(kind, name)
        context = {**self._everywhere, **given, **resource_tags(tags or {})}
        return Request(action, self._arn(kind, name), AboutNothing(context) if tags is None else context)

    def _named(self, use: Use) -> list[str]:
        return [value for name, value in self._form.items() if re.fullmatch(use.argument, name) and value]

    def _tags_of(self, kind: str, name: str) -> dict[str, str] | None:
        """Return the tags of a thing; None if there is none."""
        ec2 = self._ec2
        if kind == "key-pair":
            pair = ec2.key_pairs.get(name)
            name = pair.id if pair else ""
            return dict(ec2.tags.get(name, {})) if pair else None
        if kind == "image" and self._action == "CopyImage":
            return {}
        places: Mapping[str, Any] = {
            "image": ec2.amis,
            "internet-gateway": ec2.internet_gateways,
            "route-table": ec2.route_tables,
            "snapshot": ec2.snapshots,
            "volume": ec2.volumes,
            "vpc": ec2.vpcs,
            "instance": {item.id for item in ec2.all_instances()},
            "security-group": {key for groups in ec2.groups.values() for key in groups},
            "subnet": {key for subnets in ec2.subnets.values() for key in subnets},
        }
        return dict(ec2.tags.get(name, {})) if name in places.get(kind, ()) else None

    def _new_tags(self, kind: str) -> Context:
        found = {}
        for name, key in self._form.items():
            if match := _TAG.fullmatch(name):
                number, place = match.groups()
                if self._form.get(f"TagSpecification.{number}.ResourceType") == kind:
                    found[key] = self._form.get(f"TagSpecification.{number}.Tag.{place}.Value", "")
        return request_tags(found)

    def _plain_tags(self) -> dict[str, str]:
        keys = {name: value for name, value in self._form.items() if re.fullmatch(r"Tag\.\d+\.Key", name)}
        return {key: self._form.get(f"{name.removesuffix('Key')}Value", "") for name, key in keys.items()}

    def _arn(self, kind: str, name: str) -> str:
        return arn(self._ec2.region_name, self._ec2.account_id, kind, name)
