"""What a snapshot and an AMI are to be: the image's facts, checked against the target data and the job.

Sources: EC2 API, RegisterImage, and DescribeImages for the same attributes of an existing image (botocore's model
`ec2/2016-11-15`); EC2 User Guide, "NitroTPM" and "Boot modes".
"""

from collections.abc import Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, ImageError, TargetDataError
from clouduploader.model.disk import MISSING_COPY, ImageFacts, shortage
from clouduploader.platforms.ec2 import fields, labels
from clouduploader.plugin import JsonValue, Reporter, UploadRequest
from clouduploader.util.frozen import frozen

GIB = 1 << 30
MAX_VOLUME_GIB = 65536  # EBS direct API, StartSnapshot, VolumeSize
DEFAULT_DESCRIPTION = "uploaded by clouduploader"
MACHINES = {"x86_64": "x86_64", "i386": "i386", "i586": "i386", "i686": "i386", "aarch64": "arm64", "arm64": "arm64"}
"""OBS's words for architectures, and Amazon's."""
UEFI_MACHINES = ("x86_64", "arm64")  # EC2 User Guide, "Boot modes": i386 boots by BIOS only
HELPER_DEFAULT_GIB = 10  # ec2uploadimg's own --root-volume-size
HELPER_TERABYTE_GIB = 1024  # from here on lsblk counts in T, and ec2uploadimg understands whole numbers only
_GUESS = "It is taken for one of x86_64; give architecture if that is wrong."


@frozen(kw_only=True)
class ImageAttributes:
    """The attributes of an AMI, in the words of the EC2 API.

    Attributes:
        description: At most 255 ASCII characters.
        architecture: x86_64, arm64 or i386.
        boot_mode: legacy-bios, uefi, uefi-preferred, or None, which leaves it to the instance type.
        ena_support: Whether the Elastic Network Adapter can be used.
        sriov_net_support: "simple" or None.
        imds_support: "v2.0" or None, which leaves it to the launch.
        tpm_support: "v2.0" or None.
        uefi_data: The variable store in base64, or None.
    """

    description: str
    architecture: str
    boot_mode: str | None
    ena_support: bool
    sriov_net_support: str | None
    imds_support: str | None
    tpm_support: str | None
    uefi_data: str | None

    def parameters(self) -> dict[str, Any]:
        """Make the parameters of RegisterImage that stand for these; what is None is left out."""
        found = {
            "Description": self.description,
            "Architecture": self.architecture,
            "EnaSupport": self.ena_support,
            "BootMode": self.boot_mode,
            "SriovNetSupport": self.sriov_net_support,
            "ImdsSupport": self.imds_support,
            "TpmSupport": self.tpm_support,
            "UefiData": self.uefi_data,
        }
        return {name: value for name, value in found.items() if value is not None}


