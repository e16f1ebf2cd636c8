"""Find what uploads left in an account by its tags; remove it in the order that AWS's dependencies ask for."""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from clouduploader.errors import AbsentError, ClouduploaderError, NetworkError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import boto, labels
from clouduploader.platforms.ec2.auth import Account
from clouduploader.plugin import (
    CleanUpReport,
    CloudObject,
    Context,
    FoundObject,
    JsonValue,
    ObjectState,
)
from clouduploader.plugin.cleanup import remove_each
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

KINDS = (
    "image",
    "instance",
    "volume",
    "snapshot",
    "key pair",
    "security group",
    "subnet",
    "route table",
    "internet gateway",
    "vpc",
)
"""All kinds of things that an upload makes, in the order in which AWS lets them be removed."""
RETRY_CODES = frozenset(
    {"DependencyViolation", "VolumeInUse", "IncorrectState", "InvalidGroup.InUse", "IncorrectInstanceState"}
)
"""Answers that heal when what was removed before is really gone."""
RETRY_SECONDS = 300.0  # of one clean-up; an instance was seen to need up to a minute to end; AWS promises nothing
PAUSE_SECONDS = 3
THREADS = 20  # regions at once
WAIT_ATTEMPTS = 100  # times PAUSE_SECONDS: as long as RETRY_SECONDS
UNKNOWN = (".NotFound", "NotFoundException")
"""How the codes end by which EC2 denies a thing: InvalidVolume.NotFound, InvalidVpcID.NotFound, ..."""
DEREGISTERED = "InvalidAMIID.Unavailable"
"""The code by which it says that an AMI has been there; EC2 API, "Error codes"."""


class ObjectRemover:
    """Removes things of one upload from one region of an account. Used once.

    Args:
        ctx: Whose reporter is told of each removal.
        account: The account.
        region: That region.
    """

    def __init__(self, ctx: Context, account: Account, region: str) -> None:
        self._ctx = ctx
        self._ec2 = account.ec2(region)
        self._region = region
        self._gone_with_instance: set[str] = set()  # volumes that EC2 removes with their instance
        self._vpcs: list[str] = []
        self._has_removed_image = False
        self._began = ctx.clock.monotonic()

    def remove(self, objects: Sequence[CloudObject]) -> CleanUpReport:
        """Remove what belongs to one upload. Blocks for minutes at worst.

        Instances that were started with one of the key pairs are among them, even if we never learned
        their ids; so are the volumes on them.

        Args:
            objects: Of this upload.
        """
        self._vpcs = [thing.id for thing in objects if thing.kind == "vpc"]
        return remove_each(
            self._ctx,
            list(dict.fromkeys([*objects, *self._helpers(objects)])),
            self._remove,
            order=KINDS,
            seconds=RETRY_SECONDS,
            may_pass=self._may_pass,
        )

    def _helpers(self, objects: Sequence[CloudObject]) -> Iterator[CloudObject]:
        """Find the upload's instances, and the volumes on them that are not removed with them."""
        key_names, known = ([thing.id for thing in objects if thing.kind == kind] for kind in ("key pair", "instance"))
        if not key_names and not known:
            return
        rule: FilterTypeDef = {"Name": "instance-id", "Values": known}
        if key_names:
            rule = {"Name": "key-name", "Values": key_names}
        try:
            with self._ctx.translated(f"region {self._region}"):
                pages = self._ec2.get_paginator("describe_instances").paginate(Filters=[rule])
                found = [item for page in pages for group in page["Reservations"] for item in group["Instances"]]
        except ClouduploaderError as exc:
            self._ctx.reporter.line(f"The helper instance can't be looked for: {exc.message}")
            return
        for item in found:
            if item["State"]["Name"] != "terminated":
                yield CloudObject("instance", item["InstanceId"], self._region)
            for ebs in [mapping["Ebs"] for mapping in item.get("BlockDeviceMappings", []) if "Ebs" in mapping]:
                if ebs.get("DeleteOnTermination"):
                    self._gone_with_instance.add(ebs["VolumeId"])
                else:
                    yield CloudObject("volume", ebs["VolumeId"], self._region)

    def _remove(self, thing: CloudObject) -> None:
        ec2 = self._ec2
        removers: Mapping[str, Callable[[str], object]] = {
            "image": lambda item: ec2.deregister_image(ImageId=item),
            "instance": self._end_instance,
            "volume": lambda item: ec2.delete_volume(VolumeId=item),
            "snapshot": lambda item: ec2.delete_snapshot(SnapshotId=item),
            "key pair": lambda item: ec2.delete_key_pair(KeyName=item),
            "security group": lambda item: ec2.delete_security_group(GroupId=item),
            "subnet": lambda item: ec2.delete_subnet(SubnetId=item),
            "route table": lambda item: ec2.delete_route_table(RouteTableId=item),
            "internet gateway": self._end_gateway,
            "vpc": lambda item: ec2.delete_vpc(VpcId=item),
        }
        if thing.kind not in removers:
            raise PlatformReplyError("clouduploader does not know how to remove that")
        try:
            with self._ctx.translated(f"region {self._region}"):
                removers[thing.kind](thing.id)
        except ClouduploaderError as exc:
            code = boto.refusal_code(exc)
            is_unknown = code.endswith(UNKNOWN)
            if is_unknown and thing.id not in self._gone_with_instance:
                raise AbsentError(exc.message) from exc
            if not is_unknown and code != DEREGISTERED:
                raise
        self._has_removed_image = self._has_removed_image or thing.kind == "image"

    def _end_instance(self, item: str) -> None:
        self._ec2.terminate_instances(InstanceIds=[item])
        self._ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[item], WaiterConfig={"Delay": PAUSE_SECONDS, "MaxAttempts": WAIT_ATTEMPTS}
        )

    def _end_gateway(self, gateway: str) -> None:
        for vpc in self._vpcs:
            try:
                with self._ctx.translated(f"region {self._region}"):
                    self._ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
            except ClouduploaderError as exc:
                if boto.refusal_code(exc) not in ("Gateway.NotAttached", "InvalidVpcID.NotFound"):
                    raise
        self._ec2.delete_internet_gateway(InternetGatewayId=gateway)

    def _may_pass(self, exc: ClouduploaderError) -> bool:
        """Tell whether there is time for another try, and it may help; the SDK has tried several times itself."""
        if self._ctx.clock.monotonic() - self._began >= RETRY_SECONDS:
            return False
        code = boto.refusal_code(exc)
        if code == "InvalidSnapshot.InUse":  # by the image that was removed just before
            return self._has_removed_image
        is_busy = isinstance(exc, TransientError) and not isinstance(exc, NetworkError)
        return is_busy or code in RETRY_CODES


