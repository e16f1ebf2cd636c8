"""An account of EC2, EBS direct and KMS in memory, and the way into it."""

import base64
import collections
import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import io
import itertools
import json
import re

from fakes.aws_sdk import REGION, AnsweredSdk, Refusal, sdk_client

from clouduploader.platforms.ec2 import endpoint, labels

BLOCK = 524288
OTHERS = {
    "Instances": "Reservations", "Volumes": "VolumeId", "KeyPairs": "KeyName", "SecurityGroups": "GroupId",
    "Subnets": "SubnetId", "RouteTables": "RouteTableId", "InternetGateways": "InternetGatewayId", "Vpcs": "VpcId",
}  # fmt: skip
"""What else is in an account, by how the operation is called that lists it, and how each is named there."""


@functools.lru_cache(maxsize=16)
def digest_of(block):
    """The SHA-256 of a block; that of zeros is asked for a thousand times."""
    return hashlib.sha256(block).digest()


@dataclasses.dataclass
class FakeSnapshot:
    """A snapshot; its blocks are known by their indexes."""

    tags: dict
    state: str = "pending"
    is_encrypted: bool = False
    key_arn: str | None = None
    blocks: dict = dataclasses.field(default_factory=dict)
    ready_at: float = 0.0


class Region:
    """What there is in one region.

    Attributes:
        images: By id, as DescribeImages has them; with more that it does not show.
        snapshots: By id.
    """

    def __init__(self):
        self.images, self.snapshots = {}, {}

    def users(self, snapshot_id):
        """The images that have a snapshot."""
        return [image for image in self.images.values() if snapshot_id in _snapshot_ids(image)]


def _snapshot_ids(image):
    return [mapping["Ebs"]["SnapshotId"] for mapping in image.get("BlockDeviceMappings", []) if "Ebs" in mapping]


