"""The target data of Azure: what OBS's form sends, and what can be given beyond that.

Sources: OBS's `azure/configuration.rb` and its upload form; "Naming rules and restrictions for Azure resources";
"Use tags to organize your Azure resources"; the models of Microsoft.Compute.
"""

import datetime
import re
from collections.abc import Mapping

from clouduploader.platforms.azure.settings import METHODS
from clouduploader.plugin import Field, FieldKind, JsonValue, labels

MAX_TAGS = 50  # of one resource ("Use tags to organize your Azure resources")
OUR_TAGS = 12  # kept free for ours: those of the plugin API, and the content
MAX_TAG_NAME_LENGTH = 512
MAX_TAG_VALUE_LENGTH = 256
ARCHITECTURES = {"x86_64": "x64", "arm64": "Arm64"}
"""Our words for architectures, and Azure's."""
MAX_IMAGE_NAME_LENGTH = 80
LOGIN = ("application_id", "application_key", "application_certificate")
"""The secret fields: who uploads, and either proof of it."""
_SUFFIXES = (".xz", ".vhdfixed", ".vhd")
"""What OBS's script takes off the file's name, in this order, to name an image."""
_GUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_GUID_MEANING = "such as 01234567-89ab-cdef-0123-456789abcdef"
_NOT_IN_TAG_NAME = re.compile(r"[<>%&\\?/\x00-\x1f\x7f]")
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z)?"

