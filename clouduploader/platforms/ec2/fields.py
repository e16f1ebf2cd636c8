"""The target data of EC2: what OBS's form sends, and what can be given beyond that.

Sources: OBS's `ec2/configuration.rb` and its upload form; the service models of the APIs as
botocore 1.44 carries them (`ec2/2016-11-15`, `sts/2011-06-15`); the arguments of ec2uploadimg 10.0.5.
"""

import base64
import binascii
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clouduploader.model.disk import ZeroBlocks
from clouduploader.platforms.ec2 import labels
from clouduploader.platforms.ec2.settings import METHODS, Ec2Settings
from clouduploader.plugin import Field, FieldKind, JsonValue

if TYPE_CHECKING:
    import botocore.regions

MAX_TAGS = labels.MAX_TAGS - len(labels.ESSENTIAL)  # of the user's
MAX_TAG_KEY_LENGTH = 127  # EC2 API, Tag: "a maximum of 127 Unicode characters"
MAX_TAG_VALUE_LENGTH = 256  # EC2 API, Tag
TAG_PREFIX_OF_AWS = "aws:"  # EC2 API, Tag: "May not begin with aws:"; in any case of letters
DIRECT_ONLY: Mapping[str, JsonValue] = {
    "zero_blocks": "send",
    "verify": "none",
    "encrypted": False,
    "kms_key_id": None,
    "uefi_data": None,
    "keep": "nothing",
}
"""What only ebs-direct can do, and the value, if there is one, that is what ec2uploadimg does anyhow."""
UEFI_MODES = ("uefi", "uefi-preferred")
TPM_MODES = ("uefi",)  # EC2 User Guide, "NitroTPM": the AMI's boot mode must be uefi; RegisterImage refuses all others
VERSIONS = ("2.0", "v2.0")  # what ec2uploadimg takes for --imds-support and --tpm-support
IMDS_OPEN = "optional"  # as HttpTokens of RunInstances has it
MAX_HELPER_GIB = 16384  # ours: ec2uploadimg makes a second volume of twice this size
KMS_KEY_PATTERN = r"[A-Za-z0-9:/_-]+"
EVERYBODY = "public"  # in `share`
EVERYWHERE = "all"  # in `regions`
AWS_MANAGED_KEY = "alias/aws/"  # how the aliases of keys begin that no other account can be let use (KMS guide)
MAX_DEPRECATION = datetime.timedelta(days=3650)  # "10 years from now" (EC2 API, EnableImageDeprecation)
MAX_PUBLIC_DEPRECATION = datetime.timedelta(days=730)  # "2 years from the creation date" (there)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_KMS_ARN = re.compile(r"arn:aws(?:-[a-z]+)*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:(?:key|alias)/.+")

