"""Register an AMI from a snapshot, and wait until it can be used.

Sources: EC2 API, RegisterImage, DescribeImages (botocore's model `ec2/2016-11-15`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, labels
from clouduploader.platforms.ec2.ami import find
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.image_spec import ImageSpec
from clouduploader.plugin import retry

ROOT_DEVICE = "/dev/sda1"  # what ec2uploadimg registers for hvm; EC2 User Guide, "Device names"
READY_SECONDS = 600.0  # an AMI of a completed snapshot is available in seconds; AWS promises nothing
DUPLICATE = "InvalidAMIName.Duplicate"


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
        StoppedError: The upload was cancelled; the image may be there, see `find.id_of_snapshot`.
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
            found = None if isinstance(exc, DeniedError) else find.named_if_told(self._context)
            if found and self._snapshot_id in find.snapshot_ids(found):
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
        if state not in find.PENDING_STATES:
            raise PlatformReplyError(f"AMI {image_id} can't be used: its state is {state}")
        return None

    if not retry.look_until(is_available, READY_SECONDS, cancel=ctx.cancel, clock=ctx.clock):
        raise TransientError(f"AMI {image_id} was not available after {round(READY_SECONDS / 60)} minutes")