def clean_up(ctx: Context, account: Account, objects: Sequence[CloudObject]) -> CleanUpReport:
    """Remove objects, from all regions at once. Blocks for minutes at worst.

    Raises:
        ClouduploaderError: The credentials can't be had.
    """
    account.keys()
    by_region: dict[str, list[CloudObject]] = {}
    for thing in objects:
        by_region.setdefault(thing.region or account.region, []).append(thing)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="remove") as pool:
        reports = list(pool.map(lambda item: ObjectRemover(ctx, account, item[0]).remove(item[1]), by_region.items()))
    return CleanUpReport(
        tuple(thing for report in reports for thing in report.removed),
        tuple(leftover for report in reports for leftover in report.left),
        tuple(thing for report in reports for thing in report.absent),
    )


@frozen()
class _Listing:
    """How EC2 lists the things of one kind.

    Attributes:
        kind: One of KINDS.
        operation: Of the client.
        path: Where the answer has them: lists in lists.
        id_key: What names one of them, there.
        arguments: Besides the filter.
        time_key: When it was made; "" if AWS does not tell.
    """

    kind: str
    operation: str
    path: tuple[str, ...]
    id_key: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    time_key: str = ""


ALL_IMAGES = {"Owners": ["self"], "IncludeDisabled": True}
LISTINGS = (
    _Listing("image", "describe_images", ("Images",), "ImageId", ALL_IMAGES, "CreationDate"),
    _Listing("instance", "describe_instances", ("Reservations", "Instances"), "InstanceId", time_key="LaunchTime"),
    _Listing("volume", "describe_volumes", ("Volumes",), "VolumeId", time_key="CreateTime"),
    _Listing("snapshot", "describe_snapshots", ("Snapshots",), "SnapshotId", {"OwnerIds": ["self"]}, "StartTime"),
    _Listing("key pair", "describe_key_pairs", ("KeyPairs",), "KeyName", time_key="CreateTime"),
    _Listing("security group", "describe_security_groups", ("SecurityGroups",), "GroupId"),
    _Listing("subnet", "describe_subnets", ("Subnets",), "SubnetId"),
    _Listing("route table", "describe_route_tables", ("RouteTables",), "RouteTableId"),
    _Listing("internet gateway", "describe_internet_gateways", ("InternetGateways",), "InternetGatewayId"),
    _Listing("vpc", "describe_vpcs", ("Vpcs",), "VpcId"),
)
GOING = frozenset({"shutting-down", "terminated"})  # InstanceState of DescribeInstances
UNFINISHED_IMAGE = frozenset({"pending", "failed", "error", "invalid"})  # State of DescribeImages, no image (yet)
COMPLETE = "complete; `clouduploader resume JOB` goes on with it"
COMPLETING = "it may be being completed; `clouduploader resume JOB` goes on with it"


