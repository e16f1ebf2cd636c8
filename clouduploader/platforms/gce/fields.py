"""The target data of Google Compute Engine.

Sources: Compute Engine API v1, images (as google-cloud-compute 1.57 carries it); Cloud Storage, "Bucket names"; IAM,
"Principal identifiers".
"""

import re
from collections.abc import Mapping

from clouduploader.platforms.gce import auth, labels
from clouduploader.plugin import Field, FieldKind, JsonValue

NAME_PATTERN = r"[a-z](?:[-a-z0-9]*[a-z0-9])?"
NAME_MEANING = "lower-case letters, digits and dashes, a letter first and no dash last"
MAX_NAME_LENGTH = 63
UEFI = "UEFI_COMPATIBLE"
DEFAULT_FEATURES = ("GVNIC", "VIRTIO_SCSI_MULTIQUEUE")
"""What Linux has had the drivers of since 5.x and 3.17; no current series of machines starts an image without them."""
FEATURES = (
    UEFI,
    *DEFAULT_FEATURES,
    "BARE_METAL_LINUX_COMPATIBLE",
    "CCA_CAPABLE",
    "IDPF",
    "MULTI_IP_SUBNET",
    "SEV_CAPABLE",
    "SEV_LIVE_MIGRATABLE",
    "SEV_LIVE_MIGRATABLE_V2",
    "SEV_SNP_CAPABLE",
    "SNP_SVSM_CAPABLE",
    "SUSPEND_RESUME_COMPATIBLE",
    "TDX_CAPABLE",
    "WINDOWS",
)
"""GuestOsFeature.Type, without those that only Google's own images can have."""
EVERYBODY = "allAuthenticatedUsers"
DEPRECATIONS = ("DEPRECATED", "OBSOLETE")
MAX_USER_LABELS = labels.MAX_LABELS - 10  # ours are at most that many

FIELDS = (
    Field(
        name="credentials",
        description="The JSON key of the service account to upload with; by hand gcloud's own credentials do.",
        is_secret=True,
        is_of_account=True,
        max_length=16384,
        help="JSON key of the service account to upload with.",
        default_text="gcloud's own credentials",
    ),
    Field(
        name="project",
        description="The project in which the image is to be; that of the service account if it is left out.",
        is_of_account=True,
        # Resource Manager, "Creating projects"; domain-scoped ones have the domain and a colon before it
        pattern=r"(?:[a-z][a-z0-9.-]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]|[0-9]+",
        pattern_meaning="a project's id or number",
        max_length=100,
        help="Project in which the image is to be.",
        default_text="that of the credentials",
    ),
    Field(
        name="bucket",
        description="The bucket that holds the image's archive until the image is made; required.",
        is_of_account=True,
        pattern=r"[a-z0-9][a-z0-9._-]*[a-z0-9]",
        pattern_meaning="a bucket's name: lower-case letters, digits and ._-",
        min_length=3,
        max_length=222,
        help="Bucket for the archive, until the image is made of it.",
    ),
    Field(
        name="image_name",
        description="The name of the image, unique in the project.",
        is_required=True,
        pattern=NAME_PATTERN,
        pattern_meaning=NAME_MEANING,
        max_length=MAX_NAME_LENGTH,
        option="--name",
        help="Name of the new image in the cloud.",
    ),
    Field.FILENAME,
    Field(
        name="family",
        description="The family of which the image becomes the newest.",
        pattern=NAME_PATTERN,
        pattern_meaning=NAME_MEANING,
        max_length=MAX_NAME_LENGTH,
        help="Family of which it becomes the newest.",
    ),
    Field(
        name="architecture",
        description="What the image runs on, where the image does not tell.",
        allowed=("x86_64", "arm64"),
        help="What it runs on.",
        default_text="what the image tells",
    ),
    Field(
        name="description",
        description="A sentence about the image, for people.",
        pattern=r"[^\x00-\x1f\x7f]*",
        pattern_meaning="no control characters",
        max_length=2048,
        metavar="TEXT",
        help="A sentence about it, for people.",
    ),
    Field(
        name="labels",
        description="Labels of the image: names and values.",
        kind=FieldKind.OBJECT,
        option="--label",
        help="A label of it; may be repeated.",
    ),
    Field(
        name="guest_os_features",
        description="What the guest can, besides UEFI_COMPATIBLE, which the image tells; GVNIC and "
        "VIRTIO_SCSI_MULTIQUEUE if it is left out.",
        kind=FieldKind.ARRAY,
        allowed=FEATURES,
        option="--guest-os-feature",
        metavar="FEATURE",
        help="What the guest can, such as GVNIC or SEV_CAPABLE; may be repeated.",
        default_text=", ".join(DEFAULT_FEATURES),
    ),
    Field(
        name="storage_location",
        description="Where Google keeps the image: a region or a multi-region, such as eu.",
        pattern=r"[a-z]+(?:-[a-z]+[0-9]+)?",
        pattern_meaning="a region or a multi-region, such as europe-west1 or eu",
        help="Where Google keeps it: a region, or a multi-region such as eu.",
        default_text="the multi-region nearest to the bucket",
    ),
    Field(
        name="share",
        description="Who besides the project can use the image: members as IAM writes them, such as "
        "group:ops@example.com, or allAuthenticatedUsers.",
        kind=FieldKind.ARRAY,
        pattern=rf"(?:user|group|serviceAccount|domain|principal|principalSet):[!-~]+|{EVERYBODY}",
        pattern_meaning=f"such as user:ann@example.com, domain:example.com or {EVERYBODY}",
        max_length=512,
        metavar="MEMBER",
        help="Who else can use it, such as group:ops@example.com; may be repeated.",
    ),
    Field(
        name="deprecate_older",
        description="What becomes of the older images of its family: DEPRECATED ones warn, OBSOLETE ones can't be "
        "used.",
        allowed=DEPRECATIONS,
        help="What becomes of the older images of its family.",
        default_text="nothing",
    ),
    Field.SHA256,
    Field(
        name="force",
        description="Whether to upload an image that looks like no disk, or as something it does not look like.",
        kind=FieldKind.BOOLEAN,
        help="Upload IMAGE even if it looks like no disk, or like another one than you say.",
    ),
)


def problems(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """Check the rules between fields, and within objects."""
    found = auth.key_problems(targetdata.get("credentials"))
    if targetdata.get("deprecate_older") and not targetdata.get("family"):
        found.append("deprecate_older is given, but no family: older images of what")
    return found + _label_problems(targetdata.get("labels"))


def _label_problems(given: JsonValue) -> list[str]:
    if not isinstance(given, dict):
        return []
    found = []
    if len(given) > MAX_USER_LABELS:
        found.append(f"labels are {len(given)}, but Google takes {labels.MAX_LABELS}, and we need the rest")
    if not all(_fits(labels.KEY_PATTERN, key) for key in given):
        found.append("labels have a name that is not lower-case letters, digits, _ and -, a letter first, 63 at most")
    if not all(_fits(labels.VALUE_PATTERN, str(text)) for text in given.values()):
        found.append("labels have a value that is not lower-case letters, digits, _ and -, 63 at most")
    if any(key.startswith(labels.PREFIX) for key in given):
        found.append(f"labels have a name that begins with {labels.PREFIX}, which is for clouduploader's own")
    return found


def _fits(pattern: str, text: str) -> bool:
    return len(text) <= labels.MAX_LENGTH and re.fullmatch(pattern, text) is not None
