"""What an AMI is registered with, whichever way its content gets into EC2: both methods ask for the same.

Sources: EC2 API, RegisterImage, and DescribeImages for the same attributes of an image that is there (botocore's model
`ec2/2016-11-15`); EC2 User Guide, "NitroTPM" and "Boot modes".
"""

from collections.abc import Mapping
from typing import Any

from clouduploader.errors import TargetDataError
from clouduploader.platforms.ec2 import fields
from clouduploader.plugin import JsonValue
from clouduploader.util.frozen import frozen

DEFAULT_DESCRIPTION = "uploaded by clouduploader"


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
        """The parameters of RegisterImage that stand for these; what is None is left out."""
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


def resolve(targetdata: Mapping[str, JsonValue], *, architecture: str, boot_mode: str | None) -> ImageAttributes:
    """Decide what the AMI is registered with.

    Enhanced networking is on unless the target data say otherwise: without ENA no current instance type starts the
    image, and without the older SR-IOV the types of before (C3, C4, D2, I2, M4, R3, all of x86_64) are slow; Linux has
    had the drivers of both since 4.x. Instances demand IMDSv2 unless the target data leave it open.

    Args:
        targetdata: See `fields`; right by `fields.problems`.
        architecture: From `properties.architecture`.
        boot_mode: From `properties.boot_mode`. It becomes `uefi` where the image can boot so too and a TPM is asked
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