FIELDS = (
    Field(
        name="external_id",
        description="The external id that the role's trust policy asks for.",
        is_of_account=True,
        is_of_one_user=True,
        # STS API, AssumeRole, externalIdType: [\w+=,.@:\/-]*
        pattern=r"[A-Za-z0-9_+=,.@:/-]*",
        pattern_meaning="letters, digits and _+=,.@:/-",
        min_length=2,
        max_length=1224,
        help="External id that the role asks for.",
    ),
    Field(
        name="arn",
        description="The role to upload with; an upload by hand without it uses the caller's own credentials.",
        is_of_account=True,
        is_of_one_user=True,
        # IAM User Guide, "IAM ARNs"; botocore's endpoints.json for the partitions. The path of a
        # role can hold any printable ASCII character (IAM API, CreateRole), its name [\w+=,.@-].
        pattern=r"arn:aws(?:-[a-z]+)*:iam::[0-9]{12}:role/(?:[!-~]+/)?[A-Za-z0-9_+=,.@-]{1,64}",
        pattern_meaning="such as arn:aws:iam::123456789012:role/obs",
        max_length=2048,  # STS API, arnType
        help="ARN of the role to act as.",
        default_text="your own AWS credentials",
    ),
    Field(
        name="region",
        description="The region in which the image is to be.",
        is_required=True,
        # No list: regions come and go. All of botocore's endpoints.json match, eusc-de-east-1 too.
        # One word: a comma would make ec2uploadimg upload several times.
        pattern=r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}",
        pattern_meaning="one region such as eu-west-1",
        help="The cloud's region, for example eu-west-1.",
    ),
    Field(
        name="ami_name",
        description="The name of the image, unique among the account's images of that region.",
        is_required=True,
        # EC2 API, RegisterImage, Name
        pattern=r"[A-Za-z0-9()\[\] ./'@_-]*",
        pattern_meaning="letters, digits, blanks and ()[]./-'@_",
        min_length=3,
        max_length=128,
        option="--name",
        help="Name of the new image in the cloud.",
    ),
    Field(
        name="vpc_subnet_id",
        description="The subnet for the helper instance; without it a VPC is made for the upload.",
        # OBS takes subnet-[-\w]+; EC2's ids are hexadecimal (User Guide, "Resource IDs").
        pattern=r"subnet-[0-9a-f]{8,17}",
        pattern_meaning="such as subnet-0123456789abcdef0",
        option="--subnet",
        help="Subnet for the helper instance. Without it a VPC is made and removed again.",
    ),
    Field.FILENAME,
    Field(
        name="architecture",
        description="What the image runs on, where it is not what the job says.",
        allowed=("x86_64", "arm64", "i386"),  # ec2uploadimg --machine
        help="What it runs on.",
        default_text="what the image tells",
    ),
    Field(
        name="description",
        description="A sentence about the image, for people.",
        # RegisterImage and CopyImage: "Character sets beyond ASCII are not supported."
        pattern=r"[ -~]*",
        pattern_meaning="ASCII, no control characters",
        max_length=255,  # EC2 API, ImageDescriptionRequest
        metavar="TEXT",
        help="A sentence about it, for people.",
    ),
    Field(
        name="tags",
        description="Tags of the image: names and values.",
        kind=FieldKind.OBJECT,
        option="--tag",
        help="A tag of it; may be repeated.",
    ),
    Field(
        name="boot_mode",
        description="How instances of the image boot.",
        allowed=("legacy-bios", "uefi", "uefi-preferred"),  # EC2 API, BootModeValues
        help="How it boots.",
        default_text="what the image tells",
    ),
    Field(
        name="ena_support",
        description="Whether the image can use the Elastic Network Adapter; true by default.",
        kind=FieldKind.BOOLEAN,
        option="",
    ),
    Field(
        name="sriov_support",
        description="Whether the image has the Intel 82599 Virtual Function driver; true by default on x86_64.",
        kind=FieldKind.BOOLEAN,
        option="",
    ),
    Field(
        name="imds_support",
        description="The version of the instance metadata service that instances demand: 2.0, the default, which can't "
        "be taken back; optional leaves it to the launch.",
        allowed=(*VERSIONS, IMDS_OPEN),
        option="--imds",
        help="Which metadata service its instances demand, for ever.",
        default_text="2.0",
    ),
    Field(
        name="tpm_support",
        description="The version of NitroTPM that the image can use.",
        allowed=VERSIONS,
        option="",
    ),
    Field(
        name="root_volume_size",
        description="The size of the root volume in GiB; by default what the unpacked image needs.",
        kind=FieldKind.INTEGER,
        minimum=1,
        maximum=65536,  # EC2 API, EbsBlockDevice: of gp3; EBS direct API, StartSnapshot
        option="",
    ),
    Field(
        name="method",
        description="How the image gets into EC2; auto is ebs-direct, or ec2uploadimg where the role may not do that.",
        allowed=METHODS,
        help="How it gets there.",
        default_text="clouduploader.conf",
    ),
    Field.SHA256,
    Field(
        name="zero_blocks",
        description="What becomes of blocks of zeros; with ebs-direct only.",
        allowed=tuple(ZeroBlocks),
        help="Which zeros are left out: of ebs-direct.",
        default_text="holes",
    ),
    Field(
        name="verify",
        description="How much of the snapshot is read back and compared; with ebs-direct only.",
        allowed=("none", "sample", "full"),
        help="How much is read back: of ebs-direct.",
        default_text="sample",
    ),
    Field(
        name="encrypted",
        description="Whether the snapshot is encrypted; with ebs-direct only.",
        kind=FieldKind.BOOLEAN,
        option="--encrypt",
        help="Encrypt it: of ebs-direct.",
    ),
    Field(
        name="kms_key_id",
        description="The KMS key of the snapshot, id, alias or ARN; without it the account's default key.",
        # EBS direct API, KmsKeyArn; ids and aliases are what EC2's CopyImage takes besides.
        pattern=KMS_KEY_PATTERN,
        pattern_meaning="a key's id, ARN, or alias/NAME",
        max_length=2048,
        option="--kms-key",
        metavar="KEY",
        help="The KMS key to encrypt it with.",
        default_text="the account's default",
    ),
    Field(
        name="uefi_data",
        description="The UEFI variable store of the instances, base64; with ebs-direct only.",
        # In groups of four; whether the last one is whole is checked by `problems`.
        pattern=r"[A-Za-z0-9+/]*={0,2}",
        pattern_meaning="base64",
        max_length=64000,  # EC2 API, StringType of RegisterImage's UefiData
        option="",
    ),
    Field(
        name="regions",
        description="Further regions that the image is copied to; all stands for those that the account has enabled.",
        kind=FieldKind.ARRAY,
        pattern=rf"[a-z]{{2,}}(?:-[a-z]+)+-[0-9]{{1,2}}|{EVERYWHERE}",
        pattern_meaning="a region such as eu-west-1, or all",
        option="--copy-to",
        metavar="REGION",
        help="Copy it there, or to all regions.",
    ),
    Field(
        name="kms_keys",
        description="KMS keys of the copies, by region.",
        kind=FieldKind.OBJECT,
        option="",
    ),
    Field(
        name="share",
        description="Who may use the image: account ids, ARNs of organizations or their units, or public.",
        kind=FieldKind.ARRAY,
        # EC2 API, LaunchPermission; AWS Organizations API, Organization and OrganizationalUnit, Arn
        pattern=(
            r"[0-9]{12}|public|arn:aws(?:-[a-z]+)*:organizations::[0-9]{12}:"
            r"(?:organization/o-[a-z0-9]{10,32}|ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32})"
        ),
        pattern_meaning="account ids of 12 digits, ARNs of organizations or their units, or public",
        metavar="WHO",
        help="Share it: account, ARN of an organization, public.",
    ),
    Field(
        name="share_snapshot",
        description="Whether those the image is shared with may copy it too; by default accounts may, where the role "
        "lets us permit it.",
        kind=FieldKind.BOOLEAN,
        option="--share-snapshot/--no-share-snapshot",
        help="Whether those can copy it too.",
        default_text="accounts, where the role lets us",
    ),
    Field(
        name="deprecate_at",
        description="When the image becomes deprecated: a date, or date and time in UTC.",
        # EC2 API, EnableImageDeprecation: to the minute
        pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z)?",
        pattern_meaning="such as 2027-01-31 or 2027-01-31T12:00Z",
        metavar="DATE",
        help="From when on it is deprecated, for example 2027-01-31.",
    ),
    Field(
        name="keep",
        description="What a failed upload leaves in place for another try; with ebs-direct only.",
        allowed=("nothing", "snapshot"),
        help="What a failure leaves for another try.",
        default_text="nothing",
    ),
    Field(
        name="force",
        description="Whether to go on although the image does not look as these data say.",
        kind=FieldKind.BOOLEAN,
        help="Go on even if IMAGE is not what is said of it.",
    ),
)


