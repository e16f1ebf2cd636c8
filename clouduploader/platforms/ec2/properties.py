"""What an AMI is registered as: architecture and boot mode, held against what the image tells."""

from collections.abc import Mapping

from clouduploader.errors import ClouduploaderError, ImageError, TargetDataError
from clouduploader.model.disk import ImageFacts, shortage
from clouduploader.platforms.ec2 import fields
from clouduploader.plugin import JsonValue, Reporter, UploadRequest

MACHINES = {"x86_64": "x86_64", "i386": "i386", "i586": "i386", "i686": "i386", "aarch64": "arm64", "arm64": "arm64"}
"""OBS's words for architectures, and Amazon's."""
_GUESS = "It is taken for one of x86_64; give architecture if that is wrong."
UEFI_MACHINES = ("x86_64", "arm64")  # EC2 User Guide, "Boot modes": i386 boots by BIOS only


class PropertyChecker:
    """Decides what a disagreement means.

    Args:
        targetdata: With `force` it is passed over.
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


def check_whole(size_bytes: int, minimum_bytes: int, judge: PropertyChecker) -> None:
    """Hold the exact size of a raw disk against where its partitions, or its file system, end.

    Raises:
        ImageError: It ends before they do.
    """
    if problem := shortage(size_bytes, minimum_bytes):
        judge.object_to(ImageError, f"the image {problem}")


def machine(request: UploadRequest) -> str:
    """Amazon's word for the architecture that target data or job name; else x86_64.

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


def architecture(request: UploadRequest, facts: ImageFacts, judge: PropertyChecker) -> str:
    """Amazon's word for the image's architecture: what is named, else what the image tells, else a guess that is said.

    Raises:
        TargetDataError: The target data name another than the image, or one that EC2 does not have.
        ImageError: The image is for another than the job names, or for one that EC2 does not have.
    """
    found = facts.architectures
    if not request.targetdata.get("architecture") and request.arch is None:
        return _told(facts, judge)
    given = machine(request)
    if found and given not in found and not _is_mixed(given, facts):
        names = " and ".join(found)
        if request.targetdata.get("architecture"):
            judge.object_to(TargetDataError, f"architecture: found {given}, but the image's boot loader is for {names}")
        else:
            judge.object_to(ImageError, f"the job is for {request.arch}, but the image's boot loader is for {names}")
    return given


def _told(facts: ImageFacts, judge: PropertyChecker) -> str:
    """What the image tells of its architecture; else x86_64."""
    found = facts.architectures
    if common := [one for one in UEFI_MACHINES if one in found]:
        if len(common) > 1:
            judge.tell(f"The image has boot loaders for {' and '.join(common)}. {_GUESS}")
        return common[0]
    if "i386" in found and facts.boots_bios is not False:
        return "i386"
    if found and not facts.boots_bios:
        names = " and ".join(found)
        why = "EC2 starts such an image by BIOS only, for which it has no boot code" if "i386" in found else (
            "EC2 has no such machines"
        )  # fmt: skip
        judge.object_to(ImageError, f"the image's boot loader is for {names}, and {why}")
    if not facts.boots_bios:  # a BIOS is an x86's
        judge.tell(f"The image does not tell which architecture it is for. {_GUESS}")
    return "x86_64"


def _is_mixed(given: str, facts: ImageFacts) -> bool:
    """Whether it is a system for x86_64 whose loader is for the 32-bit UEFI of some tablets; EC2 starts it by BIOS."""
    return given == "x86_64" and facts.architectures == ("i386",) and facts.boots_bios is not False


def boot_mode(
    targetdata: Mapping[str, JsonValue], facts: ImageFacts, machine_word: str, judge: PropertyChecker
) -> str | None:
    """Amazon's word for how the image boots: what is named, else what the image tells; None if that is nothing.

    What is not known refuses nothing, and decides nothing but what is the only way left.

    Raises:
        TargetDataError: The image lacks what the named one needs.
    """
    is_uefi, is_bios = facts.boots_uefi, facts.boots_bios
    if machine_word not in UEFI_MACHINES or (facts.architectures and machine_word not in facts.architectures):
        is_uefi = False
    if machine_word == "arm64":
        is_bios = False
    given = targetdata.get("boot_mode")
    if given is None:
        if machine_word == "arm64":
            return "uefi"  # there is no other on Graviton; EC2 User Guide, "Boot modes"
        if is_uefi:
            return "uefi-preferred" if is_bios else "uefi"
        if is_bios and is_uefi is False:
            return "legacy-bios"
        judge.tell("The image does not tell how it boots. The instance type decides; give boot_mode if you know it.")
        return None
    lacks_uefi = given in fields.UEFI_MODES and is_uefi is False
    lacks_bios = given in ("legacy-bios", "uefi-preferred") and is_bios is False
    if lacks_uefi or lacks_bios:
        missing = "EFI boot loader" if lacks_uefi else "BIOS boot code"
        judge.object_to(TargetDataError, f"boot_mode: found {given}, but the image has no {missing} for {machine_word}")
    return str(given)
