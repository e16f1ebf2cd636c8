"""The AMI: found by its name, registered from a snapshot, waited for.

Sources: EC2 API, RegisterImage, DescribeImages (botocore's model `ec2/2016-11-15`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.platform import CloudObject
from clouduploader.platforms.ec2 import api, tags
from clouduploader.platforms.ec2.ebs_direct.wanted import Wanted
from clouduploader.stop import Stop

ROOT_DEVICE = "/dev/sda1"  # what ec2uploadimg registers for hvm; EC2 User Guide, "Device names"
READY_SECONDS = 600.0  # an AMI of a completed snapshot is available in seconds; AWS promises nothing
POLL_SECONDS = 2.0
SETTLE_TRIES = 5  # looks for an AMI whose registration was not confirmed, POLL_SECONDS apart
_NOT_YET = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")


def named(ec2: Any, name: str, region: str) -> Mapping[str, Any] | None:  # noqa: ANN401 a client of boto3
    """Find the account's image of that name, as DescribeImages tells of it, or None.

    Raises:
        ClouduploaderError: AWS refuses to tell.
    """
    with api.translated(f"region {region}"):
        images = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
    exactly = [image for image in images if image.get("Name") == name]  # * and ? in a filter match anything
    return exactly[0] if exactly else None


def snapshot_ids(image: Mapping[str, Any]) -> list[str]:
    """The snapshots of an image, as DescribeImages tells of it."""
    mappings = [mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])]
    return [ebs["SnapshotId"] for ebs in mappings if ebs.get("SnapshotId")]


def objects(image: Mapping[str, Any], region: str) -> list[CloudObject]:
    """An image and its snapshots, as DescribeImages tells of it."""
    found = [CloudObject("image", str(image["ImageId"]), region)]
    return found + [CloudObject("snapshot", snapshot_id, region) for snapshot_id in snapshot_ids(image)]


def parameters(*, name: str, wanted: Wanted, snapshot_id: str, image_tags: Mapping[str, str]) -> dict[str, Any]:
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
        "TagSpecifications": [{"ResourceType": "image", "Tags": tags.as_list(image_tags)}],
    }


def register(
    ec2: Any,  # noqa: ANN401 a client of boto3
    asked: Mapping[str, Any],
    *,
    region: str,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Register an AMI.

    Args:
        ec2: A client of EC2.
        asked: From `parameters`.
        region: The client's.
        sleep: For tests.

    Returns:
        Its id; if the answer was lost, that of the image of this name that has our snapshot.

    Raises:
        ClouduploaderError: AWS refuses.
    """
    try:
        with api.translated(f"region {region}"):
            return str(ec2.register_image(**asked)["ImageId"])
    except (TransientError, PlatformReplyError) as exc:
        # The answer may have been lost; or that to the SDK's own first try, so that the next met a duplicate name.
        for number in range(SETTLE_TRIES if isinstance(exc, TransientError) else 1):
            sleep(POLL_SECONDS * min(number, 1))
            if image_id := _of_snapshot(ec2, asked, region):
                return image_id
        raise


def _of_snapshot(ec2: Any, asked: Mapping[str, Any], region: str) -> str | None:  # noqa: ANN401 a client of boto3
    """The image of that name, if it has our snapshot."""
    try:
        image = named(ec2, asked["Name"], region)
    except ClouduploaderError:  # what is told is why the registration failed, not why nobody could look
        return None
    ours = asked["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    return str(image["ImageId"]) if image and ours in snapshot_ids(image) else None


def wait(
    ec2: Any,  # noqa: ANN401 a client of boto3
    image_id: str,
    *,
    region: str,
    stop: Stop,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until an AMI can be used.

    Raises:
        PlatformReplyError: It never will.
        TransientError: It took too long, or AWS does not tell.
        StoppedError: The stop was requested.
    """
    import botocore.exceptions

    began = clock()
    while True:
        with api.translated(f"region {region}"):
            try:
                images = ec2.describe_images(ImageIds=[image_id])["Images"]
            except botocore.exceptions.ClientError as exc:
                if exc.response.get("Error", {}).get("Code") not in _NOT_YET:
                    raise
                images = []
        state = images[0].get("State") if images else "pending"
        if state == "available":
            return
        if state not in ("pending", "transient"):
            raise PlatformReplyError(f"AMI {image_id} can't be used: its state is {state}")
        if clock() - began >= READY_SECONDS:
            raise TransientError(f"AMI {image_id} was not available after {round(READY_SECONDS / 60)} minutes")
        stop.raise_if_requested()
        sleep(POLL_SECONDS)