def method(targetdata: Mapping[str, JsonValue], settings: Ec2Settings) -> str:
    """Return how this image gets into EC2: one of METHODS."""
    return str(targetdata.get("method", settings.method))


def problems(targetdata: Mapping[str, JsonValue], settings: Ec2Settings) -> list[str]:
    """Check what no single field can tell.

    Args:
        targetdata: Right field by field; not necessarily decrypted.
        settings: For what the target data leave open.

    Returns:
        One line for each problem.
    """
    chosen = method(targetdata, settings)
    found = _tag_problems(targetdata.get("tags"))
    if "external_id" in targetdata and "arn" not in targetdata:
        # OBS makes an external id for every user, and sends arn as null until there is a role.
        found.append("arn is empty: the user has no role configured")
    if problem := role_problem(str(targetdata.get("arn", "")), settings):
        found.append(problem)
    if targetdata.get("architecture") == "arm64" and targetdata.get("ena_support") is False:
        found.append("ena_support is false, but arm64 needs it")  # ec2uploadimg would turn it on
    found += _boot_problems(targetdata)
    if chosen == "ec2uploadimg":
        asked = [name for name, harmless in DIRECT_ONLY.items() if targetdata.get(name, harmless) != harmless]
        found += [f"{name} needs method ebs-direct" for name in asked]
    size = targetdata.get("root_volume_size")
    if chosen == "ec2uploadimg" and isinstance(size, int) and size > MAX_HELPER_GIB:
        found.append(f"root_volume_size is {size}, but ec2uploadimg goes up to {MAX_HELPER_GIB}")
    if "kms_key_id" in targetdata and targetdata.get("encrypted") is False:
        found.append("kms_key_id is given, but encrypted is false")
    return found + _key_problems(targetdata) + _distribution_problems(targetdata)