def find(ctx: Context, account: Account, key: str | None) -> list[FoundObject]:
    """Look for what bears the tags of uploads in the context's region; see `Platform.find`.

    Kinds that may not be listed are reported and passed over.

    Raises:
        ClouduploaderError: Snapshots may not be listed, and so it is not known which of them must stay.
    """
    ec2, region = account.ec2(), ctx.region
    chosen: FilterTypeDef = (
        {"Name": f"tag:{labels.KEY}", "Values": [key]} if key else {"Name": "tag-key", "Values": [labels.KEY]}
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for listing in LISTINGS:
        try:
            with ctx.translated(f"region {region}"):
                found[listing.kind] = list(_listed(ec2, listing, [chosen]))
        except ClouduploaderError as exc:
            if listing.kind == "snapshot":  # one that is complete must stay, and the journal knows of it all the same
                raise
            ctx.reporter.line(f"A {listing.kind} left in {region} can't be looked for: {exc.message}")
    users = _users_of_snapshots(ctx, ec2, found.get("snapshot", []))
    leftover = {item["ImageId"] for item in found.get("image", []) if _keep_reason("image", item, {}) is None}
    users = {snapshot_id: user for snapshot_id, user in users.items() if user not in leftover}
    sealed = _sealed(ctx.entries)
    things = []
    for listing in LISTINGS:
        for item in found.get(listing.kind, []):
            if listing.kind == "instance" and item["State"]["Name"] in GOING:
                continue
            bears = labels.as_mapping(item.get("Tags"))
            keep_reason = _keep_reason(listing.kind, item, users, sealed)
            things.append(
                FoundObject(
                    object=CloudObject(listing.kind, str(item[listing.id_key]), region),
                    key=bears.get(labels.KEY, ""),
                    job_name=bears.get(labels.JOB, ""),
                    created=_time(item.get(listing.time_key) or bears.get(labels.STARTED)),
                    keep_reason=keep_reason,
                    state=_state(listing.kind, item, keep_reason),
                )
            )
    return things


def _listed(ec2: "EC2Client", listing: _Listing, filters: "list[FilterTypeDef]") -> Iterator[dict[str, Any]]:
    arguments = {**listing.arguments, "Filters": filters}
    sdk: Any = ec2  # its types know operations by literal names only
    if sdk.can_paginate(listing.operation):
        pages = sdk.get_paginator(listing.operation).paginate(**arguments)
    else:
        pages = [getattr(sdk, listing.operation)(**arguments)]
    for page in pages:
        items = [page]
        for name in listing.path:
            items = [inner for item in items for inner in item.get(name, [])]
        yield from items


def _users_of_snapshots(ctx: Context, ec2: "EC2Client", snapshots: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """Map snapshots to the images that use them; "?" for all where that can't be told."""
    complete = [item["SnapshotId"] for item in snapshots if item.get("State") == "completed"]
    if not complete:
        return {}
    users = {}
    try:
        with ctx.translated(f"region {ctx.region}"):
            for image in _listed(ec2, LISTINGS[0], []):
                for mapping in image.get("BlockDeviceMappings", []):
                    users[mapping.get("Ebs", {}).get("SnapshotId")] = image["ImageId"]
    except ClouduploaderError:
        return dict.fromkeys(complete, "?")
    return users


def _sealed(entries: Sequence[Mapping[str, JsonValue]]) -> set[str]:
    """Return the ids of snapshots that an upload asked EBS to complete and did not give up; see `ebs/snapshot`."""
    found: set[str] = set()
    for entry in entries:
        if entry["what"] == "sealing":
            found.add(str(entry.get("snapshot_id")))
        elif entry["what"] == "discarded":
            found.discard(str(entry.get("snapshot_id")))
    return found


def _keep_reason(
    kind: str, item: Mapping[str, Any], users: Mapping[str, str], sealed: Collection[str] = ()
) -> str | None:
    if kind == "image" and item.get("State") not in UNFINISHED_IMAGE:
        return "an image that can be used"
    if kind == "snapshot" and item.get("State") == "completed":
        user = users.get(item["SnapshotId"])
        if user == "?":
            return "whether an image uses it can't be seen"
        return f"in use by {user}" if user else COMPLETE
    if kind == "snapshot" and item.get("State") == "pending" and item["SnapshotId"] in sealed:
        return COMPLETING  # its completion may have been accepted: it takes minutes to show; if not, EBS drops it
    return None


def _state(kind: str, item: Mapping[str, Any], keep_reason: str | None) -> ObjectState:
    if keep_reason in (COMPLETE, COMPLETING):
        return ObjectState.COMPLETE
    if kind == "snapshot" and item.get("State") == "pending":
        return ObjectState.PENDING
    return ObjectState.READY if keep_reason else ObjectState.PARTIAL


def _time(value: object) -> datetime.datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime.datetime) and value.tzinfo else None
