"""List the jobs of a spool, or of a server, newest first."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from clouduploader.errors import JobFileError, LocalIOError, NoSuchJobError
from clouduploader.model.job import Job
from clouduploader.store import spool
from clouduploader.store.spool import leases
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client import JobServer


@frozen(kw_only=True)
class JobQuery:
    """Which jobs are wanted. Of each kind of filter one value must match; an empty one lets all through.

    Attributes:
        users: Of these users.
        states: In these states.
        targets: For these targets.
        projects: From these projects.
        is_running: Only those that are not archived.
    """

    users: Collection[str] = ()
    states: Collection[str] = ()
    targets: Collection[str] = ()
    projects: Collection[str] = ()
    is_running: bool = False

    @property
    def is_selective(self) -> bool:
        """Whether a job must be read to know if it is wanted."""
        return bool(self.users or self.states or self.targets or self.projects)

    def is_match(self, job: Job) -> bool:
        """Tell whether a job is wanted."""
        return (
            (not self.users or job.user in self.users)
            and (not self.states or job.state in self.states)
            and (not self.targets or job.target in self.targets)
            and (not self.projects or job.project in self.projects)
        )


@frozen()
class ListedJob:
    """A job of the list.

    Attributes:
        name: Its id.
        job: What its file says; None if that is damaged.
        is_archived: Whether it is over.
        damage: What is wrong with its file, or None.
    """

    name: str
    job: Job | None
    is_archived: bool
    damage: str | None = None


@frozen()
class JobList:
    """The jobs that were asked for.

    Attributes:
        total: How many there are, before any filter but `is_running`; None if a server does not tell.
        entries: One by one, newest first; read from disk or made as they are taken, and only once.
    """

    total: int | None
    entries: Iterator[ListedJob]


def list_jobs(jobs: spool.Spool, query: JobQuery, *, before: int | None = None) -> JobList:
    """List jobs. A damaged one is in every list but one that asks for what it can't tell.

    Args:
        jobs: The spool.
        query: Which.
        before: Only those with smaller ids; they count in the total all the same. None for all.

    Raises:
        MissingFileError: There is no spool.
        LocalIOError: It can't be read.
    """
    running = set(jobs.running_names())  # first: a job that is archived meanwhile is then in both
    archived = () if query.is_running else jobs.archived_names()
    names = sorted(running.union(archived), key=int, reverse=True)
    wanted = names if before is None else (name for name in names if int(name) < before)
    entries = (_entry(jobs, name, is_archived=name not in running) for name in wanted)
    return JobList(len(names), (entry for entry in entries if entry and _is_wanted(entry, query)))


def list_at_server(server: "JobServer", query: JobQuery) -> JobList:
    """List the jobs of a server. By OBS's routes those are left out whose record it can't read.

    Raises:
        ClouduploaderError: See `client.JobServer`.
    """
    from clouduploader.client.api import ApiServer

    if isinstance(server, ApiServer):
        filters = {"users": query.users, "states": query.states, "targets": query.targets, "projects": query.projects}
        total, jobs = server.find(**filters, is_running=query.is_running)
        return JobList(total, (_entry_of(name, job) for name, job in jobs))
    found = server.read_all()
    entries = [_entry_of(name, found[name]) for name in sorted(found, key=int, reverse=True)]
    if query.is_running:
        entries = [entry for entry in entries if not entry.is_archived]
    return JobList(len(entries), (entry for entry in entries if _is_wanted(entry, query)))


def _entry_of(name: str, job: Job | JobFileError) -> ListedJob:
    if isinstance(job, Job):
        return ListedJob(name, job, job.state.is_final)
    return ListedJob(name, None, is_archived=False, damage=job.message)


def _is_wanted(entry: ListedJob, query: JobQuery) -> bool:
    if query.is_running and entry.is_archived:
        return False  # archived since we looked
    return query.is_match(entry.job) if entry.job else not query.is_selective


def _entry(jobs: spool.Spool, name: str, *, is_archived: bool) -> ListedJob | None:
    try:
        if is_archived:
            return ListedJob(name, jobs.read_archived(name), is_archived)
        job, is_archived = jobs.read(name)
        return ListedJob(name, leases.with_host(jobs, job), is_archived)
    except NoSuchJobError:
        return None  # removed since we looked
    except (JobFileError, LocalIOError) as exc:
        return ListedJob(name, None, is_archived, exc.message)
