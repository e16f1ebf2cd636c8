"""What the EBS direct way needs around it: an account whose clients keep Amazon's rules, and a journal in memory."""

import base64
import contextlib
import datetime
import functools
import hashlib
import io
import json
import types

import botocore.exceptions

from clouduploader.errors import LocalIOError
from clouduploader.model.disk import Block, Compression, Image, ImageFacts, ReadStats, ZeroBlocks
from clouduploader.platforms.ec2 import Ec2, endpoint, labels
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import PlatformContext, UploadContext, UploadRequest
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.plugin.testing.fakes import FakeClock, MemoryJournal
from clouduploader.util.cancel import Cancel

BLOCK = 524288
GIB = 1 << 30
REGION = "eu-west-1"
KEY = MemoryJournal.key
MODEL_ERRORS = {"AccessDeniedException": 403, "ResourceNotFoundException": 404, "InternalServerException": 500}


def refusal(operation, code, message="No.", **more):
    """The SDK's exception for an answer that is not a success."""
    status = MODEL_ERRORS.get(code, 400)
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return botocore.exceptions.ClientError(answer, operation)


def hang_up():
    """The SDK's exception for a connection that was lost."""
    return botocore.exceptions.ConnectionClosedError(endpoint_url="https://aws")


@functools.lru_cache(maxsize=16)
def digest_of(block):
    """The SHA-256 of a block; that of zeros is asked for a thousand times."""
    return hashlib.sha256(block).digest()


