"""The images of an account: find by name, register from a snapshot, wait for, and read what DescribeImages tells.

Sources: EC2 API, DescribeImages, RegisterImage (botocore's model `ec2/2016-11-15`). An image is a mapping as
DescribeImages has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, labels
from clouduploader.platforms.ec2.auth import Account
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.image_spec import ImageSpec
from clouduploader.plugin import CloudObject, Context, retry, visibility

PENDING_STATES = ("pending", "transient")  # EC2 API, ImageState
LIVING_STATES = ("available", *PENDING_STATES)  # of an image that can be used, or will be
FAILED_STATES = ("failed", "error", "invalid", "deregistered")
ROOT_DEVICE = "/dev/sda1"  # what ec2uploadimg registers for hvm; EC2 User Guide, "Device names"
READY_SECONDS = 600.0  # an AMI of a completed snapshot is available in seconds; AWS promises nothing
DUPLICATE = "InvalidAMIName.Duplicate"


def named(ctx: Context, account: Account) -> Mapping[str, Any] | None:
    """Find the account's image of the name that the target data give, a disabled one too.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    name = str(ctx.targetdata["ami_name"])
    with ctx.translated(f"region {ctx.region}"):
        images = account.ec2().describe_images(
            Owners=["self"], Filters=[{"Name": "name", "Values": [name]}], IncludeDisabled=True
        )["Images"]
    exactly = [image for image in images if image.get("Name") == name]  # * and ? in a filter match anything
    return exactly[0] if exactly else None


def named_by_now(context: Ec2Context) -> Mapping[str, Any] | None:
    """Find the image that has the upload's name, having waited until one of an earlier try would show.

    Blocks for minutes if the journal tells of such a try.

    Raises:
        StoppedError: The upload was cancelled.
        ClouduploaderError: AWS refuses to tell.
    """
    ctx = context.ctx
    last: Mapping[str, object] = {}
    for entry in ctx.request.journal.entries():
        if (entry.get("kind"), entry.get("region")) == ("image", ctx.region):
            last = entry if entry["what"] in ("asked", "made") else {}
    return retry.look_until(
        lambda: named(ctx, context.account),
        visibility.seconds_left(last),
        cancel=ctx.cancel,
        clock=ctx.clock,
    )


def named_if_told(context: Ec2Context) -> Mapping[str, Any] | None:
    """Find the image that has the upload's name; None also if AWS does not tell."""
    try:
        return named(context.ctx, context.account)
    except ClouduploaderError:  # the caller reports why the registration failed, not why the image can't be seen
        return None


def id_of_snapshot(context: Ec2Context, snapshot_id: str) -> str | None:
    """Return the id of the image of the upload's name if it has that snapshot; None also if AWS does not tell."""
    found = named_if_told(context)
    return str(found["ImageId"]) if found and snapshot_id in snapshot_ids(found) else None


def check_name(ctx: Context, account: Account) -> None:
    """Check that the account has no image of the name that the target data give.

    Raises:
        PlatformReplyError: It has.
        ClouduploaderError: AWS refuses to tell.
    """
    if found := named(ctx, account):
        raise aws_errors.name_taken(found["ImageId"])


