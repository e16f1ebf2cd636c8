"""What earlier uploads of the same image by ec2uploadimg gave: the image itself, or things that were left."""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.platform import CloudObject, JsonValue, UploadRequest
from clouduploader.platforms.ec2 import refusals, tags


def image(
    ec2: Any,  # noqa: ANN401 boto3 makes its clients at run time
    request: UploadRequest,
    wanted: Mapping[str, str],
    *,
    architecture: str,
) -> list[CloudObject]:
    """Find the image that an earlier upload of this one made, with its snapshot; nothing if the name is free.

    Args:
        ec2: A client of EC2.
        request: See UploadRequest.
        wanted: The tags of what this upload makes.
        architecture: Amazon's word for the image's.

    Raises:
        PlatformReplyError: The name is another image's.
    """
    from clouduploader.platforms.ec2 import copies
    from clouduploader.platforms.ec2.ebs_direct import register

    region = str(request.targetdata["region"])
    found = register.named(ec2, str(request.targetdata["ami_name"]), region)
    if found is None:
        return []
    image_id, theirs = str(found["ImageId"]), tags.as_mapping(found.get("Tags"))
    if not copies.is_same(theirs, wanted):
        other = theirs.get(tags.SHA256)
        difference = f"it was made of a file of SHA-256 {other}, this one has {wanted[tags.SHA256]}" if other else None
        raise refusals.name_taken(image_id, difference)
    if found.get("Architecture", architecture) != architecture:
        raise refusals.name_taken(image_id, f"it is for {found['Architecture']}, this one for {architecture}")
    return register.objects(found, region)


def unremoved(entries: Sequence[Mapping[str, JsonValue]]) -> list[CloudObject]:
    """What earlier tries made and did not remove, by a journal's entries."""
    found: dict[CloudObject, None] = {}
    for entry in entries:
        thing = CloudObject(*(str(entry.get(name) or "") for name in ("kind", "id", "region")))
        match entry["what"]:
            case "made":
                found[thing] = None
            case "removed":
                found.pop(thing, None)
            case "end" if entry.get("outcome") == "succeeded":
                found.clear()
    return list(found)
