"""Where an image comes from, as labels on what an upload makes: tags, labels or properties, as the cloud calls them."""

from collections.abc import Mapping

import clouduploader
from clouduploader.plugin.request import UploadRequest

PREFIX = "clouduploader:"
KEY = f"{PREFIX}key"
"""Of everything that an upload makes: the key of its journal."""
JOB = f"{PREFIX}job"
FILENAME = f"{PREFIX}filename"
VERSION = f"{PREFIX}version"
PROVENANCE = ("project", "package", "repository", "arch")
"""Keys of `UploadRequest.provenance` that become labels of these names."""


def of_upload(request: UploadRequest) -> dict[str, str]:
    """Make the labels that are known before anything is made; those without a value are left out.

    Values hold printable characters only; how long they may be is the platform's to say.
    """
    values = {
        KEY: request.journal.key,
        JOB: request.job_name or "",
        **{f"{PREFIX}{name}": request.provenance.get(name, "") for name in PROVENANCE},
        FILENAME: request.image.filename,
        VERSION: clouduploader.__version__,
    }
    return {name: printable(value) for name, value in values.items() if value}


def printable(text: str) -> str:
    """Replace what no label may hold, control characters and lone surrogates, by question marks."""
    return "".join(char if char.isprintable() else "?" for char in text)


def is_ours(labels: Mapping[str, str]) -> bool:
    """Tell whether something bears the labels of an upload."""
    return bool(labels.get(KEY))
