"""What one upload is to do."""

import dataclasses
from pathlib import Path

from clouduploader.model.job import Job
from clouduploader.util.frozen import frozen


@frozen(kw_only=True)
class UploadTask:
    """What is to be uploaded, for which user, and to which target.

    Attributes:
        user: Any text.
        target: The platform's name.
        image_path: The image.
        targetdata: The target data as they came, encrypted or not.
        filename: The image's real name if the caller knows it; not trusted.
        job: The record in the spool, or None.
        is_by_hand: Whether a person started the upload from the command line.
    """

    user: str
    target: str
    image_path: Path
    targetdata: bytes = dataclasses.field(repr=False)
    filename: str | None
    job: Job | None
    is_by_hand: bool