def volumes(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List what DescribeImages tells of an image's disks on EBS, under `Ebs`."""
    return [mapping["Ebs"] for mapping in image.get("BlockDeviceMappings", []) if "Ebs" in mapping]


def snapshot_ids(image: Mapping[str, Any]) -> list[str]:
    """List the snapshots of an image; of one that is pending, not all may be known."""
    return [ebs["SnapshotId"] for ebs in volumes(image) if ebs.get("SnapshotId")]


def objects(image: Mapping[str, Any], region: str) -> list[CloudObject]:
    """Name an image and its snapshots."""
    snapshots = [CloudObject("snapshot", snapshot_id, region) for snapshot_id in snapshot_ids(image)]
    return [CloudObject("image", str(image["ImageId"]), region), *snapshots]


def tags(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an image by their names."""
    return labels.as_mapping(image.get("Tags"))


def is_failed(image: Mapping[str, Any], key: str) -> bool:
    """Tell whether an image never came to be, and is of an earlier try of this upload: the next try removes it.

    Args:
        image: As DescribeImages has it.
        key: Of the upload's journal.
    """
    return image.get("State") in FAILED_STATES and tags(image).get(labels.KEY) == key


def is_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Tell whether tags say that two images have the same content; where none tells, whether one upload made both."""
    for name in (labels.CONTENT, labels.SHA256, labels.KEY):
        if name in found and name in wanted:
            return found[name] == wanted[name]
    return False


def is_encrypted(image: Mapping[str, Any]) -> bool:
    """Tell whether any disk of an image is encrypted."""
    return any(ebs.get("Encrypted") for ebs in volumes(image))


def parameters(*, name: str, wanted: ImageSpec, snapshot_id: str, image_tags: Mapping[str, str]) -> dict[str, Any]:
    """Make the parameters of RegisterImage."""
    ebs = {
        "SnapshotId": snapshot_id,
        "VolumeSize": wanted.volume_gib,
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
    }
    return {
        "Name": name,
        **wanted.attributes.parameters(),
        "VirtualizationType": "hvm",
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": ebs}],
        "TagSpecifications": [{"ResourceType": "image", "Tags": labels.as_list(image_tags)}],
    }


def register(context: Ec2Context, asked: Mapping[str, Any]) -> str:
    """Register an AMI. Blocks for minutes if AWS does not tell what became of it.

    Args:
        context: The upload; each try is in its journal before the request. The caller reports what was made.
        asked: From `parameters`.

    Returns:
        Its id; if the answer was lost, that of the image of this name that has our snapshot.

    Raises:
        StoppedError: The upload was cancelled; the image may be there, see `id_of_snapshot`.
        ClouduploaderError: AWS refuses.
    """
    return _Registration(context, asked).run()


class _Registration:
    def __init__(self, context: Ec2Context, asked: Mapping[str, Any]) -> None:
        self._context = context
        self._ctx = context.ctx
        self._asked = asked
        self._snapshot_id = asked["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        self._is_unknown = False  # whether a request may have been granted without our learning of it

    def run(self) -> str:
        try:
            return self._ctx.retry(self._attempt, may_pass=_may_pass)
        except StoppedError:
            raise
        except ClouduploaderError:
            if not self._is_unknown:
                self._ctx.resources.refused("image", self._ctx.region)
            raise

    def _attempt(self) -> str:
        name, region = self._asked["Name"], self._ctx.region
        self._ctx.resources.asked("image", region, token=name, snapshot_id=self._snapshot_id)
        try:
            with self._ctx.translated(f"region {region}"):
                return str(self._context.ec2.register_image(**self._asked)["ImageId"])
        except ClouduploaderError as exc:
            # The answer may have been lost; or that to the SDK's own first try, so that the next met a duplicate name.
            is_duplicate = boto.refusal_code(exc) == DUPLICATE
            self._is_unknown = self._is_unknown or is_duplicate or isinstance(exc, TransientError)
            found = None if isinstance(exc, DeniedError) else named_if_told(self._context)
            if found and self._snapshot_id in snapshot_ids(found):
                return str(found["ImageId"])
            if found and is_duplicate:
                self._is_unknown = False
                raise aws_errors.name_taken(str(found["ImageId"]), "it is of another snapshot than this one") from exc
            raise


def _may_pass(exc: ClouduploaderError) -> bool:
    return boto.refusal_code(exc) == DUPLICATE or boto.may_pass(exc)


def wait(context: Ec2Context, image_id: str) -> None:
    """Wait until an AMI in the upload's region can be used.

    Raises:
        PlatformReplyError: It never will.
        TransientError: It took too long.
        StoppedError: The upload was cancelled.
    """
    ctx = context.ctx

    def is_available() -> bool | None:
        images: Sequence[Mapping[str, Any]] = ()
        try:
            with ctx.translated(f"region {ctx.region}"):
                images = context.ec2.describe_images(ImageIds=[image_id])["Images"]
        except ClouduploaderError as exc:
            if not boto.may_pass(exc):  # it is there, whether AWS tells of it now or not
                raise
        state = (images[0].get("State") if images else None) or "pending"
        if state == "available":
            return True
        if state not in PENDING_STATES:
            raise PlatformReplyError(f"AMI {image_id} can't be used: its state is {state}")
        return None

    if not retry.look_until(is_available, READY_SECONDS, cancel=ctx.cancel, clock=ctx.clock):
        raise TransientError(f"AMI {image_id} was not available after {round(READY_SECONDS / 60)} minutes")
