"""What earlier uploads of the same image by ec2uploadimg gave: the image itself, or things that were left."""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.frozen import frozen
from clouduploader.platform import CloudObject, JsonValue, Reporter, UploadRequest
from clouduploader.platforms.ec2 import refusals, tags
from clouduploader.platforms.ec2.attributes import Attributes
from clouduploader.stop import Stop


@frozen()
class Taken:
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
    attributes: Attributes,
    unpacked_bytes: int,
    reporter: Reporter,
    stop: Stop,
) -> Taken:
    """Find the image that an earlier upload of this one made; nothing if the name is free.

    Waits as long as the image of a try that was just before us may not show.

    Args:
        ec2: A client of EC2.
        request: See UploadRequest.
        wanted: The tags of what this upload makes.
        attributes: What the image is to be registered with.
        unpacked_bytes: The size of the raw disk.
        reporter: Told what can't be compared.
        stop: Looked at while waiting.

    Raises:
        StoppedError: The stop was requested.
        PlatformReplyError: The name is another image's.
    """
    from clouduploader.platforms.ec2 import copies, taken
    from clouduploader.platforms.ec2.ebs_direct import register

    region = str(request.targetdata["region"])
    name = str(request.targetdata["ami_name"])
    found = register.named_by_now(ec2, name, region, journal=request.journal, stop=stop)
    if found is None:
        return Taken()
    if taken.is_wreck(found, request.journal.key):
        return Taken((CloudObject("image", str(found["ImageId"]), region),), is_wreck=True)
    image_id, theirs = str(found["ImageId"]), tags.as_mapping(found.get("Tags"))
    if not copies.is_same(theirs, wanted):
        other, is_ours = theirs.get(tags.SHA256), tags.KEY in theirs
        difference = f"it was made of a file of SHA-256 {other}, this one has {wanted[tags.SHA256]}" if other else None
        if is_ours and not other:
            difference = f"without a tag {tags.SHA256} it can't be compared with this one"
        raise refusals.name_taken(image_id, difference)
    taken.check(
        found,
        request.targetdata,
        key=request.journal.key,
        attributes=attributes,
        volume_gib=taken.sizes(request.targetdata.get("root_volume_size"), unpacked_bytes),
        uefi_data_of=lambda image_id: taken.uefi_data(ec2, image_id, region),
        reporter=reporter,
    )
    return Taken(tuple(register.objects(found, region)), image=found)


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
