"""What uploads left in an account: found by its tags, and removed in the order that AWS's dependencies ask for."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from clouduploader.errors import ClouduploaderError, NetworkError, TransientError
from clouduploader.platforms.ec2 import boto, labels
from clouduploader.platforms.ec2.auth import RoleRequest
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import (
    CleanUpReport,
    CloudObject,
    FoundObject,
    JsonValue,
    Leftover,
    ObjectRemoved,
    ObjectState,
    Reporter,
    visibility,
)
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

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
PAUSE_SECONDS = 3.0
WAIT_ATTEMPTS = 100  # times PAUSE_SECONDS: as long as RETRY_SECONDS
UNKNOWN = (".NotFound", "NotFoundException")
"""How the codes end by which EC2 denies a thing: InvalidVolume.NotFound, InvalidVpcID.NotFound, ..."""
DEREGISTERED = "InvalidAMIID.Unavailable"
"""The code by which it says that an AMI has been there; EC2 API, "Error codes"."""


class _AbsentError(Exception):
    """EC2 says that there is no such thing: it is gone, or was made a moment ago."""


class ObjectRemover:
    """Removes things from one region of an account.

    Args:
        client: Of EC2, with fresh credentials.
        region: The client's.
        reporter: Told of each removal.
        sleep: For tests.
        clock: For tests; seconds that only grow.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401 boto3 makes its clients at run time
        region: str,
        reporter: Reporter,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._region = region
        self._reporter = reporter
        self._sleep = sleep
        self._removed: list[CloudObject] = []
        self._left: list[Leftover] = []
        self._absent: list[CloudObject] = []
        self._going_along: set[str] = set()  # volumes that EC2 removes with their instance
        self._clock = clock
        self._began = clock()

    def remove(self, objects: Sequence[CloudObject]) -> CleanUpReport:
        """Remove what belongs to one upload. Blocks for minutes at worst.

        Instances that were started with one of the key pairs are among them, even if we never learned
        their ids; so are the volumes on them.

        Args:
            objects: Of this upload.
        """
        by_kind = {kind: [thing.id for thing in objects if thing.kind == kind] for kind in KINDS}
        helpers, attached = self._helpers(by_kind["key pair"], by_kind["instance"])
        by_kind["instance"] = helpers
        by_kind["volume"] = list(dict.fromkeys([*by_kind["volume"], *attached]))
        ec2 = self._client
        removers: Mapping[str, Callable[[str], object]] = {
            "image": lambda item: ec2.deregister_image(ImageId=item),
            "instance": self._end_instance,
            "volume": lambda item: ec2.delete_volume(VolumeId=item),
            "snapshot": lambda item: ec2.delete_snapshot(SnapshotId=item),
            "key pair": lambda item: ec2.delete_key_pair(KeyName=item),
            "security group": lambda item: ec2.delete_security_group(GroupId=item),
            "subnet": lambda item: ec2.delete_subnet(SubnetId=item),
            "route table": lambda item: ec2.delete_route_table(RouteTableId=item),
            "internet gateway": lambda item: self._end_gateway(item, by_kind["vpc"]),
            "vpc": lambda item: ec2.delete_vpc(VpcId=item),
        }
        for kind, remove_one in removers.items():
            for item in by_kind[kind]:
                self._remove(CloudObject(kind, item, self._region), remove_one)
        for thing in objects:
            if thing.kind not in removers:
                self._leave(thing, "clouduploader does not know how to remove that")
        return CleanUpReport(tuple(self._removed), tuple(self._left), tuple(self._absent))

    def _helpers(self, key_names: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
        """The upload's instances, and the volumes on them that do not go with them."""
        if not key_names and not known:
            return [], []
        filters = (
            [{"Name": "key-name", "Values": list(key_names)}]
            if key_names
            else [{"Name": "instance-id", "Values": list(known)}]
        )
        instances = list(known)
        volumes: list[str] = []
        try:
            with boto.translated(f"region {self._region}"):
                pages = self._client.get_paginator("describe_instances").paginate(Filters=filters)
                found = [item for page in pages for group in page["Reservations"] for item in group["Instances"]]
        except ClouduploaderError as exc:
            self._reporter.line(f"The helper instance can't be looked for: {exc.message}")
            return instances, volumes
        for item in found:
            if item["State"]["Name"] != "terminated":
                instances.append(item["InstanceId"])
            mappings = [mapping["Ebs"] for mapping in item.get("BlockDeviceMappings", []) if "Ebs" in mapping]
            volumes += [ebs["VolumeId"] for ebs in mappings if not ebs.get("DeleteOnTermination")]
            self._going_along |= {ebs["VolumeId"] for ebs in mappings if ebs.get("DeleteOnTermination")}
        return list(dict.fromkeys(instances)), volumes

    def _end_instance(self, item: str) -> None:
        self._client.terminate_instances(InstanceIds=[item])
        waiter = self._client.get_waiter("instance_terminated")
        waiter.wait(InstanceIds=[item], WaiterConfig={"Delay": PAUSE_SECONDS, "MaxAttempts": WAIT_ATTEMPTS})

    def _end_gateway(self, gateway: str, vpcs: Iterable[str]) -> None:
        for vpc in vpcs:
            try:
                with boto.translated(f"region {self._region}"):
                    self._client.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
            except ClouduploaderError as exc:
                if boto.refusal_code(exc) not in ("Gateway.NotAttached", "InvalidVpcID.NotFound"):
                    raise
        self._client.delete_internet_gateway(InternetGatewayId=gateway)

    def _remove(self, thing: CloudObject, remove_one: Callable[[str], object]) -> None:
        try:
            reason = self._try_removing(remove_one, thing.id)
        except _AbsentError:
            if thing.id not in self._going_along:
                self._absent.append(thing)
                return
            reason = None
        if reason is None:
            self._removed.append(thing)
            self._reporter.event(ObjectRemoved(thing))
        else:
            self._leave(thing, reason)

    def _leave(self, thing: CloudObject, reason: str) -> None:
        self._left.append(Leftover(thing, reason))
        self._reporter.line(f"Left behind: {thing.kind} {thing.id} in {self._region}: {reason}")

    def _try_removing(self, remove_one: Callable[[str], object], item: str) -> str | None:
        """Remove one thing; return why not, or None.

        Raises:
            _AbsentError: EC2 says that there is no such thing.
        """
        while True:
            try:
                with boto.translated(f"region {self._region}"):
                    remove_one(item)
            except ClouduploaderError as exc:
                code = boto.refusal_code(exc)
                if code == DEREGISTERED:
                    return None
                if code.endswith(UNKNOWN):
                    raise _AbsentError from exc
                if not self._may_heal(exc, code):
                    return exc.message
            else:
                return None
            self._sleep(PAUSE_SECONDS)

    def _may_heal(self, exc: ClouduploaderError, code: str) -> bool:
        """Whether there is time for another try, and it may help; the SDK has tried several times itself."""
        if self._clock() - self._began >= RETRY_SECONDS:
            return False
        if code == "InvalidSnapshot.InUse":  # by the image that was removed just before
            return any(thing.kind == "image" for thing in self._removed)
        is_busy = isinstance(exc, TransientError) and not isinstance(exc, NetworkError)
        return is_busy or code in RETRY_CODES


def clean_up(way: RoleRequest, objects: Sequence[CloudObject], reporter: Reporter) -> CleanUpReport:
    """Remove objects with fresh credentials, region by region.

    Raises:
        ClouduploaderError: The credentials can't be had.
    """
    return _clean_up(way, way.fresh_keys(), objects, reporter)


def _clean_up(way: RoleRequest, keys: AccessKeys, objects: Sequence[CloudObject], reporter: Reporter) -> CleanUpReport:
    report = CleanUpReport()
    for region in dict.fromkeys(thing.region or way.region for thing in objects):
        here = [thing for thing in objects if (thing.region or way.region) == region]
        done = ObjectRemover(way.client("ec2", keys, region), region, reporter).remove(here)
        report = CleanUpReport(report.removed + done.removed, report.left + done.left, report.absent + done.absent)
    return report


def undo(
    way: RoleRequest,
    made: Mapping[CloudObject, float],
    reporter: Reporter,
    *,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Remove what an upload made; waits for what EC2 does not show yet, unless a stop is requested.

    Blocks for minutes at worst. What can't be removed is said in the log, and stays in the journal.

    Args:
        way: Into the account.
        made: Which things, and when they were made by the clock.
        reporter: Told of each removal.
        cancel: See Cancel.
        sleep: For tests.
        clock: For tests; seconds that only grow.
    """
    doomed = list(made)
    try:
        keys = way.fresh_keys()
        while doomed:
            report = _clean_up(way, keys, doomed, reporter)
            doomed = [thing for thing in report.absent if clock() - made[thing] < visibility.UNSEEN_SECONDS]
            for thing in report.absent:
                if thing not in doomed:
                    reporter.event(ObjectRemoved(thing))
            if cancel.is_requested:
                break
            if doomed:
                sleep(PAUSE_SECONDS)
        for thing in doomed:
            reporter.line(
                f"Left behind: {thing.kind} {thing.id} in {thing.region}: EC2 does not show it, or not yet; "
                "`clouduploader cleanup` looks again."
            )
    except ClouduploaderError as exc:
        for thing in doomed:
            reporter.line(f"Left behind: {thing.kind} {thing.id} in {thing.region}: {exc.message}")


@frozen()
class _Listing:
    """How the things of one kind are listed.

    Attributes:
        kind: Ours, see `calls`.
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


LISTINGS = (
    _Listing("image", "describe_images", ("Images",), "ImageId", {"Owners": ["self"]}, "CreationDate"),
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


def find(
    client: Any,  # noqa: ANN401
    region: str,
    key: str | None,
    reporter: Reporter,
    entries: Sequence[Mapping[str, JsonValue]] = (),
) -> list[FoundObject]:
    """Look for what bears the tags of uploads in one region.

    Args:
        client: Of EC2.
        region: The client's.
        key: Of one upload, see `UploadJournal`; None for all.
        reporter: Told of kinds that may not be listed; they are passed over.
        entries: Of that upload's journal, as far as it is here.

    Raises:
        ClouduploaderError: Snapshots may not be listed: nobody could tell which of them must stay.
    """
    chosen = {"Name": f"tag:{labels.KEY}", "Values": [key]} if key else {"Name": "tag-key", "Values": [labels.KEY]}
    found: dict[str, list[dict[str, Any]]] = {}
    for listing in LISTINGS:
        try:
            with boto.translated(f"region {region}"):
                found[listing.kind] = list(_listed(client, listing, [chosen]))
        except ClouduploaderError as exc:
            if listing.kind == "snapshot":  # one that is complete must stay, and the journal knows of it all the same
                raise
            reporter.line(f"A {listing.kind} left in {region} can't be looked for: {exc.message}")
    users = _users_of_snapshots(client, region, found.get("snapshot", []))
    leftover = {item["ImageId"] for item in found.get("image", []) if _keep_reason("image", item, {}) is None}
    users = {snapshot_id: user for snapshot_id, user in users.items() if user not in leftover}
    sealed = _sealed(entries)
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


def _listed(client: Any, listing: _Listing, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    arguments = {**listing.arguments, "Filters": filters}
    if client.can_paginate(listing.operation):
        pages = client.get_paginator(listing.operation).paginate(**arguments)
    else:
        pages = [getattr(client, listing.operation)(**arguments)]
    for page in pages:
        items = [page]
        for name in listing.path:
            items = [inner for item in items for inner in item.get(name, [])]
        yield from items


def _users_of_snapshots(
    client: Any,  # noqa: ANN401
    region: str,
    snapshots: Sequence[Mapping[str, Any]],
) -> Mapping[str, str]:
    """Which image uses a snapshot: by the snapshot's id; "?" where that can't be told."""
    complete = [item["SnapshotId"] for item in snapshots if item.get("State") == "completed"]
    if not complete:
        return {}
    users = {}
    try:
        with boto.translated(f"region {region}"):
            for image in _listed(client, LISTINGS[0], []):
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


def unremoved(entries: Sequence[Mapping[str, JsonValue]]) -> dict[CloudObject, Mapping[str, JsonValue]]:
    """What earlier tries made and did not remove, by a journal's entries; with the entry that tells of its making."""
    found: dict[CloudObject, Mapping[str, JsonValue]] = {}
    for entry in entries:
        thing = _object(entry)
        match entry["what"]:
            case "made":
                found[thing] = entry
            case "removed":
                found.pop(thing, None)
            case "end" if isinstance(given := entry.get("objects"), list):  # of a success
                for item in given:
                    if isinstance(item, dict):
                        found.pop(_object(item), None)
    return found


def _object(entry: Mapping[str, JsonValue]) -> CloudObject:
    return CloudObject(*(str(entry.get(name) or "") for name in ("kind", "id", "region")))
