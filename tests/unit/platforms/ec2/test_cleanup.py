import types

import pytest
from fakes.aws_sdk import Refusal
from fakes.ec2_cloud import REGION, Ec2Cloud

from clouduploader.errors import DeniedError
from clouduploader.platforms.ec2 import Ec2, cleanup, labels
from clouduploader.plugin import CleanUpReport, CloudObject, Context, ObjectRemoved, ObjectState, PlatformContext
from clouduploader.plugin.testing.fakes import FakeClock
from clouduploader.util.cancel import Cancel

SNAPSHOT = "snap-00000000000000001"


def thing(kind, item):
    return CloudObject(kind, item, REGION)


@pytest.fixture
def context(record, tmp_path):
    """A context of the account, in which a sleep takes no time."""
    platform = Ec2(PlatformContext(home=tmp_path, settings={}, environment={}))
    return Context(platform, {"region": REGION}, record, Cancel(), clock=FakeClock())


@pytest.fixture
def find(context):
    """A function that looks for what uploads left, by this client."""
    return lambda client, key: cleanup.find(context, types.SimpleNamespace(ec2=lambda: client), key)


@pytest.fixture
def make_remover(context):
    """A factory of a remover that does not wait."""

    def make(client):
        return cleanup.ObjectRemover(context, types.SimpleNamespace(ec2=lambda _region: client), REGION)

    return make


@pytest.fixture
def cloud():
    """An account in which there is nothing yet."""
    return Ec2Cloud()


@pytest.fixture
def upload_of(ec2):
    """A factory of all that an upload makes, in its order; moto has it then."""

    def make(name="uploadkey"):
        ami = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ec2.create_key_pair(KeyName=name)
        vpc = ec2.create_vpc(CidrBlock="192.168.0.0/16")["Vpc"]["VpcId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.1.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName=name, Description="x", VpcId=vpc)["GroupId"]
        instance = ec2.run_instances(
            ImageId=ami, MinCount=1, MaxCount=1, KeyName=name, SubnetId=subnet, SecurityGroupIds=[group],
            InstanceType="t2.micro",
        )["Instances"][0]["InstanceId"]  # fmt: skip
        volume = ec2.create_volume(Size=10, AvailabilityZone=f"{REGION}a")["VolumeId"]
        ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
        snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        image = ec2.register_image(Name=name, RootDeviceName="/dev/sda1")["ImageId"]
        return [
            thing(kind, item)
            for kind, item in (
                ("key pair", name), ("vpc", vpc), ("internet gateway", gateway), ("route table", table),
                ("subnet", subnet), ("security group", group), ("instance", instance), ("volume", volume),
                ("snapshot", snapshot), ("image", image),
            )
        ]  # fmt: skip

    return make


def state(ec2):
    """All that is in the account and can be removed."""
    instances = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
    snapshots = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]  # moto makes one for each AMI too
    return {
        "keys": [item["KeyName"] for item in ec2.describe_key_pairs()["KeyPairs"]],
        "vpcs": [item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"] if not item["IsDefault"]],
        "gateways": len(ec2.describe_internet_gateways()["InternetGateways"]),
        "instances": [item["InstanceId"] for item in instances if item["State"]["Name"] != "terminated"],
        "volumes": [item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]],
        "snapshots": [item["SnapshotId"] for item in snapshots if "Auto-created" not in item.get("Description", "")],
        "images": ec2.describe_images(Owners=["self"])["Images"],
    }


def test_all_that_an_upload_made_is_removed(ec2, upload_of, make_remover, record):
    before = state(ec2)
    objects = upload_of()
    assert state(ec2) != before
    report = make_remover(ec2).remove(objects)
    assert state(ec2) == before
    assert report.left == ()
    assert set(objects) <= set(report.removed)
    assert record.events == [ObjectRemoved(item) for item in report.removed]


def test_what_belongs_to_others_is_kept(ec2, upload_of, make_remover):
    others = upload_of("other")
    before = state(ec2)
    make_remover(ec2).remove(upload_of("mine"))
    assert state(ec2) == before
    assert others[0].id in before["keys"]


