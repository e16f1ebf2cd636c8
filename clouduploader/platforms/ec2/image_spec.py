"""What snapshot and AMI are to be like: what the image tells, held against what target data and job say."""

from collections.abc import Mapping

from clouduploader.errors import ImageError, TargetDataError
from clouduploader.model.disk import MISSING_COPY
from clouduploader.platforms.ec2 import attributes, compare, labels, properties
from clouduploader.platforms.ec2.attributes import ImageAttributes
from clouduploader.plugin import JsonValue, Reporter, UploadRequest
from clouduploader.util.frozen import frozen

GIB = 1 << 30
MAX_VOLUME_GIB = 65536  # EBS direct API, StartSnapshot, VolumeSize


@frozen(kw_only=True)
class ImageSpec:
    """What is to be made.

    Attributes:
        attributes: Of the AMI.
        size_bytes: Of the raw disk.
        is_size_exact: Whether the image can't turn out larger.
        minimum_bytes: How large it is at least, by its partition table.
        copy_bytes: How large it is with the copy of its GPT; 0 without one.
        volume_gib: Of the snapshot.
    """

    attributes: ImageAttributes
    size_bytes: int
    is_size_exact: bool
    minimum_bytes: int
    copy_bytes: int
    volume_gib: int


def resolve(request: UploadRequest, reporter: Reporter, *, is_measured: bool = False) -> ImageSpec:
    """Decide, from the image's facts, the target data and the job.

    Blocks for as long as unpacking takes if nothing but that tells the size.

    Args:
        request: See UploadRequest.
        reporter: Told what is decided, and of disagreements that `force` passes over.
        is_measured: Whether to unpack the image rather than to believe a guess of its size.

    Raises:
        TargetDataError: The target data are not about this image.
        ImageError: The image is not what the job says, or can't be a volume.
        ClouduploaderError: It can't be read.
    """
    facts = request.inspect_image()
    judge = properties.PropertyChecker(request.targetdata, reporter)
    architecture = properties.architecture(request, facts, judge)
    boot_mode = properties.boot_mode(request.targetdata, facts, architecture, judge)
    aim = attributes.resolve(request.targetdata, architecture=architecture, boot_mode=boot_mode)
    if facts.size_bytes is None or (is_measured and not facts.is_size_exact):
        size_bytes, is_exact = request.measure_image(is_by_name=False), True
        if size_bytes < facts.copy_bytes:
            judge.tell(f"Warning: {MISSING_COPY}.")
    else:
        size_bytes, is_exact = facts.size_bytes, facts.is_size_exact
    if is_exact:
        properties.check_whole(size_bytes, facts.minimum_bytes, judge)
    volume_gib = _volume_gib(request.targetdata.get("root_volume_size"), max(size_bytes, facts.minimum_bytes))
    reporter.detail(
        f"The disk is {size_bytes} bytes{'' if is_exact else ', as far as can be told'}, "
        f"partitions {facts.partition_table or 'none'}, for {architecture}, boot mode {aim.boot_mode or 'not set'}; "
        f"the snapshot gets {volume_gib} GiB."
    )
    return ImageSpec(
        attributes=aim,
        size_bytes=size_bytes,
        is_size_exact=is_exact,
        minimum_bytes=facts.minimum_bytes,
        copy_bytes=facts.copy_bytes,
        volume_gib=volume_gib,
    )


def sizes(targetdata: Mapping[str, JsonValue], aim: ImageSpec, image_tags: Mapping[str, str]) -> frozenset[int]:
    """The sizes in GiB that the root volume of an image with our content may have; see `taken.sizes`.

    Args:
        targetdata: The key `root_volume_size` is used.
        aim: Ours.
        image_tags: Of that image; its content is ours, and so is the size of it.
    """
    known = [aim.size_bytes] if aim.is_size_exact else labels.content_bytes(image_tags)
    return compare.sizes(targetdata.get("root_volume_size"), *(max(size, aim.minimum_bytes) for size in known))


def _volume_gib(wanted: JsonValue, needed_bytes: int) -> int:
    needed = max(1, -(-needed_bytes // GIB))
    if needed > MAX_VOLUME_GIB:
        raise ImageError(f"the image is {needed} GiB unpacked, more than a volume can hold")
    if not isinstance(wanted, int):
        return needed
    if wanted < needed:
        raise TargetDataError(
            f"root_volume_size: found {wanted}, but the image needs {needed} GiB",
            hint="Raise it, or leave it out.",
        )
    return wanted
