"""Limits for each user with a token: requests in a minute, jobs that are not over, and bytes of their images.

An image that comes in pieces counts as a job.
"""

import math

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


def check_room(
    jobs: spool.Spool, settings: ServerSettings, user: str, size_bytes: int, *, images: ImageStore, taken: str | None
) -> None:
    """Refuse a job of a user who has too many that are not over, or too much in them. Reads the running records.

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
    count, used_bytes = images.used_bytes(user, but=taken)
    count += 1
    used_bytes += size_bytes
    for name in jobs.running_names():
        try:
            job, _ = jobs.read(name)
        except (JobFileError, NoSuchJobError):
            continue
        if job.user == user and not job.state.is_final:
            count += 1
            used_bytes += job.size or 0
    if count > settings.user_jobs:
        raise RefusalError(
            f"{user} has {count - 1} jobs that are not over, and may have {settings.user_jobs}",
            status=429,
            is_coded=True,
        )
    if used_bytes > settings.user_bytes:
        raise RefusalError(
            f"with this image those of {user} in the spool have {used_bytes} bytes, and may have {settings.user_bytes}",
            status=429,
            is_coded=True,
        )