class FakeAws:
    """An account with the rules of EC2 and of the EBS direct APIs; `ec2`, `ebs` and `kms` are its clients.

    `faults[operation]` is a list with an item for each call of that operation, in turn: None, an exception that is
    raised in its place, or a function that gets the answer and gives another, or raises: then the answer is lost.
    With `is_dead` nothing can be reached any more. `completion_seconds` of `now` is how long a completion takes. What
    the account has set is in `regions`, `is_encrypting`, `default_key`, `image_block` and `snapshot_block`;
    `key_facts` is what KMS tells of each key. EC2 does not show a thing before its moment in `hidden_until`; the EBS
    direct APIs, and RegisterImage, know it.
    """

    page_blocks = 10000
    completion_seconds = 0
    regions = (REGION, "eu-west-2", "us-east-1")
    is_encrypting = False
    default_key = "alias/aws/ebs"
    key_facts = types.MappingProxyType({"KeyManager": "CUSTOMER", "KeyState": "Enabled"})
    image_block = snapshot_block = "unblocked"

    def __init__(self):
        self.snapshots, self.images, self.faults, self.calls = {}, {}, {}, []
        self.tokens, self.is_dead, self.now = {}, False, lambda: 0.0
        self.hidden_until = {}
        self.ec2 = self.ebs = self.kms = self
        self.meta = types.SimpleNamespace(endpoint_url="https://ebs.example")

    def __getattr__(self, operation):
        try:
            do = object.__getattribute__(self, f"do_{operation}")
        except AttributeError:
            raise AttributeError(operation) from None

        def call(**parameters):
            if self.is_dead:
                raise hang_up()
            self.calls.append((operation, parameters))
            fault = self.faults[operation].pop(0) if self.faults.get(operation) else None
            if isinstance(fault, Exception):
                raise fault
            answer = do(**parameters)
            return fault(answer) if fault else answer

        return call

    def called(self, operation):
        """The parameters of each call of it."""
        return [parameters for name, parameters in self.calls if name == operation]

    def client(self, *_arguments):
        """Be the client."""
        return self

    def do_start_snapshot(self, **parameters):
        token = parameters["ClientToken"]
        json.dumps(parameters)  # what a journal can hold
        assert len(token) <= 64
        assert len(parameters["Tags"]) <= 50
        assert all(len(tag["Value"]) <= 255 for tag in parameters["Tags"])
        if token in self.tokens:
            snapshot_id, known = self.tokens[token]
            if known != parameters:
                raise refusal("StartSnapshot", "ConflictException")
        else:
            snapshot_id = f"snap-{len(self.tokens) + 1:017x}"
            self.tokens[token] = snapshot_id, parameters
            self.snapshots[snapshot_id] = types.SimpleNamespace(
                state="pending", blocks={}, tags={tag["Key"]: tag["Value"] for tag in parameters["Tags"]}, **parameters
            )
        return {"SnapshotId": snapshot_id, "Status": "pending", "BlockSize": BLOCK, "VolumeSize": 1}

    def do_put_snapshot_block(
        self, SnapshotId, BlockIndex, BlockData, DataLength, Checksum, ChecksumAlgorithm
    ):  # fmt: skip
        found = self._snapshot("PutSnapshotBlock", SnapshotId)
        assert (len(BlockData), DataLength, ChecksumAlgorithm) == (BLOCK, BLOCK, "SHA256")
        assert Checksum == base64.b64encode(digest_of(BlockData)).decode()
        if found.state != "pending":
            raise refusal("PutSnapshotBlock", "ValidationException", Reason="INVALID_SNAPSHOT_ID")
        found.blocks[BlockIndex] = BlockData
        return {"Checksum": Checksum, "ChecksumAlgorithm": "SHA256"}

    def do_complete_snapshot(self, **parameters):
        found = self._snapshot("CompleteSnapshot", parameters["SnapshotId"])
        digests = b"".join(digest_of(found.blocks[index]) for index in sorted(found.blocks))
        checksum = base64.b64encode(hashlib.sha256(digests).digest()).decode()
        given = (parameters["ChangedBlocksCount"], parameters["Checksum"])
        methods = (parameters["ChecksumAlgorithm"], parameters["ChecksumAggregationMethod"])
        if found.state != "pending":
            raise refusal("CompleteSnapshot", "ValidationException", Reason="INVALID_SNAPSHOT_ID")
        if given != (len(found.blocks), checksum) or methods != ("SHA256", "LINEAR"):
            raise refusal("CompleteSnapshot", "ValidationException", Reason="INVALID_PARAMETER_VALUE")
        found.ready_at = self.now() + self.completion_seconds
        found.state = "completing" if self.completion_seconds else "completed"
        return {"Status": "pending"}

    def do_describe_snapshots(self, SnapshotIds=None, OwnerIds=None, Filters=()):
        if SnapshotIds is None:
            (by,) = Filters
            assert (OwnerIds, by["Name"], by["Values"]) == (["self"], f"tag:{labels.KEY}", [KEY])
            ours = [name for name, found in self.snapshots.items() if found.tags.get(labels.KEY) == KEY]
            return {"Snapshots": [self._described(name) for name in ours if not self._is_hidden(name)]}
        (snapshot_id,) = SnapshotIds
        if snapshot_id not in self.snapshots or self._is_hidden(snapshot_id):
            raise refusal("DescribeSnapshots", "InvalidSnapshot.NotFound")
        return {"Snapshots": [self._described(snapshot_id)]}

    def _is_hidden(self, thing_id):
        return self.now() < self.hidden_until.get(thing_id, 0.0)

    def _described(self, snapshot_id):
        found = self.snapshots[snapshot_id]
        if found.state == "completing" and self.now() >= found.ready_at:
            found.state = "completed"
        state = "pending" if found.state == "completing" else found.state
        told = {"SnapshotId": snapshot_id, "State": state, "KmsKeyId": getattr(found, "key_arn", None)}
        return {name: value for name, value in told.items() if value} | {"Tags": labels.as_list(found.tags)}

    def do_list_snapshot_blocks(self, SnapshotId, MaxResults, NextToken="0"):
        found = self._snapshot("ListSnapshotBlocks", SnapshotId)
        if found.state != "completed":
            raise refusal("ListSnapshotBlocks", "ValidationException", Reason="INVALID_SNAPSHOT_ID")
        start = int(NextToken)
        chosen = sorted(found.blocks)[start : start + self.page_blocks]
        answer = {"BlockSize": BLOCK, "Blocks": [{"BlockIndex": i, "BlockToken": f"t{i}"} for i in chosen]}
        if start + self.page_blocks < len(found.blocks):
            answer["NextToken"] = str(start + self.page_blocks)
        return answer

    def do_get_snapshot_block(self, SnapshotId, BlockIndex, BlockToken):
        assert BlockToken == f"t{BlockIndex}"
        data = self.snapshots[SnapshotId].blocks[BlockIndex].ljust(BLOCK, b"\0")
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return {
            "BlockData": io.BytesIO(data), "DataLength": BLOCK, "Checksum": checksum, "ChecksumAlgorithm": "SHA256"
        }  # fmt: skip

    def do_create_tags(self, Resources, Tags):
        new = {tag["Key"]: tag["Value"] for tag in Tags}
        for resource in Resources:
            if resource in self.images:
                kept = [tag for tag in self.images[resource]["Tags"] if tag["Key"] not in new]
                self.images[resource]["Tags"] = kept + Tags
            else:
                self.snapshots[resource].tags |= new

    def do_modify_image_attribute(self, ImageId, **change):
        ((name, value),) = change.items()  # "You can specify only one attribute at a time"
        assert name in ("Description", "ImdsSupport")
        self.images[ImageId][name] = value["Value"]

    def do_describe_image_attribute(self, ImageId, Attribute):
        assert Attribute == "uefiData"
        return {"ImageId": ImageId, "UefiData": {"Value": self.images[ImageId].get("UefiData")}}

    def do_describe_regions(self):
        return {"Regions": [{"RegionName": name} for name in self.regions]}

    def do_get_ebs_encryption_by_default(self):
        return {"EbsEncryptionByDefault": self.is_encrypting}

    def do_get_ebs_default_kms_key_id(self):
        return {"KmsKeyId": self.default_key}

    def do_get_image_block_public_access_state(self):
        return {"ImageBlockPublicAccessState": self.image_block}

    def do_get_snapshot_block_public_access_state(self):
        return {"State": self.snapshot_block}

    def do_describe_images(self, ImageIds=None, Owners=None, Filters=None, IncludeDisabled=False):
        if ImageIds:
            if any(image_id not in self.images or self._is_hidden(image_id) for image_id in ImageIds):
                raise refusal("DescribeImages", "InvalidAMIID.NotFound")
            return {"Images": [self.images[image_id] for image_id in ImageIds]}
        assert (Owners, Filters[0]["Name"]) == (["self"], "name")
        named = [image for image in self.images.values() if image["Name"] in Filters[0]["Values"]]
        shown = [image for image in named if IncludeDisabled or image.get("State") != "disabled"]
        return {"Images": [image for image in shown if not self._is_hidden(image["ImageId"])]}

    def do_register_image(self, **parameters):
        if any(image["Name"] == parameters["Name"] for image in self.images.values()):
            raise refusal("RegisterImage", "InvalidAMIName.Duplicate")
        ebs = parameters["BlockDeviceMappings"][0]["Ebs"]
        assert self.snapshots[ebs["SnapshotId"]].state == "completed"
        image_id = f"ami-{len(self.called('register_image')):017x}"
        tags = parameters["TagSpecifications"][0]["Tags"]
        self.images[image_id] = {**parameters, "ImageId": image_id, "State": "available", "Tags": tags}
        return {"ImageId": image_id}

    def do_deregister_image(self, ImageId):
        if ImageId not in self.images or self._is_hidden(ImageId):
            raise refusal("DeregisterImage", "InvalidAMIID.NotFound")
        del self.images[ImageId]

    def do_delete_snapshot(self, SnapshotId):
        if self._is_hidden(SnapshotId):
            raise refusal("DeleteSnapshot", "InvalidSnapshot.NotFound")
        self._snapshot("DeleteSnapshot", SnapshotId)
        used = [m["Ebs"]["SnapshotId"] for image in self.images.values() for m in image["BlockDeviceMappings"]]
        if SnapshotId in used:
            raise refusal("DeleteSnapshot", "InvalidSnapshot.InUse")
        del self.snapshots[SnapshotId]

    def do_describe_key(self, KeyId):
        return {"KeyMetadata": {"Arn": f"arn:aws:kms:{REGION}:123456789012:key/{KeyId}", **self.key_facts}}

    def _snapshot(self, operation, snapshot_id):
        if snapshot_id not in self.snapshots:
            code = "InvalidSnapshot.NotFound" if operation == "DeleteSnapshot" else "ResourceNotFoundException"
            raise refusal(operation, code)
        return self.snapshots[snapshot_id]


