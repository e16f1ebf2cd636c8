"""The target data of EC2: what OBS's form sends, and what can be given beyond that.

Sources: OBS's `ec2/configuration.rb` and its upload form; the service models of the APIs as
botocore 1.44 carries them (`ec2/2016-11-15`, `sts/2011-06-15`); the arguments of ec2uploadimg 10.0.5.
"""

import re
from collections.abc import Mapping

from clouduploader.platform import Field, FieldKind, JsonValue

MAX_TAGS = 50  # of one resource; EC2 User Guide, "Tag restrictions"
MAX_TAG_KEY_LENGTH = 127  # EC2 API, Tag: "a maximum of 127 Unicode characters"
MAX_TAG_VALUE_LENGTH = 256  # EC2 API, Tag
TAG_PREFIX_OF_AWS = "aws:"  # EC2 API, Tag: "May not begin with aws:"; in any case of letters
VERSIONS = ("2.0", "v2.0")  # what ec2uploadimg takes for --imds-support and --tpm-support

FIELDS = (
    Field(
        name="external_id",
        description="The external id that the role's trust policy asks for.",
        # STS API, AssumeRole, externalIdType: [\w+=,.@:\/-]*
        pattern=re.compile(r"[A-Za-z0-9_+=,.@:/-]*"),
        pattern_meaning="letters, digits and _+=,.@:/-",
        min_length=2,
        max_length=1224,
    ),
    Field(
        name="arn",
        description="The role to upload with; without it clouduploader's own credentials are used.",
        # IAM User Guide, "IAM ARNs"; botocore's endpoints.json for the partitions. The path of a
        # role can hold any printable ASCII character (IAM API, CreateRole), its name [\w+=,.@-].
        pattern=re.compile(r"arn:aws(?:-[a-z]+)*:iam::[0-9]{12}:role/(?:[!-~]+/)?[A-Za-z0-9_+=,.@-]{1,64}"),
        pattern_meaning="such as arn:aws:iam::123456789012:role/obs",
        max_length=2048,  # STS API, arnType
    ),
    Field(
        name="region",
        description="The region in which the image is to be.",
        is_required=True,
        # No list: regions come and go. All of botocore's endpoints.json match, eusc-de-east-1 too.
        # One word: a comma would make ec2uploadimg upload several times.
        pattern=re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}"),
        pattern_meaning="one region such as eu-west-1",
    ),
    Field(
        name="ami_name",
        description="The name of the image, unique among the account's images of that region.",
        is_required=True,
        # EC2 API, RegisterImage, Name
        pattern=re.compile(r"[A-Za-z0-9()\[\] ./'@_-]*"),
        pattern_meaning="letters, digits, blanks and ()[]./-'@_",
        min_length=3,
        max_length=128,
    ),
    Field(
        name="vpc_subnet_id",
        description="The subnet for the helper instance; without it a VPC is made for the upload.",
        # OBS takes subnet-[-\w]+; EC2's ids are hexadecimal (User Guide, "Resource IDs").
        pattern=re.compile(r"subnet-[0-9a-f]{8,17}"),
        pattern_meaning="such as subnet-0123456789abcdef0",
    ),
    Field(
        name="filename",
        description="The image's real name, for when nothing else tells it.",
        pattern=re.compile(r"[^/\x00-\x1f\x7f]*"),
        pattern_meaning="no slash, no control characters",
        max_length=255,  # NAME_MAX of Linux
    ),
    Field(
        name="architecture",
        description="What the image runs on, where it is not what the job says.",
        allowed=("x86_64", "arm64", "i386"),  # ec2uploadimg --machine
    ),
    Field(
        name="description",
        description="A sentence about the image, for people.",
        pattern=re.compile(r"[^\x00-\x1f\x7f]*"),
        pattern_meaning="no control characters",
        max_length=255,  # EC2 API, ImageDescriptionRequest
    ),
    Field(
        name="tags",
        description="Tags of the image: names and values.",
        kind=FieldKind.OBJECT,
    ),
    Field(
        name="boot_mode",
        description="How instances of the image boot.",
        allowed=("legacy-bios", "uefi", "uefi-preferred"),  # EC2 API, BootModeValues
    ),
    Field(
        name="ena_support",
        description="Whether the image can use the Elastic Network Adapter; true by default.",
        kind=FieldKind.BOOLEAN,
    ),
    Field(
        name="sriov_support",
        description="Whether the image has the Intel 82599 Virtual Function driver.",
        kind=FieldKind.BOOLEAN,
    ),
    Field(
        name="imds_support",
        description="The version of the instance metadata service that instances are to demand.",
        allowed=VERSIONS,
    ),
    Field(
        name="tpm_support",
        description="The version of NitroTPM that the image can use.",
        allowed=VERSIONS,
    ),
    Field(
        name="root_volume_size",
        description="The size of the root volume in GiB; by default what the unpacked image needs.",
        kind=FieldKind.INTEGER,
        minimum=1,
        # EC2 API, EbsBlockDevice: gp2 and io1 go up to 16384. gp3, which ec2uploadimg uses, up to
        # 65536, but it also makes a second volume of twice this size.
        maximum=16384,
    ),
)


def problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """Check what no single field can tell.

    Args:
        targetdata: Right field by field; not necessarily decrypted.

    Returns:
        One line for each problem.
    """
    found = _tag_problems(targetdata.get("tags"))
    if "external_id" in targetdata and "arn" not in targetdata:
        # OBS makes an external id for every user, and sends arn as null until there is a role.
        found.append("arn is empty: the user has no role configured")
    if "tpm_support" in targetdata and targetdata.get("boot_mode") not in ("uefi", "uefi-preferred"):
        found.append("tpm_support needs boot_mode uefi or uefi-preferred")  # ec2uploadimg refuses it
    if targetdata.get("architecture") == "arm64" and targetdata.get("ena_support") is False:
        found.append("ena_support is false, but arm64 needs it")  # ec2uploadimg would turn it on
    return found


def _tag_problems(tags: JsonValue) -> list[str]:
    if not isinstance(tags, dict):
        return []
    found = []
    if len(tags) > MAX_TAGS:
        found.append(f"tags are {len(tags)}, but EC2 takes {MAX_TAGS}")
    if any(not 1 <= len(key) <= MAX_TAG_KEY_LENGTH for key in tags):
        found.append(f"tags have a name that is not of 1 to {MAX_TAG_KEY_LENGTH} characters")
    if any(key.lower().startswith(TAG_PREFIX_OF_AWS) for key in tags):
        found.append(f"tags have a name that begins with {TAG_PREFIX_OF_AWS}, which AWS keeps for itself")
    if any(len(str(value)) > MAX_TAG_VALUE_LENGTH for value in tags.values()):
        found.append(f"tags have a value of more than {MAX_TAG_VALUE_LENGTH} characters")
    return found
