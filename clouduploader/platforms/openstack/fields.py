"""The target data of OpenStack: who uploads, into which cloud, and what the image is to be.

Sources: the Images API v2 as Glance 33 answers it, and Nova's `ImageMetaProps`, which reads the properties.
"""

import re
from collections.abc import Collection, Mapping

from clouduploader.errors import TargetDataError
from clouduploader.plugin import Field, FieldKind, JsonValue, labels
from clouduploader.util import hosts

ARCHITECTURES = {
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
    "arm": "armv7l",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
"""Nova's words for what an image runs on, by those of `ImageFacts` and OBS."""
PROPERTIES = ("hw_firmware_type", "hw_machine_type", "hw_disk_bus", "hw_vif_model", "os_distro", "min_disk", "min_ram")
"""Fields that are what Glance calls them."""
METHODS = ("put", "glance-direct")
"""How the bytes get into Glance: at once, or by its staging area, which a cloud may want for its import plugins."""
OF_GLANCE = frozenset(
    {
        "architecture",
        "checksum",
        "container_format",
        "created_at",
        "direct_url",
        "disk_format",
        "file",
        "id",
        "locations",
        "min_disk",
        "min_ram",
        "name",
        "os_hash_algo",
        "os_hash_value",
        "os_hidden",
        "owner",
        "protected",
        "schema",
        "self",
        "size",
        "status",
        "stores",
        "tags",
        "updated_at",
        "virtual_size",
        "visibility",
    }
)
"""Names in an image's document that are none of a further property, and that of our field."""
MAX_TAGS = 128  # Glance, image_tag_quota
MAX_PROPERTIES = 128  # Glance, image_property_quota
MAX_LENGTH = 255  # Glance: of a name, a tag, a property's name; of its value Nova takes no more
MAX_INT = (1 << 31) - 1  # Glance's schema of min_disk and min_ram
OWN_TAGS = 9  # at most, see `tags`
MARK = labels.PREFIX.rstrip(":")
"""The tag that all our images bear: Glance looks for whole tags only."""

_BEYOND = re.compile(r"[\x00-\x1f\x7f\U00010000-\U0010ffff]")
"""What Glance refuses in names, tags and properties ("can't contain 4 byte unicode characters"), or never shows."""

_REGION = r"[A-Za-z0-9_.-]+"
_WORD = r"[A-Za-z0-9_.-]+"
_URL = r'(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(?:/[!-"$->@-~]*)?'
"""Whose host is the same to all that read it: with a backslash or an @ libraries differ. Without ? and #, which would
take away what is put behind it."""

FIELDS = (
    Field(
        name="application_credential_id",
        description="The id of the application credential to upload with; without it your own OpenStack settings are "
        "used.",
        is_of_account=True,
        is_of_one_user=True,
        pattern=_WORD,
        pattern_meaning="letters, digits and _.-",
        max_length=64,  # Keystone, application_credential.id
        help="Id of the application credential to act with.",
        default_text="your own clouds.yaml or OS_*",
    ),
    Field(
        name="application_credential_secret",
        description="Its secret.",
        is_of_account=True,
        is_secret=True,
        max_length=MAX_LENGTH,
        help="Secret of the application credential.",
    ),
    Field(
        name="cloud",
        description="The cloud, by its name in clouds.yaml.",
        is_of_account=True,
        pattern=_WORD,
        pattern_meaning="letters, digits and _.-",
        max_length=MAX_LENGTH,
        help="The cloud's name in clouds.yaml.",
        default_text="clouduploader.conf, OS_CLOUD",
    ),
    Field(
        name="auth_url",
        description="The URL of the cloud's Keystone, where clouds.yaml does not name the cloud.",
        is_of_account=True,
        pattern=_URL,
        pattern_meaning="a URL of http or https, without ? and #",
        max_length=2048,
        help="The URL of Keystone, in place of a name in clouds.yaml.",
    ),
    Field(
        name="region",
        description="The region in which the image is to be.",
        is_required=True,
        pattern=_REGION,
        pattern_meaning="letters, digits and _.-",
        max_length=MAX_LENGTH,
        help="The cloud's region, for example RegionOne.",
    ),
    Field(
        name="image_name",
        description="The name of the image, unique among the project's images of that region.",
        is_required=True,
        max_length=MAX_LENGTH,
        option="--name",
        help="Name of the new image in the cloud.",
    ),
    Field.FILENAME,
    Field(
        name="architecture",
        description="What the image runs on, where it is not what the image tells.",
        allowed=tuple(ARCHITECTURES),
        help="What it runs on.",
        default_text="what the image tells",
    ),
    Field(
        name="disk_format",
        description="What is sent: the raw disk, whatever the image is, or a qcow2 as it is.",
        allowed=("raw", "qcow2"),
        help="What is sent.",
        default_text="raw",
    ),
    Field(
        name="method",
        description="How the image gets into Glance: by one request, or by its staging area and an import.",
        allowed=METHODS,
        help="How it gets there.",
        default_text="clouduploader.conf",
    ),
    Field(
        name="hw_firmware_type",
        description="What instances boot by; what the image tells unless given.",
        allowed=("bios", "uefi"),
        help="What instances boot by.",
        default_text="what the image tells",
    ),
    Field(
        name="hw_machine_type",
        description="The machine that instances are, in QEMU's words.",
        pattern=_WORD,
        pattern_meaning="such as q35",
        max_length=MAX_LENGTH,
        help="QEMU's machine, such as q35.",
    ),
    Field(
        name="hw_disk_bus",
        description="The bus of the disks.",
        pattern=_WORD,
        pattern_meaning="such as virtio",
        max_length=MAX_LENGTH,
        help="The bus of its disks, such as virtio.",
    ),
    Field(
        name="hw_vif_model",
        description="The model of the network cards, such as virtio.",
        pattern=_WORD,
        pattern_meaning="such as virtio",
        max_length=MAX_LENGTH,
        help="The model of its network cards.",
    ),
    Field(
        name="os_distro",
        description="The distribution on it, such as opensuse.",
        pattern=_WORD,
        pattern_meaning="such as opensuse",
        max_length=MAX_LENGTH,
        help="The distribution on it, such as opensuse.",
    ),
    Field(
        name="min_disk",
        description="The least disk that an instance needs, in GiB.",
        kind=FieldKind.INTEGER,
        minimum=0,
        maximum=MAX_INT,
        help="GiB of disk that an instance needs.",
    ),
    Field(
        name="min_ram",
        description="The least memory that an instance needs, in MiB.",
        kind=FieldKind.INTEGER,
        minimum=0,
        maximum=MAX_INT,
        help="MiB of memory that an instance needs.",
    ),
    Field(
        name="properties",
        description="Further properties of the image: names and values.",
        kind=FieldKind.OBJECT,
        option="--property",
        help="A further property of it; may be repeated.",
    ),
    Field(
        name="tags",
        description="Tags of the image.",
        kind=FieldKind.ARRAY,
        max_length=MAX_LENGTH,
        option="--tag",
        help="A tag of it.",
    ),
    Field(
        name="visibility",
        description="For whom the image is visible; shared if there are members, else private.",
        allowed=("private", "shared", "community", "public"),
        help="For whom it is visible.",
        default_text="private, or shared with members",
    ),
    Field(
        name="members",
        description="The ids of projects that the image is shared with.",
        kind=FieldKind.ARRAY,
        pattern=_WORD,
        pattern_meaning="ids of projects",
        max_length=MAX_LENGTH,
        option="--member",
        metavar="PROJECT",
        help="Share it with this project.",
    ),
    Field(
        name="regions",
        description="Further regions that the image is uploaded to.",
        kind=FieldKind.ARRAY,
        pattern=_REGION,
        pattern_meaning="letters, digits and _.-",
        max_length=MAX_LENGTH,
        option="--copy-to",
        metavar="REGION",
        help="Upload it there too.",
    ),
    Field.SHA256,
    Field(
        name="force",
        description="Whether to go on although the image does not look as these data say.",
        kind=FieldKind.BOOLEAN,
        help="Go on even if IMAGE is not what is said of it.",
    ),
)


def problems(targetdata: Mapping[str, JsonValue], *, default_cloud: str) -> list[str]:
    """Check what no single field can tell.

    Args:
        targetdata: Right field by field; not necessarily decrypted.
        default_cloud: Of the settings, or "".

    Returns:
        One line for each problem.
    """
    found = []
    credential = ("application_credential_id", "application_credential_secret")
    given = [name for name in credential if targetdata.get(name)]
    if len(given) == 1:
        missing = next(name for name in credential if name not in given)
        found.append(f"{missing} is missing: {given[0]} is of no use without it")
    if targetdata.get("auth_url") and targetdata.get("cloud"):
        found.append("auth_url and cloud are both given: clouds.yaml says where the cloud is")
    if given and not (targetdata.get("auth_url") or targetdata.get("cloud") or default_cloud):
        found.append("cloud is missing, or auth_url: the credential is of one cloud")
    name = str(targetdata.get("image_name", ""))
    if name.startswith("in:"):  # it takes that for a list of names, where images are looked for
        found.append("image_name begins with in:, by which Glance can't look for it")
    if _BEYOND.search(name):
        found.append("image_name has a character that Glance does not take, such as an emoji")
    if targetdata.get("members") and targetdata.get("visibility", "shared") != "shared":
        found.append(f"members are given, but visibility is {targetdata['visibility']}, not shared")
    return found + _tag_problems(targetdata.get("tags")) + _property_problems(targetdata.get("properties"))


def check_url(url: str, allowed: Collection[str], *, is_by_hand: bool) -> None:
    """Look whether the URL of a Keystone that target data name may get their secret, and requests of this host.

    Args:
        url: The `auth_url`.
        allowed: See `is_listed`; `*` for all, but by https.
        is_by_hand: Whether it is for the caller, who may ask any host, and this machine by http: what trusts this
            machine trusts the caller. A service's users are others.

    Raises:
        TargetDataError: It may not.
    """
    found = re.fullmatch(_URL, url)
    if not found:
        raise TargetDataError("auth_url is no URL of http or https")
    host = _host(found)
    is_known = is_listed(url, allowed)
    hint = "The administrator lists hosts by auth_hosts in [openstack] of clouduploader.conf, or clouds in clouds.yaml."
    if not (is_known or is_by_hand or "*" in allowed):
        raise TargetDataError(f"auth_url: this service does not upload to {host}", hint=hint)
    if found[1] != "https" and not (is_known or (is_by_hand and hosts.is_here(host))):
        raise TargetDataError(f"auth_url: {host} is asked by http, so that others could read the secret", hint=hint)


def is_listed(url: str, allowed: Collection[str]) -> bool:
    """Return whether the host of a URL is one that the administrator lists.

    Args:
        url: The URL.
        allowed: Names of hosts, or hosts with ports, in lower case.
    """
    found = re.fullmatch(_URL, url)
    return found is not None and (_host(found) in allowed or f"{found[2]}{found[3] or ''}".lower() in allowed)


def is_of_https(url: str) -> bool:
    """Return whether a URL is one of https that Keystone's could be, too: what is put behind it stands there."""
    found = re.fullmatch(_URL, url)
    return found is not None and found[1] == "https"


def _host(found: re.Match[str]) -> str:
    return found[2].strip("[]").lower()


def tags(labels_of_upload: Mapping[str, str], users: JsonValue) -> list[str]:
    """Make the tags of an image: ours and the user's.

    Ours are tags and no properties: an image that Nova makes of an instance inherits all properties, and would be taken
    for a leftover while it is made.

    Args:
        labels_of_upload: See `labels.of_upload`.
        users: The target data's `tags`, or None.
    """
    ours = [_BEYOND.sub("?", f"{name}={value}")[:MAX_LENGTH] for name, value in labels_of_upload.items()]
    return [MARK, *ours, *(dict.fromkeys(map(str, users)) if isinstance(users, list) else ())]


def labels_of(image_tags: list[str]) -> dict[str, str]:
    """Read our labels from the tags of an image."""
    return dict(tag.split("=", 1) for tag in image_tags if tag.startswith(labels.PREFIX) and "=" in tag)


def _tag_problems(users: JsonValue) -> list[str]:
    if not isinstance(users, list):
        return []
    found = []
    if len(set(map(str, users))) > MAX_TAGS - OWN_TAGS:
        found.append(f"tags are more than {MAX_TAGS - OWN_TAGS}: Glance takes {MAX_TAGS}, and we need the rest")
    if any(str(tag).startswith(MARK) for tag in users):
        found.append(f"tags have one that begins with {MARK}, which is for clouduploader's own")
    if any(not tag or _BEYOND.search(str(tag)) for tag in users):
        found.append("tags have one that is empty, or has a character that Glance does not take, such as an emoji")
    return found


def _property_problems(users: JsonValue) -> list[str]:
    if not isinstance(users, dict):
        return []
    found = []
    if len(users) > MAX_PROPERTIES - len(PROPERTIES) - 1:
        found.append(f"properties are more than {MAX_PROPERTIES - len(PROPERTIES) - 1}, and Glance takes not so many")
    if taken := sorted(users.keys() & (OF_GLANCE | set(PROPERTIES))):
        found.append(f"properties have {taken[0]}, which is none, or a field of its own")
    if any(not name or name.startswith("os_glance") for name in users):
        found.append("properties have a name that is empty, or begins with os_glance, which is Glance's own")
    if any(len(text) > MAX_LENGTH for item in users.items() for text in map(str, item)):
        found.append(f"properties have a name or value of more than {MAX_LENGTH} characters")
    if any(_BEYOND.search(f"{name}{value}") for name, value in users.items()):
        found.append("properties have a character that Glance does not take, such as an emoji")
    return found
