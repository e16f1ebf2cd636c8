"""Search jobs, newest first: as many as fit into one answer, and where the next one continues."""

import dataclasses
from collections.abc import Collection
from typing import Any

from clouduploader.jobs import list as jobs_list
from clouduploader.server import replies
from clouduploader.store import spool
from clouduploader.util.frozen import frozen

MAX_RECORDS = 5000  # records for one answer: a quarter of a second
MAX_JOBS = 500  # in one answer
MAX_CHARS = 500_000  # of all their texts; those of a job may have 50,000
DAMAGED = "damaged"
"""The state of a job whose record can't be read, beside those of `JobState`."""
_HIDDEN = ("pid",)  # of no use to a browser


@frozen(kw_only=True)
class JobSearch:
    """Conditions that a job must meet; an empty field is none.

    Attributes:
        words: Each must be in one of the job's fields; case does not matter.
        states: One of them is the job's.
        users: One of them is.
        targets: One of them is.
        projects: One of them is.
        since: It was created then, in s since the epoch, or later.
        is_running: It is not archived.
    """

    words: Collection[str] = ()
    states: Collection[str] = ()
    users: Collection[str] = ()
    targets: Collection[str] = ()
    projects: Collection[str] = ()
    since: float | None = None
    is_running: bool = False

    def is_match(self, fields: dict[str, Any]) -> bool:
        """Return whether a job meets the conditions, by what `job_fields` gives."""
        filters = (("state", self.states), ("user", self.users), ("target", self.targets), ("project", self.projects))
        if not all(not wanted or fields.get(name) in wanted for name, wanted in filters):
            return False
        if self.since is not None and (fields.get("created") or 0) < self.since:
            return False
        text = "\n".join(str(value) for value in fields.values() if value is not None).casefold()
        return all(word.casefold() in text for word in self.words)


@frozen()
class SearchResult:
    """One answer.

    Attributes:
        total: How many jobs there are in all, found or not; None for an owner.
        jobs: See `job_fields`.
        before: What to give as `before` for the next answer; None if there are no more jobs.
    """

    total: int | None
    jobs: list[dict[str, Any]]
    before: int | None


def find(jobs: spool.Spool, wanted: JobSearch, *, before: int | None, owner: str | None, limit: int) -> SearchResult:
    """Search jobs. Blocks while it reads up to MAX_RECORDS records.

    Args:
        jobs: The spool.
        wanted: The conditions.
        before: Only those with smaller ids; None for all.
        owner: Only jobs of this user, who is told of no others; None for all.
        limit: How many at most.

    Raises:
        MissingFileError: There is no spool.
        LocalIOError: It can't be read.
    """
    listing = jobs_list.list_jobs(jobs, jobs_list.JobQuery(is_running=wanted.is_running), before=before)
    total = listing.total if owner is None else None
    found: list[dict[str, Any]] = []
    chars = 0
    for count, entry in enumerate(listing.entries, start=1):
        fields = job_fields(jobs, entry)
        if owner in (None, fields.get("user")) and wanted.is_match(fields):
            found.append(fields)
            chars += sum(len(value) for value in fields.values() if isinstance(value, str))
        if len(found) >= min(limit, MAX_JOBS) or chars >= MAX_CHARS or count >= MAX_RECORDS:
            return SearchResult(total, found, int(entry.name))
    return SearchResult(total, found, None)


def job_fields(jobs: spool.Spool, entry: jobs_list.ListedJob) -> dict[str, Any]:
    """Return a job's fields as clients see them, and `changed`: when its record was written, in s since the epoch."""
    path = jobs.done_path(entry.name) if entry.is_archived else jobs.job_path(entry.name)
    try:
        changed: int | None = int(path.stat().st_mtime)
    except OSError:
        changed = None  # it was moved meanwhile
    if entry.job is None:
        damage = replies.without_directories(entry.damage or "")
        return {"name": entry.name, "state": DAMAGED, "damage": damage, "changed": changed}
    fields = dataclasses.asdict(replies.public_job(entry.job))
    return {name.rstrip("_"): value for name, value in fields.items() if name not in _HIDDEN} | {"changed": changed}