@frozen(kw_only=True)
class ImageSpec:
    """What an upload through the EBS direct APIs is to make.

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


class PropertyChecker:
    """Raise or report a disagreement between the image and what is said of it.

    Args:
        targetdata: With `force` a disagreement is reported only.
        reporter: Told of what is passed over.
    """

    def __init__(self, targetdata: Mapping[str, JsonValue], reporter: Reporter) -> None:
        self._is_forced = bool(targetdata.get("force"))
        self._reporter = reporter

    def object_to(self, kind: type[ClouduploaderError], message: str) -> None:
        """Raise an error of this kind, unless that is forced."""
        if not self._is_forced:
            raise kind(message, hint="Correct it, or give force if you know better.")
        self._reporter.line(f"Going on all the same, as force says: {message}.")

    def tell(self, text: str) -> None:
        """Say what was decided without evidence."""
        self._reporter.line(text)

    def check_whole(self, size_bytes: int, facts: "ImageFacts | ImageSpec") -> None:
        """Check the exact size of a raw disk against where its partitions, or its file system, end.

        Raises:
            ImageError: It ends before they do.
        """
        if problem := shortage(size_bytes, facts.minimum_bytes):
            self.object_to(ImageError, f"the image {problem}")


def resolve(request: UploadRequest, reporter: Reporter, *, is_measured: bool = False) -> ImageSpec:
    """Decide what EBS direct is to make, from the image's facts, the target data and the job.

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
    checker = PropertyChecker(request.targetdata, reporter)
    attributes = _attributes(request, facts, checker)
    if facts.size_bytes is None or (is_measured and not facts.is_size_exact):
        size_bytes, is_exact = request.measure_image(is_by_name=False), True
        if size_bytes < facts.copy_bytes:
            checker.tell(f"Warning: {MISSING_COPY}.")
    else:
        size_bytes, is_exact = facts.size_bytes, facts.is_size_exact
    if is_exact:
        checker.check_whole(size_bytes, facts)
    size_gib = volume_gib(max(size_bytes, facts.minimum_bytes), request.targetdata.get("root_volume_size"))
    reporter.detail(
        f"The disk is {size_bytes} bytes{'' if is_exact else ', as far as can be told'}, "
        f"partitions {facts.partition_table or 'none'}, for {attributes.architecture}, "
        f"boot mode {attributes.boot_mode or 'not set'}; the snapshot gets {size_gib} GiB."
    )
    return ImageSpec(
        attributes=attributes,
        size_bytes=size_bytes,
        is_size_exact=is_exact,
        minimum_bytes=facts.minimum_bytes,
        copy_bytes=facts.copy_bytes,
        volume_gib=size_gib,
    )


def inspect(request: UploadRequest, reporter: Reporter) -> ImageAttributes:
    """Check the image against what target data and job say of it, and decide what its AMI is registered with.

    Raises:
        DataError: It is not what they say.
    """
    facts = request.inspect_image()
    checker = PropertyChecker(request.targetdata, reporter)
    if facts.is_size_exact and facts.size_bytes is not None:
        checker.check_whole(facts.size_bytes, facts)
    return _attributes(request, facts, checker)


def _attributes(request: UploadRequest, facts: ImageFacts, checker: PropertyChecker) -> ImageAttributes:
    architecture = _architecture(request, facts, checker)
    boot_mode = _boot_mode(request.targetdata, facts, architecture, checker)
    return resolve_attributes(request.targetdata, architecture=architecture, boot_mode=boot_mode)


def resolve_attributes(
    targetdata: Mapping[str, JsonValue], *, architecture: str, boot_mode: str | None
) -> ImageAttributes:
    """Decide what an AMI is registered with.

    Enhanced networking is on unless the target data say otherwise: without ENA no current instance type starts the
    image, and without the older SR-IOV the earlier types (C3, C4, D2, I2, M4, R3, all of x86_64) are slow; Linux has
    had the drivers of both since 4.x. Instances demand IMDSv2 unless the target data leave it open.

    Args:
        targetdata: See `fields`; right by `fields.problems`.
        architecture: Amazon's word.
        boot_mode: As the image boots, or None. It becomes `uefi` where the image can boot so too and a TPM is asked
            for, since EC2 takes TpmSupport with no other; and where it is not known, but what is asked for needs UEFI.

    Raises:
        TargetDataError: The image can't boot as the target data need it.
    """
    has_tpm = bool(targetdata.get("tpm_support"))
    if (has_tpm and boot_mode == "uefi-preferred") or (boot_mode is None and (has_tpm or targetdata.get("uefi_data"))):
        boot_mode = "uefi"
    for name, modes in (("tpm_support", fields.TPM_MODES), ("uefi_data", fields.UEFI_MODES)):
        if targetdata.get(name) and boot_mode not in modes:
            raise TargetDataError(
                f"{name}: it needs UEFI, but the image boots by {boot_mode}",
                hint=f"Give boot_mode, or leave {name} out.",
            )
    has_sriov = bool(targetdata.get("sriov_support", architecture == "x86_64"))
    uefi_data = targetdata.get("uefi_data")
    return ImageAttributes(
        description=str(targetdata.get("description") or DEFAULT_DESCRIPTION),
        architecture=architecture,
        boot_mode=boot_mode,
        ena_support=bool(targetdata.get("ena_support", True)),
        sriov_net_support="simple" if has_sriov else None,
        imds_support=None if targetdata.get("imds_support") == fields.IMDS_OPEN else "v2.0",
        tpm_support="v2.0" if has_tpm else None,
        uefi_data=str(uefi_data) if uefi_data else None,
    )


