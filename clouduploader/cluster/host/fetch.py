"""Fetch the image of a claimed job."""

import hashlib
import os
from pathlib import Path

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.errors import CannotCreateError, NetworkError
from clouduploader.util import files
from clouduploader.util.cancel import Cancel


def fetch(
    server: ClusterServer, name: str, attempt: int, claim: str, path: Path, *, size: int, sha256: str, cancel: Cancel
) -> None:
    """Fetch an image into a file.

    Args:
        server: The server.
        name: The job.
        attempt: Its attempt.
        claim: The id of the claim.
        path: The file; made.
        size: How large the image is, in bytes.
        sha256: Its digest.
        cancel: Looked at after each piece.

    Raises:
        StoppedError: `cancel` was requested.
        LeaseLostError: The job is no longer this host's.
        NetworkError: What came is not the image.
        CannotCreateError: It can't be written.
    """
    digest = hashlib.sha256()
    with server.image(Claim(name, attempt, claim), {}) as (_, connection), server.errors():
        try:
            with files.open_new(path, mode=files.PRIVATE_MODE) as file:
                while piece := connection.read():
                    cancel.raise_if_requested()
                    files.write_all(file.fileno(), piece)
                    digest.update(piece)
                received = os.fstat(file.fileno()).st_size
        except OSError as exc:
            raise CannotCreateError(f"the image {path} can't be written: {exc.strerror}") from exc
    if received != size or digest.hexdigest() != sha256:
        raise NetworkError(f"the image of the job {name} did not come whole")