class FakeWay:
    """The way into that account; behind a proxy, so that blocks are sent by its clients."""

    role_arn = "arn:aws:iam::123456789012:role/obs"
    region = REGION

    def __init__(self, aws):
        self._aws = aws

    def renewing(self):
        return lambda: "keys"

    def route(self, client):
        place = endpoint.parse(client.meta.endpoint_url, origin="a test")
        return endpoint.ProxyRoute(place=place, region=REGION, authorities="/none", proxy="http://proxy.example")

    def fresh_keys(self):
        return "keys"

    @property
    def keys(self):
        return self.renewing()

    def ec2(self, _region=None):
        return self._aws

    def ebs(self, **_options):
        return self._aws

    def kms(self, _region=None):
        return self._aws

    def client(self, _service, keys, _region=None, **_options):
        assert keys == "keys" or keys() == "keys"
        return self._aws


class FakeJournal(MemoryJournal):
    """A journal in memory that outlives tries.

    Attributes:
        is_full: Whether there is no room on the disk.
    """

    def __init__(self, directory):
        super().__init__(directory)
        self.is_full = False

    def write(self, what, **values):
        if self.is_full:
            raise LocalIOError("the journal can't be written: No space left on device")
        super().write(what, **values)

    def age(self, seconds):
        """Let all entries be older by so many seconds."""
        for entry in self._entries:
            moment = datetime.datetime.fromisoformat(entry["time"]) - datetime.timedelta(seconds=seconds)
            entry["time"] = moment.isoformat()


