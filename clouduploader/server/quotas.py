"""What each user has here, and the limits for users with a token: of requests in a minute, of jobs, of bytes.

An image that comes in pieces counts as a job.
"""

import collections
import dataclasses
import math
from collections.abc import Mapping

from clouduploader.errors import JobFileError, NoSuchJobError
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import ServerSettings
from clouduploader.store import spool
from clouduploader.store.images import ImageStore

WINDOW_SECONDS = 60.0


class RequestCounts:
    """Counts the requests of users: each may send so many in a minute, all at once if they like."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}  # requests that count, and as of when

    def count(self, user: str, *, most: int, now: float) -> None:
        """Count a request.

        Args:
            user: Whose it is.
            most: How many there may be in WINDOW_SECONDS.
            now: By a monotonic clock, in s.

        Raises:
            RefusalError: There are more; this one does not count.
        """
        used, since = self._used.get(user, (0.0, now))
        used = max(0.0, used - (now - since) * most / WINDOW_SECONDS)
        if used + 1 > most:
            seconds = math.ceil((used + 1 - most) * WINDOW_SECONDS / most)
            raise RefusalError(
                f"{user} sends more than {most} requests a minute",
                status=429,
                is_coded=True,
                headers={"Retry-After": str(seconds)},
            )
        self._used[user] = (used + 1, now)


@dataclasses.dataclass
class Usage:
    """What a user has in the spool.

    Attributes:
        jobs: How many that are not over.
        images: How many that come in pieces, and no job was made of yet.
        size_bytes: Of the images of both, as they are to be.
    """

    jobs: int = 0
    images: int = 0
    size_bytes: int = 0


def usage(jobs: spool.Spool, images: ImageStore, *, but: str | None = None) -> Mapping[str, Usage]:
    """Return what each user has; nothing for others. Reads the running records, and those of images.

    Args:
        jobs: The spool.
        images: Those that come in pieces.
        but: The id of one that does not count.

    Raises:
        LocalIOError: The spool can't be read.
    """
    found: collections.defaultdict[str, Usage] = collections.defaultdict(Usage)
    for image in images.images():
        if image.owner and not image.job and image.id != but:
            found[image.owner].images += 1
            found[image.owner].size_bytes += image.size_bytes
    for name in jobs.running_names():
        try:
            job, _ = jobs.read(name)
        except (JobFileError, NoSuchJobError):
            continue
        if job.user and not job.state.is_final:
            found[job.user].jobs += 1
            found[job.user].size_bytes += job.size or 0
    return found


def check_room(
    jobs: spool.Spool, settings: ServerSettings, user: str, size_bytes: int, *, images: ImageStore, taken: str | None
) -> None:
    """Refuse a job of a user who has too many that are not over, or too much in them; see `usage`.

    Args:
        jobs: The spool.
        settings: Have the limits.
        user: Whose job it would be.
        size_bytes: Of its image.
        images: Those that come in pieces.
        taken: The id of that which the job is made of; None for none.

    Raises:
        RefusalError: It would be too much.
        LocalIOError: The spool can't be read.
    """
    if size_bytes > settings.user_bytes:
        raise RefusalError(
            f"the image has {size_bytes} bytes, and those of {user} may have {settings.user_bytes}",
            status=413,
            is_coded=True,
        )
    used = usage(jobs, images, but=taken).get(user, Usage())
    count, used_bytes = used.jobs + used.images, used.size_bytes + size_bytes
    if count >= settings.user_jobs:
        raise RefusalError(
            f"{user} has {count} jobs that are not over, and may have {settings.user_jobs}",
            status=429,
            is_coded=True,
        )
    if used_bytes > settings.user_bytes:
        raise RefusalError(
            f"with this image those of {user} in the spool have {used_bytes} bytes, and may have {settings.user_bytes}",
            status=429,
            is_coded=True,
        )
