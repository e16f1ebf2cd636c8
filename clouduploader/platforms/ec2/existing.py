"""What earlier uploads of the same image by ec2uploadimg gave: the image itself, or things that were left."""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.platforms.ec2 import aws_errors, labels
from clouduploader.platforms.ec2.attributes import ImageAttributes
from clouduploader.plugin import CloudObject, JsonValue, Reporter, UploadRequest
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen


@frozen()
class ExistingImage:
    """What has the name already.

    Attributes:
        objects: The image and its snapshots.
        is_wreck: Whether it is a dead end of an earlier try of this upload, and must go.
        image: As DescribeImages has it, if it is the result of this upload.
    """

    objects: tuple[CloudObject, ...] = ()
    is_wreck: bool = False
    image: Mapping[str, Any] | None = None


def image(
    ec2: Any,  # noqa: ANN401 boto3 makes its clients at run time
    request: UploadRequest,
    wanted: Mapping[str, str],
    *,
    attributes: ImageAttributes,
    unpacked_bytes: int,
    reporter: Reporter,
    cancel: Cancel,
) -> ExistingImage:
    """Find the image that an earlier upload of this one made; nothing if the name is free.

    Waits as long as the image of a try that was just before us may not show.

    Args:
        ec2: A client of EC2.
        request: See UploadRequest.
        wanted: The tags of what this upload makes.
        attributes: What the image is to be registered with.
        unpacked_bytes: The size of the raw disk.
        reporter: Told what can't be compared.
        cancel: Looked at while waiting.

    Raises:
        StoppedError: The stop was requested.
        PlatformReplyError: The name is another image's.
    """
    from clouduploader.platforms.ec2 import compare, copies, register

    region = str(request.targetdata["region"])
    name = str(request.targetdata["ami_name"])
    found = register.named_by_now(ec2, name, region, journal=request.journal, cancel=cancel)
    if found is None:
        return ExistingImage()
    if compare.is_wreck(found, request.journal.key):
        return ExistingImage((CloudObject("image", str(found["ImageId"]), region),), is_wreck=True)
    image_id, theirs = str(found["ImageId"]), labels.as_mapping(found.get("Tags"))
    if not copies.is_same(theirs, wanted):
        other, is_ours = theirs.get(labels.SHA256), labels.KEY in theirs
        difference = (
            f"it was made of a file of SHA-256 {other}, this one has {wanted[labels.SHA256]}" if other else None
        )
        if is_ours and not other:
            difference = f"without a tag {labels.SHA256} it can't be compared with this one"
        raise aws_errors.name_taken(image_id, difference)
    compare.check(
        found,
        request.targetdata,
        key=request.journal.key,
        attributes=attributes,
        volume_gib=compare.sizes(request.targetdata.get("root_volume_size"), unpacked_bytes),
        uefi_data_of=lambda image_id: compare.uefi_data(ec2, image_id, region),
        reporter=reporter,
    )
    return ExistingImage(tuple(register.objects(found, region)), image=found)


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