class FakeSource:
    """The blocks of a raw disk."""

    can_reread = False

    def __init__(self, raw, zero_blocks):
        self._raw, self._zero_blocks = raw, zero_blocks
        self._index = self._data = self._zeros = self._skipped = 0

    def next_into(self, buffer):
        while (start := self._index * BLOCK) < len(self._raw):
            index, self._index = self._index, self._index + 1
            piece = self._raw[start : start + BLOCK].ljust(BLOCK, b"\0")
            if piece.count(0) < BLOCK:
                buffer[:] = piece
                self._data += 1
                return Block(index, False)
            if self._zero_blocks is not ZeroBlocks.SKIP:
                self._zeros += 1
                return Block(index, True)
            self._skipped += 1
        return None

    def reread_into(self, index, buffer):
        raise AssertionError("can_reread is false")

    def position(self):
        return min(len(self._raw), self._index * BLOCK)

    def stats(self):
        return ReadStats(
            size_bytes=len(self._raw),
            data_blocks=self._data,
            zero_blocks=self._zeros,
            hole_blocks=0,
            skipped_blocks=self._skipped,
            file_sha256=hashlib.sha256(self._raw[:]).hexdigest(),
            raw_sha256=None,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_details):
        pass


def make_facts(**changes):
    """Facts of an image for x86_64 that boots both ways."""
    facts = {
        "disk_format": "raw",
        "size_bytes": 3 * BLOCK,
        "is_size_exact": True,
        "partition_table": "gpt",
        "minimum_bytes": 1,
        "architectures": ("x86_64",),
        "boots_uefi": True,
        "boots_bios": True,
    }
    return ImageFacts(**{**facts, **changes})


def make_request(directory, *, raw=b"", facts=None, journal=None, arch="x86_64", **targetdata):
    """A request for an image of these bytes."""
    work_dir = directory / "work"
    work_dir.mkdir(exist_ok=True)
    facts = facts or make_facts(size_bytes=len(raw))
    return UploadRequest(
        user="tom",
        job_name="42",
        arch=arch,
        image=Image(directory / "42.file", "a.raw.zst", Compression.ZSTD, 1000),
        targetdata={"region": REGION, "ami_name": "my image", "arn": FakeWay.role_arn, **targetdata},
        work_dir=work_dir,
        is_by_hand=False,
        measure_image=lambda **_how: len(raw),
        inspect_image=lambda: facts,
        open_blocks=lambda _block_bytes, zero_blocks: FakeSource(raw, zero_blocks),
        open_stream=lambda *_what: contextlib.nullcontext(),
        check_unchanged=lambda _sha256=None: None,
        journal=journal or FakeJournal(directory / "journal"),
        provenance={"project": "home:tom", "package": "image", "repository": "images", "arch": "x86_64"},
    )


def upload_context(request, reporter, cancel=None, clock=None):
    """The context of an upload by EC2, in which a sleep takes no time."""
    platform = Ec2(PlatformContext(home=request.work_dir, settings={}, environment={}))
    return UploadContext(platform, request, reporter, cancel or Cancel(), clock=clock or FakeClock())


def undone(ctx, run):
    """A function that runs as the core does: what a failed upload made is removed again."""

    def upload():
        with undone_on_failure(ctx._platform, ctx):
            return run()

    return upload


def make_context(aws, request, reporter, cancel=None, clock=None, *, settings=None):
    """What the steps of an upload into that account share; a sleep takes no time, and blocks go one after the other."""
    ctx = upload_context(request, reporter, cancel, clock)
    ctx.client = FakeWay(aws)
    aws.now = ctx.clock.monotonic
    return Ec2Context(ctx, settings or Ec2Settings(connections=1, blocks_per_second=100_000))