_GROUP = r"[A-Za-z0-9_.()-]*[A-Za-z0-9_()-]"
_GROUP_MEANING = "letters, digits and _.()-, with no full stop at the end"
FIELDS = (
    Field(
        name="tenant",
        description="The tenant (directory) that the application and the subscription belong to: its id or a domain.",
        is_of_account=True,
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?",
        pattern_meaning="a tenant's id or domain",
        max_length=253,
        help="Tenant of the application.",
    ),
    Field(
        name="subscription",
        description="The tenant, where there is no key of that name: OBS calls it so, though it passes it as a tenant.",
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?",
        pattern_meaning="a tenant's id or domain",
        min_length=3,
        max_length=253,
        option="",
    ),
    Field(
        name="application_id",
        description="The id of the application (service principal) that uploads; without one clouduploader's own "
        "credentials are used.",
        help="Id of the application (service principal) that uploads.",
        default_text="your own login, such as that of az",
        is_of_account=True,
        is_secret=True,  # as OBS sends it
        pattern=_GUID,
        pattern_meaning=_GUID_MEANING,
    ),
    Field(
        name="application_key",
        description="The application's client secret.",
        is_of_account=True,
        is_secret=True,
        max_length=1024,
    ),
    Field(
        name="application_certificate",
        description="The application's certificate with its private key, in PEM, where it has no client secret.",
        is_of_account=True,
        is_secret=True,
        max_length=32768,
    ),
    Field(
        name="subscription_id",
        description="The id of the subscription; needed only where the application sees several.",
        is_of_account=True,
        pattern=_GUID,
        pattern_meaning=_GUID_MEANING,
        help="Subscription, where the application sees several.",
    ),
    Field(
        name="resource_group",
        description="The resource group in which the image is to be.",
        is_required=True,
        pattern=_GROUP,
        pattern_meaning=_GROUP_MEANING,
        max_length=90,
        help="Resource group of the image.",
    ),
    Field(
        name="image_name",
        description="The name of the image; by default the file's, without .xz, .vhdfixed and .vhd.",
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?",
        pattern_meaning="letters, digits and _.-, which begins with a letter or digit, and ends with one or _",
        min_length=2,  # OBS's form; Azure takes one character
        max_length=MAX_IMAGE_NAME_LENGTH,
        option="--name",
        help="Name of the new image.",
        default_text="that of the file",
    ),
    Field(
        name="storage_account",
        description="The storage account that the disk is sent through; method blob needs it.",
        pattern=r"[a-z0-9]*",
        pattern_meaning="lower-case letters and digits",
        min_length=3,
        max_length=24,
        help="Storage account that the disk goes through.",
    ),
    Field(
        name="container",
        description="The container in the storage account; made if it is not there.",
        pattern=r"[a-z0-9](?:-?[a-z0-9])*",
        pattern_meaning="lower-case letters, digits and single dashes between them",
        min_length=3,
        max_length=63,
        help="Container in it.",
    ),
    Field(
        name="location",
        description="The location of the image; by default that of the storage account, or of the resource group.",
        pattern=r"[a-z0-9]+",
        pattern_meaning="a location's name such as westeurope",
        max_length=60,
        help="Location of the image, for example westeurope.",
        default_text="that of the resource group",
    ),
    Field(
        name="hyper_v_generation",
        description="The generation of virtual machines that boot the image: V1 by BIOS, V2 by UEFI.",
        allowed=("V1", "V2"),
        help="Generation of its machines.",
        default_text="what the image tells",
    ),
    Field(
        name="architecture",
        description="What the image runs on; arm64 only in a gallery.",
        allowed=tuple(ARCHITECTURES),
        help="What it runs on.",
        default_text="what the image tells",
    ),
    Field(
        name="gallery",
        description="The Azure Compute Gallery that gets a version, in place of a managed image.",
        pattern=r"[A-Za-z0-9_](?:[A-Za-z0-9_.]*[A-Za-z0-9_])?",
        pattern_meaning="letters, digits, and between them _ and full stops",
        max_length=80,
        help="Gallery that gets a version, in place of an image.",
    ),
    Field(
        name="gallery_resource_group",
        description="The resource group of the gallery; that of the image unless given.",
        pattern=_GROUP,
        pattern_meaning=_GROUP_MEANING,
        max_length=90,
        help="Resource group of the gallery.",
        default_text="that of the image",
    ),
    Field(
        name="gallery_image",
        description="The image definition in the gallery; it must be there.",
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?",
        pattern_meaning="letters, digits, and between them _.-",
        max_length=80,
        help="Image definition in the gallery.",
    ),
    Field(
        name="gallery_version",
        description="The version that is made of it.",
        pattern=r"(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})",  # 32 bits each
        pattern_meaning="such as 1.0.20261129",
        help="Version that is made of it.",
    ),
    Field(
        name="regions",
        description="Where the gallery's version is replicated to, besides its location.",
        kind=FieldKind.ARRAY,
        pattern=r"[a-z0-9]+",
        pattern_meaning="locations' names such as westeurope",
        option="--copy-to",
        help="Location that the gallery's version is replicated to.",
    ),
    Field(
        name="exclude_from_latest",
        description="Whether the gallery's version is passed over by those who ask for the latest one.",
        kind=FieldKind.BOOLEAN,
        help="Let `latest` pass over the gallery's version.",
    ),
    Field(
        name="end_of_life",
        description="When the gallery's version comes to its end; it can be used all the same. A date, or one with a "
        "time, in UTC.",
        pattern=_DATE,
        pattern_meaning="such as 2027-12-31 or 2027-12-31T12:00:00Z",
        metavar="DATE",
        help="When the gallery's version comes to its end.",
    ),
    Field(
        name="tags",
        description="Tags of the image: names and values.",
        kind=FieldKind.OBJECT,
        option="--tag",
        help="A tag of it; may be repeated.",
    ),
    Field(
        name="method",
        description="How the image gets into Azure: by a page blob in a storage account, or by a managed disk; auto is "
        "blob where there is a storage account that lets us in, else disk.",
        allowed=METHODS,
        help="How it gets there.",
        default_text="clouduploader.conf",
    ),
    Field(
        name="verify",
        description="Whether all pages are read back and compared, besides the checksum that Azure checks of each.",
        kind=FieldKind.BOOLEAN,
        help="Read all pages back, and compare them.",
    ),
    Field(
        name="force",
        description="Whether to upload what does not look like a disk.",
        kind=FieldKind.BOOLEAN,
        help="Upload IMAGE even if it does not look like a disk.",
    ),
    Field.FILENAME,
    Field.SHA256,
)


