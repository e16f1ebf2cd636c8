"""What snapshot and AMI are to be like: what the image tells, held against what target data and job say."""

import dataclasses

from clouduploader.contents import MISSING_COPY
from clouduploader.errors import ImageError, TargetDataError
from clouduploader.platform import JsonValue, Reporter, UploadRequest
from clouduploader.platforms.ec2 import fields, properties

GIB = 1 << 30
MAX_VOLUME_GIB = 65536  # EBS direct API, StartSnapshot, VolumeSize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be made.

    Attributes:
        architecture: Amazon's word.
        boot_mode: Amazon's word; None leaves it to the instance type.
        size_bytes: Of the raw disk.
        is_size_exact: Whether the image can't turn out larger.
        minimum_bytes: How large it is at least, by its partition table.
        copy_bytes: How large it is with the copy of its GPT; 0 without one.
        volume_gib: Of the snapshot.
    """

    architecture: str
    boot_mode: str | None
    size_bytes: int
    is_size_exact: bool
    minimum_bytes: int
    copy_bytes: int
    volume_gib: int


def settle(request: UploadRequest, reporter: Reporter, *, is_measured: bool = False) -> Wanted:
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
    judge = properties.Judge(request.targetdata, reporter)
    architecture = properties.architecture(request, facts, judge)
    boot_mode = properties.boot_mode(request.targetdata, facts, architecture, judge)
    for name in ("tpm_support", "uefi_data"):
        if request.targetdata.get(name) and boot_mode not in fields.UEFI_MODES:
            raise TargetDataError(
                f"{name}: it needs UEFI, but the image boots by {boot_mode or 'nobody knows what'}",
                hint=f"Give boot_mode, or leave {name} out.",
            )
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
        f"partitions {facts.partition_table or 'none'}, for {architecture}, boot mode {boot_mode or 'not set'}; "
        f"the snapshot gets {volume_gib} GiB."
    )
    return Wanted(
        architecture=architecture,
        boot_mode=boot_mode,
        size_bytes=size_bytes,
        is_size_exact=is_exact,
        minimum_bytes=facts.minimum_bytes,
        copy_bytes=facts.copy_bytes,
        volume_gib=volume_gib,
    )


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