def role_problem(arn: str, settings: Ec2Settings) -> str | None:
    """Say why the service does not assume a role, if the settings name others; "" is no role."""
    if not arn or settings.is_role_allowed(arn):
        return None
    return f"arn is {arn}, and the administrator lets this service assume only {settings.roles}"


def moment(text: JsonValue) -> datetime.datetime | None:
    """Parse the time that a field of the kind of `deprecate_at` names, aware; None for no time.

    Raises:
        ValueError: There is no such time.
    """
    if not isinstance(text, str):
        return None
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _boot_problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    found = []
    mode = targetdata.get("boot_mode")
    for name, modes in (("tpm_support", TPM_MODES), ("uefi_data", UEFI_MODES)):
        if name in targetdata and mode is not None and mode not in modes:  # else the image tells, see `attributes`
            found.append(f"{name} needs boot_mode {' or '.join(modes)}")
    machine = targetdata.get("architecture")
    if (machine, mode) == ("arm64", "legacy-bios") or (machine == "i386" and mode in UEFI_MODES):
        found.append(f"boot_mode is {mode}, but no instance of {machine} boots so")  # EC2 User Guide, "Boot modes"
    if "uefi_data" in targetdata and not _is_base64(str(targetdata["uefi_data"])):
        found.append("uefi_data is not base64: it ends within a group")
    return found


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _key_problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """Check whether each key is where its snapshots are: EBS uses a KMS key of the same region only."""
    kms_keys = targetdata.get("kms_keys")
    keys = {("kms_key_id", str(targetdata.get("region"))): targetdata.get("kms_key_id")}
    keys |= {
        (f"kms_keys of {name}", name): key for name, key in (kms_keys if isinstance(kms_keys, dict) else {}).items()
    }
    found = []
    for (what, region), key in keys.items():
        arn = _KMS_ARN.match(str(key))
        if arn and arn["region"] != region:
            found.append(f"{what} is a key in {arn['region']}, but the snapshot will be in {region}")
        elif key and not arn and str(key).startswith("arn:"):
            found.append(f"{what} is no ARN of a KMS key or alias")
    return found


def _distribution_problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    found = []
    share, regions, kms_keys = (targetdata.get(name) for name in ("share", "regions", "kms_keys"))
    keys = kms_keys if isinstance(kms_keys, dict) else {}
    is_public = isinstance(share, list) and EVERYBODY in share
    destinations = regions if isinstance(regions, list) else []
    if any(region not in destinations for region in keys) and EVERYWHERE not in destinations:
        found.append("kms_keys have a region that is not among regions")
    if keys.get(home := str(targetdata.get("region"))) not in (None, targetdata.get("kms_key_id")):
        found.append(f"kms_keys have {home}, where the image itself will be: its key is kms_key_id")
    if not all(re.fullmatch(KMS_KEY_PATTERN, str(key)) for key in keys.values()):
        found.append("kms_keys have a value that is no key's id, ARN, or alias/NAME")
    if is_public and (targetdata.get("encrypted") is True or "kms_key_id" in targetdata or keys):
        found.append("share has public, but an encrypted image can't be public")  # EC2 User Guide, "Share an AMI"
    elif share and any(AWS_MANAGED_KEY in str(key) for key in (targetdata.get("kms_key_id"), *keys.values())):
        found.append("share is for other accounts, but they can't be let use a KMS key of AWS's own (alias/aws/...)")
    if targetdata.get("share_snapshot"):
        found += _snapshot_problems(share if isinstance(share, list) else [])
    return found + _partition_problems(targetdata) + _deprecation_problems(targetdata, is_public=is_public)