def problems(targetdata: Mapping[str, JsonValue], default_method: str) -> list[str]:
    """List what is wrong between fields."""
    found = login_problems(targetdata)
    method = targetdata.get("method", default_method)
    if method == "blob" and not ("storage_account" in targetdata and "container" in targetdata):
        found.append("method is blob, which needs storage_account and container")
    elif ("storage_account" in targetdata) != ("container" in targetdata):
        found.append("storage_account and container are given together")
    gallery = [name for name in ("gallery", "gallery_image", "gallery_version") if name in targetdata]
    if 0 < len(gallery) < 3:
        found.append("gallery, gallery_image and gallery_version are given together")
    for name in ("gallery_resource_group", "regions", "exclude_from_latest", "end_of_life"):
        if targetdata.get(name) and not gallery:
            found.append(f"{name} is of a gallery's version, but there is no gallery")
    if targetdata.get("architecture") == "arm64":
        if not gallery:
            found.append("architecture is arm64, which only a gallery has: a managed image can't tell it")
        if targetdata.get("hyper_v_generation") == "V1":
            found.append("hyper_v_generation is V1, but machines of arm64 are of generation 2")
    try:
        moment(targetdata.get("end_of_life"))
    except ValueError:
        found.append("end_of_life is no date that the calendar has")
    return found + _tag_problems(targetdata.get("tags"))


def login_problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """List what lacks for a login as an application; nothing without one."""
    proofs = [name for name in LOGIN[1:] if targetdata.get(name)]
    if not targetdata.get("application_id"):
        return [f"{name} is given without an application_id" for name in proofs]
    found = []
    if len(proofs) != 1:
        found.append("application_id needs either application_key or application_certificate")
    if not tenant(targetdata):
        found.append("application_id needs the tenant")
    return found


def _tag_problems(tags: JsonValue) -> list[str]:
    if not isinstance(tags, dict):
        return []
    found = []
    if len(tags) > MAX_TAGS - OUR_TAGS:
        found.append(f"tags are {len(tags)}, but Azure takes {MAX_TAGS}, and we need {OUR_TAGS} of them")
    if any(not 1 <= len(name) <= MAX_TAG_NAME_LENGTH or _NOT_IN_TAG_NAME.search(name) for name in tags):
        found.append(f"tags have a name that is not of 1 to {MAX_TAG_NAME_LENGTH} characters other than <>%&\\?/")
    if any(name.lower().startswith(labels.PREFIX) for name in tags):
        found.append(f"tags have a name that begins with {labels.PREFIX}, which is for clouduploader's own")
    if any(name.lower().startswith(("microsoft", "azure", "windows")) for name in tags):
        found.append("tags have a name that begins with microsoft, azure or windows, which Azure keeps for itself")
    if any(len(str(value)) > MAX_TAG_VALUE_LENGTH for value in tags.values()):
        found.append(f"tags have a value of more than {MAX_TAG_VALUE_LENGTH} characters")
    return found


def tenant(targetdata: Mapping[str, JsonValue]) -> str:
    """Return the tenant, which OBS calls subscription; "" if there is none."""
    return str(targetdata.get("tenant") or targetdata.get("subscription") or "")


def image_name(targetdata: Mapping[str, JsonValue], filename: str) -> str:
    """Return the image's name; by default made from the file's, as OBS's script does, of what Azure takes."""
    if given := targetdata.get("image_name"):
        return str(given)
    for suffix in _SUFFIXES:
        filename = filename.removesuffix(suffix)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", filename)[:MAX_IMAGE_NAME_LENGTH].strip("-.")
    return re.sub(r"^_+", "", name) or "image"


def moment(text: JsonValue) -> datetime.datetime | None:
    """Read a date; None if there is none.

    Raises:
        ValueError: The calendar has no such date.
    """
    if not isinstance(text, str):
        return None
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