class Ec2Cloud(AnsweredSdk):
    """All regions of one account; `client` makes its clients, see also AnsweredSdk.

    Attributes:
        images, snapshots: What there is in REGION; see `at` for others.
        now: A function that tells the time, in seconds.
        hidden_until: By id, when EC2 shows a thing; the EBS direct APIs, and RegisterImage, know it before.
        completion_seconds: How long the completion of a snapshot takes.
        page_blocks: How many ListSnapshotBlocks lists at once.
        looks_pending: How often a new copy is seen pending before it is complete.
        looks: By id, how often an image that is pending will be seen so.
        outcome: What becomes of new copies, by region; "available" where nothing else is said.
        enabled: The regions that the account can use.
        encrypting: The regions in which all new snapshots are encrypted.
        default_key: With which they are.
        key_facts: What KMS tells of each key.
        image_block, snapshot_block: Whether it can make such things public.
        permissions: By region, as they were added to images.
        grants: To create volumes, by region and snapshot, as they were added.
        deprecations: By region.
        others: By how their listing is called, see OTHERS: things of a VPC and the like, as they are described; those
            of instances in Reservations. They can be listed, all of them whatever is asked for, and deleted.
        tokens: Of each StartSnapshot and CopyImage: what came of it.
    """

    def __init__(self):
        super().__init__()
        self.now, self.hidden_until, self.completion_seconds, self.page_blocks = lambda: 0.0, {}, 0, 10000
        self.looks_pending, self.looks, self.outcome = 2, {}, {}
        self.enabled, self.encrypting = (REGION, "eu-west-2", "us-east-1"), set()
        self.default_key, self.key_facts = "alias/aws/ebs", {"KeyManager": "CUSTOMER", "KeyState": "Enabled"}
        self.image_block = self.snapshot_block = "unblocked"
        self.permissions, self.grants, self.deprecations = collections.defaultdict(list), {}, {}
        self.others = {name: [] for name in OTHERS}
        self.tokens = {}
        self._regions = collections.defaultdict(Region)
        self._image_numbers, self._snapshot_numbers = itertools.count(1), itertools.count(1)
        self._deregistered = set()

    def at(self, region):
        """What there is in a region."""
        return self._regions[region]

    @property
    def images(self):
        return self.at(REGION).images

    @property
    def snapshots(self):
        return self.at(REGION).snapshots

    def add_snapshot(self, region=REGION, **facts):
        """Put a snapshot there; returns its id."""
        snapshot_id = f"snap-{next(self._snapshot_numbers):017x}"
        self.at(region).snapshots[snapshot_id] = FakeSnapshot(**{"tags": {}, **facts})
        return snapshot_id

    def add_image(self, name, tags, *, region=REGION, state="available", is_encrypted=False, looks=0):
        """Put an image there, with a snapshot; returns its id."""
        snapshot_state = {"pending": "pending", "failed": "error"}.get(state, "completed")
        snapshot_id = self.add_snapshot(region, tags=dict(tags), state=snapshot_state, is_encrypted=is_encrypted)
        image_id = f"ami-{next(self._image_numbers):017x}"
        self.at(region).images[image_id] = {
            "ImageId": image_id,
            "Name": name,
            "Description": "words",
            "Architecture": "x86_64",
            "EnaSupport": True,
            "SriovNetSupport": "simple",
            "ImdsSupport": "v2.0",
            "RootDeviceName": "/dev/sda1",
            "State": state,
            "Tags": labels.as_list(tags),
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/sda1",
                    "Ebs": {"SnapshotId": snapshot_id, "Encrypted": is_encrypted, "VolumeSize": 10},
                }
            ],
        }
        self.looks[image_id] = looks
        return image_id

    def left(self, region):
        """The ids of what there is in a region."""
        return sorted([*self.at(region).images, *self.at(region).snapshots])

    def _played(self, region, operation, given):
        if given.get("DryRun"):
            raise Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        verb, name = re.fullmatch("([A-Z][a-z]+)(.*)", operation).groups()
        if verb == "Describe" and name in self.others:
            return {"Reservations" if name == "Instances" else name: self.others[name]}
        if verb == "Delete" and f"{name}s" in self.others:
            return self._delete_other(name, given)
        return super()._played(region, operation, given)

    def _delete_other(self, name, given):
        key, things = OTHERS[f"{name}s"], self.others[f"{name}s"]
        found = [thing for thing in things if thing[key] == given[key]]
        if not found:
            raise Refusal(f"Invalid{key}.NotFound")
        things.remove(found[0])

    def _is_hidden(self, thing_id):
        return self.now() < self.hidden_until.get(thing_id, 0.0)

    # EBS direct

    def _StartSnapshot(self, region, **parameters):
        token = parameters["ClientToken"]
        json.dumps(parameters)  # what a journal can hold
        assert len(token) <= 64
        assert len(parameters["Tags"]) <= 50
        assert all(len(tag["Value"]) <= 255 for tag in parameters["Tags"])
        if (region, token) not in self.tokens:
            snapshot_id = self.add_snapshot(
                region,
                tags=labels.as_mapping(parameters["Tags"]),
                is_encrypted=parameters.get("Encrypted", region in self.encrypting),
                key_arn=parameters.get("KmsKeyArn"),
            )
            self.tokens[region, token] = snapshot_id, parameters
        snapshot_id, known = self.tokens[region, token]
        if known != parameters:
            raise Refusal("ConflictException")
        size = parameters["VolumeSize"]
        return {"SnapshotId": snapshot_id, "Status": "pending", "BlockSize": BLOCK, "VolumeSize": size}

    def _PutSnapshotBlock(self, region, SnapshotId, BlockIndex, BlockData, DataLength, Checksum, ChecksumAlgorithm):
        found = self._written(region, SnapshotId)
        assert (len(BlockData), DataLength, ChecksumAlgorithm) == (BLOCK, BLOCK, "SHA256")
        assert Checksum == base64.b64encode(digest_of(BlockData)).decode()
        found.blocks[BlockIndex] = BlockData
        return {"Checksum": Checksum, "ChecksumAlgorithm": "SHA256"}

    def _CompleteSnapshot(self, region, **parameters):
        found = self._written(region, parameters["SnapshotId"])
        digests = b"".join(digest_of(found.blocks[index]) for index in sorted(found.blocks))
        checksum = base64.b64encode(hashlib.sha256(digests).digest()).decode()
        given = (parameters["ChangedBlocksCount"], parameters["Checksum"])
        methods = (parameters["ChecksumAlgorithm"], parameters["ChecksumAggregationMethod"])
        if given != (len(found.blocks), checksum) or methods != ("SHA256", "LINEAR"):
            raise Refusal("ValidationException", Reason="INVALID_PARAMETER_VALUE")
        found.ready_at = self.now() + self.completion_seconds
        found.state = "completing" if self.completion_seconds else "completed"
        return {"Status": "pending"}

    def _ListSnapshotBlocks(self, region, SnapshotId, MaxResults, NextToken="0"):
        found = self._snapshot(region, SnapshotId)
        if found.state != "completed":
            raise Refusal("ValidationException", Reason="INVALID_SNAPSHOT_ID")
        start, end = int(NextToken), int(NextToken) + min(self.page_blocks, MaxResults)
        chosen = sorted(found.blocks)[start:end]
        more = {"NextToken": str(end)} if end < len(found.blocks) else {}
        return {"BlockSize": BLOCK, "Blocks": [{"BlockIndex": i, "BlockToken": f"t{i}"} for i in chosen], **more}

    def _GetSnapshotBlock(self, region, SnapshotId, BlockIndex, BlockToken):
        assert BlockToken == f"t{BlockIndex}"
        data = self._snapshot(region, SnapshotId).blocks[BlockIndex].ljust(BLOCK, b"\0")
        return {
            "BlockData": io.BytesIO(data),
            "DataLength": BLOCK,
            "Checksum": base64.b64encode(digest_of(data)).decode(),
            "ChecksumAlgorithm": "SHA256",
        }

    def _snapshot(self, region, snapshot_id):
        if snapshot_id not in self.at(region).snapshots:
            raise Refusal("ResourceNotFoundException")
        return self.at(region).snapshots[snapshot_id]

    def _written(self, region, snapshot_id):
        found = self._snapshot(region, snapshot_id)
        if found.state != "pending":
            raise Refusal("ValidationException", Reason="INVALID_SNAPSHOT_ID")
        return found

    # Snapshots

    def _DescribeSnapshots(self, region, SnapshotIds=None, OwnerIds=None, Filters=()):
        known = {
            snapshot_id: found
            for snapshot_id, found in self.at(region).snapshots.items()
            if not self._is_hidden(snapshot_id)
        }
        if SnapshotIds is None:
            assert OwnerIds == ["self"]
            chosen = [name for name, found in known.items() if _fits({"Tags": labels.as_list(found.tags)}, Filters)]
            return {"Snapshots": [self._described(name, known[name]) for name in chosen]}
        if not set(SnapshotIds) <= set(known):
            raise Refusal("InvalidSnapshot.NotFound")
        return {"Snapshots": [self._described(name, known[name]) for name in SnapshotIds]}

    def _described(self, snapshot_id, found):
        if found.state == "completing" and self.now() >= found.ready_at:
            found.state = "completed"
        return {
            "SnapshotId": snapshot_id,
            "State": "pending" if found.state == "completing" else found.state,
            "Encrypted": found.is_encrypted,
            **({"KmsKeyId": found.key_arn} if found.key_arn else {}),
            "Tags": labels.as_list(found.tags),
        }

    def _DeleteSnapshot(self, region, SnapshotId):
        if self._is_hidden(SnapshotId) or SnapshotId not in self.at(region).snapshots:
            raise Refusal("InvalidSnapshot.NotFound")
        for image in self.at(region).users(SnapshotId):
            raise Refusal(
                "InvalidSnapshot.InUse", f"The snapshot {SnapshotId} is currently in use by {image['ImageId']}"
            )
        del self.at(region).snapshots[SnapshotId]

    def _ModifySnapshotAttribute(self, region, SnapshotId, Attribute, CreateVolumePermission):
        assert Attribute == "createVolumePermission"
        assert SnapshotId in self.at(region).snapshots
        added = CreateVolumePermission["Add"]
        assert len(added) <= 500
        self.grants.setdefault((region, SnapshotId), []).extend(added)

    # Images

    def _DescribeImages(self, region, ImageIds=None, Owners=None, Filters=(), IncludeDisabled=False):
        known = {image_id: image for image_id, image in self.at(region).images.items() if not self._is_hidden(image_id)}
        if ImageIds is None:
            assert Owners == ["self"]
            found = [image for image in known.values() if _fits(image, Filters)]
        elif not set(ImageIds) <= set(known):
            raise Refusal("InvalidAMIID.NotFound", "There is no such image")
        else:
            found = [known[image_id] for image_id in ImageIds]
            for image in found:
                self._age(region, image)
        return {"Images": [_shown(image) for image in found if IncludeDisabled or image["State"] != "disabled"]}

    def _age(self, region, image):
        if image["State"] != "pending":
            return
        self.looks[image["ImageId"]] -= 1
        if self.looks[image["ImageId"]] >= 0:
            return
        image["State"] = self.outcome.get(region, "available")
        for snapshot_id in _snapshot_ids(image):
            self.at(region).snapshots[snapshot_id].state = "error" if image["State"] == "failed" else "completed"
        if image["State"] == "failed":
            image["StateReason"] = {"Code": "Client.Error", "Message": "The key is disabled."}

    def _RegisterImage(self, region, TagSpecifications, **parameters):
        if any(image["Name"] == parameters["Name"] for image in self.at(region).images.values()):
            raise Refusal("InvalidAMIName.Duplicate")
        (mapping,) = parameters["BlockDeviceMappings"]
        snapshot = self.at(region).snapshots[mapping["Ebs"]["SnapshotId"]]
        assert snapshot.state == "completed"
        ((kind, tags),) = [(item["ResourceType"], item["Tags"]) for item in TagSpecifications]
        assert kind == "image"
        image_id = f"ami-{next(self._image_numbers):017x}"
        self.at(region).images[image_id] = {
            **parameters,
            "BlockDeviceMappings": [{**mapping, "Ebs": {**mapping["Ebs"], "Encrypted": snapshot.is_encrypted}}],
            "ImageId": image_id,
            "State": "available",
            "Tags": tags,
        }
        return {"ImageId": image_id}

    def _CopyImage(self, region, ClientToken, TagSpecifications, SourceRegion, SourceImageId, Name, **given):
        if (region, ClientToken) not in self.tokens:
            tags = {item["ResourceType"]: labels.as_mapping(item["Tags"]) for item in TagSpecifications}
            assert tags["image"] == tags["snapshot"]
            source = self.at(SourceRegion).images[SourceImageId]
            is_encrypted = given.get("Encrypted") or source["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
            self.tokens[region, ClientToken] = image_id = self.add_image(
                Name,
                tags["image"],
                region=region,
                state="pending",
                is_encrypted=bool(is_encrypted or region in self.encrypting),
                looks=self.looks_pending,
            )
            self.at(region).images[image_id]["Description"] = given.get("Description", "")
        return {"ImageId": self.tokens[region, ClientToken]}

    def _DeregisterImage(self, region, ImageId):
        if ImageId in self._deregistered:
            raise Refusal("InvalidAMIID.Unavailable", "It is gone")
        if self._is_hidden(ImageId) or ImageId not in self.at(region).images:
            raise Refusal("InvalidAMIID.NotFound")
        self._deregistered.add(ImageId)
        del self.at(region).images[ImageId]

    def _ModifyImageAttribute(self, region, ImageId, **change):
        image = self.at(region).images[ImageId]
        ((attribute, value),) = change.items()  # "You can specify only one attribute at a time"
        match attribute:
            case "LaunchPermission":
                self.permissions[region].extend(value["Add"])
            case "Description":
                image[attribute] = value["Value"]
            case "ImdsSupport":
                assert value["Value"] == "v2.0"
                image[attribute] = "v2.0"
            case _:
                raise AssertionError(f"{attribute} can't be changed")

    def _DescribeImageAttribute(self, region, ImageId, Attribute):
        assert Attribute == "uefiData"
        value = self.at(region).images[ImageId].get("UefiData")
        return {"ImageId": ImageId, "UefiData": {} if value is None else {"Value": value}}

    def _EnableImageDeprecation(self, region, ImageId, DeprecateAt):
        assert isinstance(DeprecateAt, datetime.datetime)
        assert ImageId in self.at(region).images
        self.deprecations[region] = DeprecateAt

    def _CreateTags(self, region, Resources, Tags):
        new = labels.as_mapping(Tags)
        for resource in Resources:
            if resource in self.at(region).images:
                image = self.at(region).images[resource]
                image["Tags"] = labels.as_list(labels.as_mapping(image["Tags"]) | new)
            else:
                self.at(region).snapshots[resource].tags |= new

    # The account

    def _DescribeRegions(self, _region):
        return {"Regions": [{"RegionName": name} for name in self.enabled]}

    def _GetEbsEncryptionByDefault(self, region):
        return {"EbsEncryptionByDefault": region in self.encrypting}

    def _GetEbsDefaultKmsKeyId(self, _region):
        return {"KmsKeyId": self.default_key}

    def _GetImageBlockPublicAccessState(self, _region):
        return {"ImageBlockPublicAccessState": self.image_block}

    def _GetSnapshotBlockPublicAccessState(self, _region):
        return {"State": self.snapshot_block}

    def _DescribeKey(self, region, KeyId):
        arn = f"arn:aws:kms:{region}:123456789012:key/{KeyId}"
        return {"KeyMetadata": {"KeyId": KeyId, "Arn": arn, **self.key_facts}}


def _shown(image):
    """What DescribeImages has of an image."""
    members = sdk_client("ec2").meta.service_model.shape_for("Image").members
    return {name: value for name, value in image.items() if name in members and value is not None}


def _fits(described, filters):
    """Whether a thing has what filters ask for, in which * and ? match anything."""
    tags = labels.as_mapping(described["Tags"])
    for rule in filters:
        found = tags.get(rule["Name"].removeprefix("tag:")) if rule["Name"] != "name" else described["Name"]
        patterns = [value.replace("[", "[[]") for value in rule["Values"]]
        if found is None or not any(fnmatch.fnmatchcase(found, pattern) for pattern in patterns):
            return False
    return True


class FakeAccount:
    """The way into that account; behind a proxy, so that the SDK sends the blocks.

    Args:
        cloud: See Ec2Cloud.
    """

    role_arn = "arn:aws:iam::123456789012:role/obs"
    region = REGION

    def __init__(self, cloud):
        self._cloud = cloud

    def fresh_keys(self):
        return "keys"

    def renewing(self):
        return self.fresh_keys

    @property
    def keys(self):
        return self.renewing()

    def route(self, client):
        place = endpoint.parse(client.meta.endpoint_url, origin="a test")
        return endpoint.ProxyRoute(place=place, region=REGION, authorities="/none", proxy="http://proxy.example")

    def ec2(self, region=None):
        return self._cloud.client("ec2", region or self.region)

    def ebs(self, **_options):
        return self._cloud.client("ebs")

    def kms(self, region=None):
        return self._cloud.client("kms", region or self.region)

    def client(self, service, keys, region=None, **_options):
        assert keys() == "keys"
        return self._cloud.client(service, region or self.region)