def machine(request: UploadRequest) -> str:
    """Return Amazon's word for the architecture that the target data or the job names; else x86_64.

    Raises:
        TargetDataError: The job's architecture is none that EC2 has.
    """
    if given := request.targetdata.get("architecture"):
        return str(given)
    if request.arch is None:
        return "x86_64"
    if request.arch not in MACHINES:
        raise TargetDataError(f"EC2 has no machines of architecture {request.arch}")
    return MACHINES[request.arch]


def _architecture(request: UploadRequest, facts: ImageFacts, checker: PropertyChecker) -> str:
    """Choose Amazon's word for the architecture: what is named, else the image's, else a guess that is reported.

    Raises:
        TargetDataError: The target data name another than the image, or one that EC2 does not have.
        ImageError: The image is for another than the job names, or for one that EC2 does not have.
    """
    found = facts.architectures
    if not request.targetdata.get("architecture") and request.arch is None:
        return _architecture_of_image(facts, checker)
    given = machine(request)
    if found and given not in found and not _is_mixed(given, facts):
        names = " and ".join(found)
        if request.targetdata.get("architecture"):
            checker.object_to(
                TargetDataError, f"architecture: found {given}, but the image's boot loader is for {names}"
            )
        else:
            checker.object_to(ImageError, f"the job is for {request.arch}, but the image's boot loader is for {names}")
    return given


def _architecture_of_image(facts: ImageFacts, checker: PropertyChecker) -> str:
    """Choose the architecture by what the image tells; else x86_64."""
    found = facts.architectures
    if common := [one for one in UEFI_MACHINES if one in found]:
        if len(common) > 1:
            checker.tell(f"The image has boot loaders for {' and '.join(common)}. {_GUESS}")
        return common[0]
    if "i386" in found and facts.boots_bios is not False:
        return "i386"
    if found and not facts.boots_bios:
        names = " and ".join(found)
        why = "EC2 starts such an image by BIOS only, for which it has no boot code" if "i386" in found else (
            "EC2 has no such machines"
        )  # fmt: skip
        checker.object_to(ImageError, f"the image's boot loader is for {names}, and {why}")
    if not facts.boots_bios:  # a BIOS is an x86's
        checker.tell(f"The image does not tell which architecture it is for. {_GUESS}")
    return "x86_64"


def _is_mixed(given: str, facts: ImageFacts) -> bool:
    """Tell whether it is a system for x86_64 with a loader for the 32-bit UEFI of some tablets; EC2 uses BIOS."""
    return given == "x86_64" and facts.architectures == ("i386",) and facts.boots_bios is not False


def _boot_mode(
    targetdata: Mapping[str, JsonValue], facts: ImageFacts, architecture: str, checker: PropertyChecker
) -> str | None:
    """Choose Amazon's word for how the image boots: what is named, else what the image tells; None if that is nothing.

    What is not known refuses nothing, and decides only where one mode is left.

    Raises:
        TargetDataError: The image lacks what the named one needs.
    """
    is_uefi, is_bios = facts.boots_uefi, facts.boots_bios
    if architecture not in UEFI_MACHINES or (facts.architectures and architecture not in facts.architectures):
        is_uefi = False
    if architecture == "arm64":
        is_bios = False
    given = targetdata.get("boot_mode")
    if given is None:
        if architecture == "arm64":
            return "uefi"  # there is no other on Graviton; EC2 User Guide, "Boot modes"
        if is_uefi:
            return "uefi-preferred" if is_bios else "uefi"
        if is_bios and is_uefi is False:
            return "legacy-bios"
        checker.tell("The image does not tell how it boots. The instance type decides; give boot_mode if you know it.")
        return None
    lacks_uefi = given in fields.UEFI_MODES and is_uefi is False
    lacks_bios = given in ("legacy-bios", "uefi-preferred") and is_bios is False
    if lacks_uefi or lacks_bios:
        missing = "EFI boot loader" if lacks_uefi else "BIOS boot code"
        checker.object_to(
            TargetDataError, f"boot_mode: found {given}, but the image has no {missing} for {architecture}"
        )
    return str(given)


