"""What we read of AWS's answers, and whether it is there.

The SDK's parsers take a body that was cut off, or that another server made, for an answer in which little stands: all
members of most shapes are optional in its models. Whoever reads an answer that has passed `check` finds what is named
here, and all that is there is of the type that the model gives it.
"""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

READ: Mapping[str, tuple[str, ...]] = {
    "AssumeRole": (
        "Credentials.AccessKeyId",
        "Credentials.SecretAccessKey",
        "Credentials.SessionToken",
        "Credentials.Expiration",
    ),
    "CompleteSnapshot": ("Status",),
    "CopyImage": ("ImageId",),
    "CreateSecurityGroup": ("GroupId",),
    "DescribeImages": ("Images", "Images[].ImageId", "Images[].State"),
    "DescribeInstances": (
        "Reservations",
        "Reservations[].Instances[].InstanceId",
        "Reservations[].Instances[].State.Name",
    ),
    "DescribeInstanceTypes": ("InstanceTypes",),
    "DescribeInternetGateways": ("InternetGateways", "InternetGateways[].InternetGatewayId"),
    "DescribeKey": ("KeyMetadata.Arn",),
    "DescribeKeyPairs": ("KeyPairs", "KeyPairs[].KeyName"),
    "DescribeRouteTables": ("RouteTables", "RouteTables[].RouteTableId"),
    "DescribeSecurityGroups": ("SecurityGroups", "SecurityGroups[].GroupId"),
    "DescribeSnapshots": ("Snapshots", "Snapshots[].SnapshotId", "Snapshots[].State"),
    "DescribeSubnets": ("Subnets", "Subnets[].SubnetId", "Subnets[].VpcId"),
    "DescribeVolumes": ("Volumes", "Volumes[].VolumeId"),
    "DescribeVpcs": ("Vpcs", "Vpcs[].VpcId"),
    "GetCallerIdentity": ("Account", "Arn"),
    "GetSnapshotBlock": ("BlockData",),
    "ListSnapshotBlocks": ("Blocks", "Blocks[].BlockIndex", "Blocks[].BlockToken"),
    "PutSnapshotBlock": ("Checksum",),
    "RegisterImage": ("ImageId",),
    "StartSnapshot": ("SnapshotId",),
}
"""Operations, and the members of their answers that callers read without asking whether they are there.

`[]` stands for each item of a list, which may have none. A member that is an empty string is not there.
"""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "character": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "timestamp": (datetime.datetime,),
}


class HalfAnswerError(Exception):
    """An answer lacks what we read of it, or has it of another type; says what."""


def check(operation: str, answer: Any, service: Any) -> None:  # noqa: ANN401 botocore has no types
    """Find out whether an answer is what its API gives.

    Args:
        operation: Its name in the API.
        answer: As the SDK has parsed it.
        service: botocore's model of the API.

    Raises:
        HalfAnswerError: It is not.
    """
    shape = service.operation_model(operation).output_shape
    if shape is not None:
        _check_types(answer, shape, operation)
    for path in READ.get(operation, ()):
        if not all(_is_there(value) for value in _values(answer, path.replace("[]", ".[]").split("."))):
            raise HalfAnswerError(f"there is no {path} in the answer to {operation}")


def complete_refusal(response: dict[str, Any]) -> None:
    """Give a refusal that has no code one, which says so: all who handle one look at its code."""
    error = response.get("Error")
    if not isinstance(error, dict):
        error = {}
    response["Error"] = error | {
        "Code": str(error.get("Code") or "unknown"),
        "Message": str(error.get("Message") or ""),
    }


def is_of_aws(response: Mapping[str, Any]) -> bool:
    """Whether a refusal, see `complete_refusal`, has a code: else something on the way has answered in AWS's place.

    Where there is none, the SDK gives the status of HTTP for one. A failure (5xx) is one whoever says so.
    """
    code, status = response["Error"]["Code"], response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    return status >= 500 or not (code.isdecimal() or code.lower() == "unknown")


def _is_there(value: Any) -> bool:  # noqa: ANN401 anything
    return value is not None and value != ""


def _values(answer: Any, path: list[str]) -> Iterator[Any]:  # noqa: ANN401 anything
    """What stands at a path: one value, None if it is not there, or one for each item of the lists on the way."""
    if not path:
        yield answer
    elif path[0] == "[]":
        for item in answer or ():
            yield from _values(item, path[1:])
    else:
        yield from _values((answer or {}).get(path[0]), path[1:])


def _check_types(value: Any, shape: Any, where: str) -> None:  # noqa: ANN401 botocore has no types
    kind = shape.type_name
    if kind == "structure":
        _expect(value, (dict,), where)
        for name, member in shape.members.items():
            if value.get(name) is not None:
                _check_types(value[name], member, f"{where}.{name}")
    elif kind == "list":
        _expect(value, (list,), where)
        for item in value:
            _check_types(item, shape.member, f"{where}[]")
    elif kind == "map":
        _expect(value, (dict,), where)
    elif kind in _TYPES:
        _expect(value, _TYPES[kind], where)


def _expect(value: Any, types: tuple[type, ...], where: str) -> None:  # noqa: ANN401 anything
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise HalfAnswerError(f"{where} is not of type {types[0].__name__}")