def test_instance_and_its_volumes_are_found_by_the_key_pair(ec2, upload_of, make_remover):
    objects = upload_of()
    known = [item for item in objects if item.kind == "key pair"]
    unknown = {item for item in objects if item.kind in ("instance", "volume")}
    assert unknown <= set(make_remover(ec2).remove(known).removed)


def test_volume_of_a_known_instance_is_found_without_a_key_pair(ec2, upload_of, make_remover):
    objects = upload_of()
    instance, volume = (next(item for item in objects if item.kind == kind) for kind in ("instance", "volume"))
    assert volume in make_remover(ec2).remove([instance]).removed


def test_volume_that_goes_with_its_instance_is_removed(ec2, upload_of, make_remover):
    objects = upload_of()
    (instance,) = [item for item in objects if item.kind == "instance"]
    described = ec2.describe_instances(InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    root = next(m["Ebs"]["VolumeId"] for m in described["BlockDeviceMappings"] if m["Ebs"]["DeleteOnTermination"])
    report = make_remover(ec2).remove([*objects, thing("volume", root)])
    assert thing("volume", root) in report.removed


def test_removing_twice_is_as_good_as_once(ec2, upload_of, make_remover):
    objects = upload_of()
    make_remover(ec2).remove(objects)
    report = make_remover(ec2).remove(objects)
    assert report.left == ()
    assert set(objects) <= {*report.removed, *report.absent}


def test_nothing_to_remove_asks_for_nothing(cloud, make_remover):
    assert make_remover(cloud.client("ec2")).remove([]) == CleanUpReport()
    assert cloud.calls == []


def test_kind_that_nobody_knows_is_told_as_left(cloud, make_remover):
    strange = thing("elephant", "e-1")
    report = make_remover(cloud.client("ec2")).remove([strange])
    assert [left.object for left in report.left] == [strange]
    assert cloud.calls == []


@pytest.mark.parametrize("code", ["InvalidGroup.NotFound", "NotFoundException"])
def test_what_ec2_denies_is_told_apart_and_not_noted_as_removed(cloud, make_remover, record, code):
    cloud.faults["DeleteSecurityGroup"] = [Refusal(code)]
    report = make_remover(cloud.client("ec2")).remove([thing("security group", "sg-1")])
    assert report == CleanUpReport(absent=(thing("security group", "sg-1"),))
    assert record.events == []


def test_image_that_was_deregistered_counts_as_removed(cloud, make_remover):
    image = thing("image", cloud.add_image("my image", {}))
    ec2 = cloud.client("ec2")
    ec2.deregister_image(ImageId=image.id)
    assert make_remover(ec2).remove([image]).removed == (image,)


@pytest.mark.parametrize("code", [*sorted(cleanup.RETRY_CODES), "RequestLimitExceeded", "InternalError", "Unavailable"])
def test_removal_that_heals_is_tried_again(cloud, make_remover, context, code):
    cloud.others["Vpcs"] = [{"VpcId": "vpc-1"}]
    cloud.faults["DeleteVpc"] = [Refusal(code)] * 2
    remover = make_remover(cloud.client("ec2"))
    assert remover.remove([thing("vpc", "vpc-1")]).removed == (thing("vpc", "vpc-1"),)
    assert cloud.others["Vpcs"] == []
    assert 1 <= context.clock.now <= 10


def test_removal_that_does_not_heal_is_given_up_and_told(cloud, make_remover, context, record):
    cloud.faults["DeleteVpc"] = [Refusal("DependencyViolation", "The vpc vpc-1 has dependencies.")] * 999
    (left,) = make_remover(cloud.client("ec2")).remove([thing("vpc", "vpc-1")]).left
    assert left.object == thing("vpc", "vpc-1")
    assert "The vpc vpc-1 has dependencies" in left.reason
    told = [line for line in record.lines if not line.startswith("Trying again: ")]
    assert told == [f"Still trying: {left.reason}", f"Left behind: vpc vpc-1 in {REGION}: {left.reason}"]
    assert record.events == []
    assert cleanup.RETRY_SECONDS <= context.clock.now <= cleanup.RETRY_SECONDS + 1


def test_snapshot_is_removed_once_its_image_is_really_gone(cloud, make_remover):
    image_id = cloud.add_image("my image", {})
    (snapshot_id,) = cloud.snapshots
    cloud.faults["DeleteSnapshot"] = [Refusal("InvalidSnapshot.InUse")]
    remover = make_remover(cloud.client("ec2"))
    assert remover.remove([thing("image", image_id), thing("snapshot", snapshot_id)]).left == ()
    assert cloud.left(REGION) == []
    assert len(cloud.called("DeleteSnapshot")) == 2


def test_snapshot_that_an_image_of_others_uses_is_left_at_once(cloud, make_remover):
    image_id = cloud.add_image("my image", {})
    (snapshot_id,) = cloud.snapshots
    (left,) = make_remover(cloud.client("ec2")).remove([thing("snapshot", snapshot_id)]).left
    assert f"in use by {image_id}" in left.reason
    assert len(cloud.called("DeleteSnapshot")) == 1


def test_refusal_is_told_and_the_others_are_still_removed(cloud, make_remover):
    cloud.others["Subnets"] = [{"SubnetId": "subnet-1"}]
    cloud.faults["DeleteSnapshot"] = [Refusal("UnauthorizedOperation")]
    remover = make_remover(cloud.client("ec2"))
    report = remover.remove([thing("subnet", "subnet-1"), thing("snapshot", "snap-1")])
    assert report.removed == (thing("subnet", "subnet-1"),)
    assert "ec2:DeleteSnapshot" in report.left[0].reason


def test_order_is_the_one_that_dependencies_ask_for(cloud, make_remover):
    image_id = cloud.add_image("my image", {})
    (snapshot_id,) = cloud.snapshots
    cloud.others |= {
        "Volumes": [{"VolumeId": "vol-1"}], "KeyPairs": [{"KeyName": "k"}], "SecurityGroups": [{"GroupId": "sg-1"}],
        "Subnets": [{"SubnetId": "subnet-1"}], "RouteTables": [{"RouteTableId": "rtb-1"}],
        "InternetGateways": [{"InternetGatewayId": "igw-1"}], "Vpcs": [{"VpcId": "vpc-1"}],
    }  # fmt: skip
    cloud.faults["DetachInternetGateway"] = [Refusal("Gateway.NotAttached")]
    objects = [
        thing(*pair)
        for pair in (
            ("vpc", "vpc-1"), ("internet gateway", "igw-1"), ("route table", "rtb-1"), ("subnet", "subnet-1"),
            ("security group", "sg-1"), ("key pair", "k"), ("snapshot", snapshot_id), ("volume", "vol-1"),
            ("image", image_id),
        )
    ]  # fmt: skip
    assert len(make_remover(cloud.client("ec2")).remove(objects).removed) == len(objects)
    assert [operation for _region, operation, _given in cloud.calls] == [
        "DescribeInstances", "DeregisterImage", "DeleteVolume", "DeleteSnapshot", "DeleteKeyPair",
        "DeleteSecurityGroup", "DeleteSubnet", "DeleteRouteTable", "DetachInternetGateway", "DeleteInternetGateway",
        "DeleteVpc",
    ]  # fmt: skip


def test_instances_that_cannot_be_looked_for_do_not_stop_the_rest(cloud, make_remover, record):
    cloud.others["KeyPairs"] = [{"KeyName": "k"}]
    cloud.faults["DescribeInstances"] = [Refusal("UnauthorizedOperation")]
    remover = make_remover(cloud.client("ec2"))
    assert remover.remove([thing("key pair", "k")]).removed == (thing("key pair", "k"),)
    assert record.lines[0].startswith("The helper instance can't be looked for: ")


KEY = "0123456789abcdef0123456789abcdef"


def tags_of(key=KEY, job="42"):
    return {labels.KEY: key, labels.JOB: job, labels.STARTED: "2026-11-22T18:00:00+00:00"}


def marked(kind, key=KEY, job="42"):
    return [{"ResourceType": kind, "Tags": labels.as_list(tags_of(key, job))}]


@pytest.fixture
def tagged_upload_of(ec2):
    """A factory of all that an upload makes but for the image, with its tags; moto has it then."""

    def make(key=KEY, job="42"):
        ami = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]

        def tags(kind):
            return {"TagSpecifications": marked(kind, key, job)}

        ec2.create_key_pair(KeyName=f"key-{key}", **tags("key-pair"))
        vpc = ec2.create_vpc(CidrBlock="192.168.0.0/16", **tags("vpc"))["Vpc"]["VpcId"]
        gateway = ec2.create_internet_gateway(**tags("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        table = ec2.create_route_table(VpcId=vpc, **tags("route-table"))["RouteTable"]["RouteTableId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.1.0/24", **tags("subnet"))["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName=key, Description="x", VpcId=vpc, **tags("security-group"))
        instance = ec2.run_instances(
            ImageId=ami, MinCount=1, MaxCount=1, KeyName=f"key-{key}", SubnetId=subnet, InstanceType="t2.micro",
            **tags("instance"),
        )["Instances"][0]["InstanceId"]  # fmt: skip
        volume = ec2.create_volume(Size=10, AvailabilityZone=f"{REGION}a", **tags("volume"))["VolumeId"]
        snapshot = ec2.create_snapshot(VolumeId=volume, **tags("snapshot"))["SnapshotId"]
        return {
            thing(kind, item)
            for kind, item in (
                ("key pair", f"key-{key}"), ("vpc", vpc), ("internet gateway", gateway), ("route table", table),
                ("subnet", subnet), ("security group", group["GroupId"]), ("instance", instance), ("volume", volume),
                ("snapshot", snapshot),
            )
        }  # fmt: skip

    return make


def test_all_that_bears_the_key_is_found_and_can_be_removed(ec2, tagged_upload_of, make_remover, record, find):
    before = state(ec2)
    things = tagged_upload_of()
    others = tagged_upload_of("f" * 32, "43")
    found = find(ec2, KEY)
    assert {item.object for item in found} == things
    assert {item.key for item in found} == {KEY}
    assert {item.job_name for item in found} == {"42"}
    assert all(item.created and item.created.tzinfo for item in found)
    assert {item.object for item in find(ec2, None)} == things | others
    report = make_remover(ec2).remove([item.object for item in found])
    assert report.left == ()
    assert find(ec2, KEY) == []
    make_remover(ec2).remove([item.object for item in find(ec2, None)])
    assert state(ec2) == before
    assert record.lines == []


def test_nothing_is_found_where_nothing_bears_tags(ec2, upload_of, find):
    upload_of()
    assert find(ec2, None) == []


def snapshot_with_tags(ec2):
    volume = ec2.create_volume(Size=10, AvailabilityZone=f"{REGION}a")["VolumeId"]
    return ec2.create_snapshot(VolumeId=volume, TagSpecifications=marked("snapshot"))["SnapshotId"]


def test_complete_snapshot_without_an_image_is_kept_for_another_try(ec2, find):
    snapshot = snapshot_with_tags(ec2)
    (found,) = find(ec2, KEY)
    assert (found.object, found.state) == (thing("snapshot", snapshot), ObjectState.COMPLETE)
    assert found.keep_reason == "complete; `clouduploader resume JOB` goes on with it"


@pytest.mark.parametrize("state", ["available", "disabled"])
def test_snapshot_of_an_image_is_kept(cloud, find, state):
    image_id = cloud.add_image("my image", {}, state=state)
    cloud.images[image_id]["BlockDeviceMappings"].insert(0, {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"})
    (snapshot,) = cloud.snapshots.values()
    snapshot.tags = tags_of()
    (found,) = find(cloud.client("ec2"), KEY)
    assert (found.keep_reason, found.state) == (f"in use by {image_id}", ObjectState.READY)


def test_image_that_is_a_leftover_itself_keeps_no_snapshot(cloud, find):
    image_id = cloud.add_image("my image", tags_of(), state="pending")
    ((snapshot_id, snapshot),) = cloud.snapshots.items()
    snapshot.state = "completed"
    found = {item.object: item for item in find(cloud.client("ec2"), KEY)}
    assert found[thing("image", image_id)].keep_reason is None
    assert found[thing("snapshot", snapshot_id)].state is ObjectState.COMPLETE


@pytest.mark.parametrize(
    ("state", "reason"),
    [(state, "an image that can be used") for state in ("available", "deregistered", "disabled")]
    + [(state, None) for state in ("pending", "failed", "error", "invalid")],
)
def test_image_is_kept_unless_it_is_none_yet(cloud, state, reason, find):
    image_id = cloud.add_image("my image", tags_of(), state=state)
    cloud.images[image_id]["CreationDate"] = "2026-11-22T18:00:00.000Z"
    cloud.snapshots.clear()
    (found,) = find(cloud.client("ec2"), KEY)
    assert (found.object, found.keep_reason) == (thing("image", image_id), reason)
    assert found.created.isoformat() == "2026-11-22T18:00:00+00:00"


def test_pending_snapshot_is_a_leftover(cloud, find):
    snapshot_id = cloud.add_snapshot(tags=tags_of())
    (found,) = find(cloud.client("ec2"), KEY)
    assert (found.object.id, found.keep_reason, found.state) == (snapshot_id, None, ObjectState.PENDING)


def test_instance_that_is_going_is_not_found(cloud, find):
    names = ("shutting-down", "terminated", "running", "stopped")
    instances = [{"InstanceId": f"i-{name}", "State": {"Name": name}} for name in names]
    cloud.others["Instances"] = [{"Instances": instances}]
    assert [item.object.id for item in find(cloud.client("ec2"), KEY)] == ["i-running", "i-stopped"]


def test_kinds_that_may_not_be_listed_are_told_and_passed_over(cloud, record, find):
    cloud.faults["DescribeVpcs"] = [Refusal("UnauthorizedOperation")]
    assert find(cloud.client("ec2"), KEY) == []
    assert len(record.lines) == 1
    assert record.lines[0].startswith(f"A vpc left in {REGION} can't be looked for: ")


def test_account_whose_snapshots_may_not_be_listed_is_an_error(cloud, find):
    cloud.faults["DescribeSnapshots"] = [Refusal("UnauthorizedOperation")]
    with pytest.raises(DeniedError):
        find(cloud.client("ec2"), KEY)


def test_snapshot_is_kept_where_images_may_not_be_listed(cloud, find):
    cloud.add_snapshot(tags=tags_of(), state="completed")
    cloud.faults["DescribeImages"] = [Refusal("UnauthorizedOperation")] * 2
    (found,) = find(cloud.client("ec2"), KEY)
    assert (found.keep_reason, found.state) == ("whether an image uses it can't be seen", ObjectState.READY)


@pytest.mark.parametrize(
    ("entries", "is_kept"),
    [
        ([{"what": "sealing", "snapshot_id": SNAPSHOT}], True),
        ([{"what": "sealing", "snapshot_id": "snap-2"}], False),
        ([{"what": "sealing", "snapshot_id": SNAPSHOT}, {"what": "discarded", "snapshot_id": SNAPSHOT}], False),
        ([{"what": "discarded", "token": "x"}, {"what": "sealing", "snapshot_id": SNAPSHOT}], True),
    ],
)
def test_snapshot_that_may_be_being_completed_is_kept(cloud, context, entries, is_kept, find):
    context.entries = entries
    assert cloud.add_snapshot(tags=tags_of()) == SNAPSHOT
    (found,) = find(cloud.client("ec2"), KEY)
    assert (found.state is ObjectState.COMPLETE) == is_kept
    assert (found.keep_reason == cleanup.COMPLETING) == is_kept
