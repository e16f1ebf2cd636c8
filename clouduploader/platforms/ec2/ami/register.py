"""Register an AMI from a snapshot, and wait until it can be used.

Sources: EC2 API, RegisterImage, DescribeImages (botocore's model `ec2/2016-11-15`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, labels, retry
from clouduploader.platforms.ec2.ami import find
from clouduploader.platforms.ec2.image_spec import ImageSpec
from clouduploader.plugin import Journal
from clouduploader.util.cancel import Cancel

ROOT_DEVICE = "/dev/sda1"  # what ec2uploadimg registers for hvm; EC2 User Guide, "Device names"
READY_SECONDS = 600.0  # an AMI of a completed snapshot is available in seconds; AWS promises nothing
POLL_SECONDS = 2.0
DUPLICATE = "InvalidAMIName.Duplicate"


def parameters(*, name: str, wanted: ImageSpec, snapshot_id: str, image_tags: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of RegisterImage."""
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


def register(
    ec2: Any,  # noqa: ANN401 a client of boto3
    asked: Mapping[str, Any],
    *,
    region: str,
    journal: Journal,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Register an AMI. Blocks for minutes if AWS does not tell what became of it.

    Args:
        ec2: A client of EC2.
        asked: From `parameters`.
        region: The client's.
        journal: Of the upload; what is made is written by the caller.
        cancel: Looked at between the tries.
        sleep: For tests.
        clock: For tests; seconds that only grow.

    Returns:
        Its id; if the answer was lost, that of the image of this name that has our snapshot.

    Raises:
        StoppedError: The stop was requested; the image may be there, see `find.id_of_snapshot`.
        ClouduploaderError: AWS refuses.
    """
    snapshot_id = asked["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    is_unknown = False
    began = clock()
    for seconds in retry.pauses():
        journal.write("asked", kind="image", region=region, token=asked["Name"], snapshot_id=snapshot_id)
        try:
            with boto.translated(f"region {region}"):
                return str(ec2.register_image(**asked)["ImageId"])
        except ClouduploaderError as exc:
            # The answer may have been lost; or that to the SDK's own first try, so that the next met a duplicate name.
            is_duplicate = boto.refusal_code(exc) == DUPLICATE
            is_unknown = is_unknown or is_duplicate or isinstance(exc, TransientError)
            found = None if isinstance(exc, DeniedError) else find.seen(ec2, asked["Name"], region)
            if found and snapshot_id in find.snapshot_ids(found):
                return str(found["ImageId"])
            if found and is_duplicate:
                journal.write("refused", kind="image", region=region)
                raise aws_errors.name_taken(str(found["ImageId"]), "it is of another snapshot than this one") from exc
            may_pass = is_duplicate or retry.may_pass(exc)
            if not may_pass or clock() - began >= retry.PATIENCE_SECONDS:
                if not is_unknown:
                    journal.write("refused", kind="image", region=region)
                raise
        retry.pause(seconds, cancel=cancel, sleep=sleep)
    raise AssertionError("there is always one more pause")


def wait(
    ec2: Any,  # noqa: ANN401 a client of boto3
    image_id: str,
    *,
    region: str,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until an AMI can be used.

    Raises:
        PlatformReplyError: It never will.
        TransientError: It took too long.
        StoppedError: The stop was requested.
    """
    began = clock()
    while True:
        try:
            with boto.translated(f"region {region}"):
                images = ec2.describe_images(ImageIds=[image_id])["Images"]
        except ClouduploaderError as exc:  # it is there, whether AWS tells of it now or not
            if not retry.may_pass(exc):
                raise
            images = []
        state = (images[0].get("State") if images else None) or "pending"
        if state == "available":
            return
        if state not in ("pending", "transient"):
            raise PlatformReplyError(f"AMI {image_id} can't be used: its state is {state}")
        if clock() - began >= READY_SECONDS:
            raise TransientError(f"AMI {image_id} was not available after {round(READY_SECONDS / 60)} minutes")
        retry.pause(POLL_SECONDS, cancel=cancel, sleep=sleep)