def volume_gib(needed_bytes: int, wanted: JsonValue) -> int:
    """Choose the size in GiB of a snapshot of EBS direct.

    Args:
        needed_bytes: Of the raw disk.
        wanted: The target data's `root_volume_size`, or None.

    Raises:
        TargetDataError: `wanted` is too small.
        ImageError: No volume can hold the image.
    """
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


def helper_volume_gib(needed_bytes: int, wanted: JsonValue) -> int:
    """Choose the size in GiB of a root volume that ec2uploadimg makes: large enough, and one that it can find again.

    It knows its two disks, of this size and of twice this size, by what lsblk prints, and passes over
    all that is not a whole number of G or T.

    Args:
        needed_bytes: Of the raw disk.
        wanted: The target data's `root_volume_size`, or None.

    Raises:
        TargetDataError: `wanted` is too small, or not such a number.
        ImageError: No volume can hold the image.
    """
    needed = -(-needed_bytes // GIB)
    if not isinstance(wanted, int):
        size = max(needed, HELPER_DEFAULT_GIB)
        while not _is_findable(size):
            size += 1
        if size > fields.MAX_HELPER_GIB:
            raise ImageError(f"the image is {needed} GiB unpacked, more than a volume can hold")
        return size
    if wanted < needed:
        raise TargetDataError(
            f"root_volume_size: found {wanted}, but the image is {needed} GiB unpacked",
            hint="Raise it, or leave it out.",
        )
    if not _is_findable(wanted):
        raise TargetDataError(
            f"root_volume_size: found {wanted}, but ec2uploadimg can't handle that size",
            hint="Allowed are numbers below 512, 512 itself, and multiples of 1024.",
        )
    return wanted


def _is_findable(size_gib: int) -> bool:
    sizes = (size_gib, 2 * size_gib)
    return all(size < HELPER_TERABYTE_GIB or size % HELPER_TERABYTE_GIB == 0 for size in sizes)


def allowed_volume_sizes(wanted: JsonValue, *needed_bytes: int) -> frozenset[int]:
    """List the sizes in GiB that an existing root volume may have for this upload; none if any will do.

    Unless the target data name one, it is what either of the two methods would have given it.

    Args:
        wanted: The target data's `root_volume_size`, or None.
        needed_bytes: Sizes of the raw disk; none if that is not known.
    """
    if isinstance(wanted, int):
        return frozenset({wanted})
    needed = [max(1, -(-size_bytes // GIB)) for size_bytes in needed_bytes]
    by_helper = [helper_volume_gib(gib * GIB, None) for gib in needed if gib <= fields.MAX_HELPER_GIB]
    return frozenset((*needed, *by_helper))


def volume_sizes_of_content(wanted: JsonValue, spec: ImageSpec, image_tags: Mapping[str, str]) -> frozenset[int]:
    """List the sizes in GiB that the root volume of an image with our content may have; none if any will do.

    Args:
        wanted: The target data's `root_volume_size`, or None.
        spec: Ours.
        image_tags: Of that image; its content is ours, and so is the size of it.
    """
    known = [spec.size_bytes] if spec.is_size_exact else labels.content_bytes(image_tags)
    return allowed_volume_sizes(wanted, *(max(size, spec.minimum_bytes) for size in known))