def _snapshot_problems(share: Sequence[JsonValue]) -> list[str]:
    if not share:
        return ["share_snapshot is true, but there is no share"]
    if any(str(word).startswith("arn:") for word in share):  # EC2 API, CreateVolumePermission
        return [
            "share_snapshot is true, but a snapshot can't be shared with an organization: name its accounts, "
            "in an upload of their own if need be"
        ]
    return []


def _partition_problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """Check whether all is in one partition of AWS: "Cross-partition copies" are none that CopyImage does."""
    regions, share = (targetdata.get(name) for name in ("regions", "share"))
    others = [str(name) for name in regions if name != EVERYWHERE] if isinstance(regions, list) else []
    arns = [str(word) for word in share if str(word).startswith("arn:")] if isinstance(share, list) else []
    if not others and not arns:
        return []
    import botocore.loaders
    import botocore.regions

    # Not a session's: that reads the user's settings, which may be wrong.
    sdk = botocore.regions.EndpointResolver(botocore.loaders.create_loader().load_data("endpoints"))
    region = str(targetdata.get("region"))
    home = _partition(sdk, region)
    if home is None:
        return []  # nothing to compare with; that there is no such region is said where it is asked for something
    found = []
    for name in others:
        theirs = _partition(sdk, name)
        if theirs is None:
            found.append(f"regions have {name}, which is no region of AWS")
        elif theirs != home:
            found.append(f"regions have {name} of the partition {theirs}, but {region} is of {home}")
    return found + [
        f"share has {arn}, which is not of the partition {home} of {region}"
        for arn in arns
        if arn.split(":")[1] != home
    ]


def _partition(sdk: "botocore.regions.EndpointResolver", region: str) -> str | None:
    """Return the partition of a region, also of one newer than the SDK; None if the name is none of a region."""
    import botocore.exceptions

    try:
        return str(sdk.get_partition_for_region(region))
    except botocore.exceptions.UnknownRegionError:
        return None


def _deprecation_problems(targetdata: Mapping[str, JsonValue], *, is_public: bool) -> list[str]:
    try:
        deprecate_at = moment(targetdata.get("deprecate_at"))
    except ValueError:
        return ["deprecate_at is no date that the calendar has"]
    if deprecate_at is None:
        return []
    ahead = deprecate_at - datetime.datetime.now(datetime.UTC)
    if ahead <= datetime.timedelta():
        return ["deprecate_at is in the past"]
    if ahead > MAX_DEPRECATION:
        return ["deprecate_at is more than 10 years ahead"]
    if is_public and ahead > MAX_PUBLIC_DEPRECATION:
        return ["deprecate_at is more than 2 years ahead, too far for a public image"]
    return []


def _tag_problems(tags: JsonValue) -> list[str]:
    if not isinstance(tags, dict):
        return []
    found = []
    if len(tags) > MAX_TAGS:
        found.append(f"tags are {len(tags)}, but EC2 takes {labels.MAX_TAGS}, and we need the rest")
    if any(not 1 <= len(key) <= MAX_TAG_KEY_LENGTH for key in tags):
        found.append(f"tags have a name that is not of 1 to {MAX_TAG_KEY_LENGTH} characters")
    if any(key.lower().startswith(TAG_PREFIX_OF_AWS) for key in tags):
        found.append(f"tags have a name that begins with {TAG_PREFIX_OF_AWS}, which AWS keeps for itself")
    if any(key.startswith(labels.PREFIX) for key in tags):
        found.append(f"tags have a name that begins with {labels.PREFIX}, which is for clouduploader's own")
    if any(len(str(value)) > MAX_TAG_VALUE_LENGTH for value in tags.values()):
        found.append(f"tags have a value of more than {MAX_TAG_VALUE_LENGTH} characters")
    if any(_CONTROL.search(f"{key}{value}") for key, value in tags.items()):
        found.append("tags have a control character, which EC2's XML can't carry")
    return found
