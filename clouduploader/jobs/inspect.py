"""Inspect one job: record, files, processes, log and journal."""

import dataclasses
import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clouduploader.errors import JobFileError, LocalIOError
from clouduploader.jobs import log as jobs_log
from clouduploader.model.job import Job
from clouduploader.plugin import CloudObject
from clouduploader.store import journal, spool
from clouduploader.store.job_log import LogReading
from clouduploader.store.spool import leases
from clouduploader.store.spool.process_match import process_match
from clouduploader.util import processes
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client import JobServer


@frozen(kw_only=True)
class JobLogFile:
    """A job's log.

    Attributes:
        size_bytes: Of the file.
        changed: When something was written last; None if a server does not know.
        is_held: Whether a process that works on the job has it locked; None of a server's.
        last_lines: The end of it, undecodable bytes replaced.
        reading: What the upload told there of itself.
    """

    size_bytes: int
    changed: datetime.datetime | None
    is_held: bool | None
    last_lines: tuple[str, ...]
    reading: LogReading


@frozen(kw_only=True)
class JobInspection:
    """All that is known about a job. What is in the spool only is None for a job of a server.

    Attributes:
        name: Its id.
        job: What its file says; None if that is damaged.
        damage: What is wrong with its file, or None.
        is_archived: Whether it is over.
        created: When it was created.
        ended: When it was archived; in the spool only.
        paths: Those of its files that exist: job, image, data, log, result, directory; in the spool only.
        image_bytes: What the image file has now; None if there is none. In the spool only.
        ownership: How the pid of a running job stands to it; None without a pid. In the spool only.
        pids: The processes that work on it, as far as they can be seen; in the spool only.
        log: Its log; None if there is none.
        journal: What its upload wrote down for the time after a crash; None if there is nothing. In the spool only.
    """

    name: str
    job: Job | None
    damage: str | None
    is_archived: bool
    created: datetime.datetime | None
    ended: datetime.datetime | None
    paths: Mapping[str, Path] | None
    image_bytes: int | None
    ownership: processes.Ownership | None
    pids: tuple[int, ...] | None
    log: JobLogFile | None
    journal: journal.JournalContents | None

    @property
    def objects(self) -> list[CloudObject]:
        """What there is in the cloud, by log and journal: in all regions, the image first."""
        of_log = self.log.reading.objects if self.log else ()
        if self.journal is None:
            return list(of_log)
        state = self.journal.state
        of_journal = journal.results_of(state.end or {}) or list(state.objects)
        return list(dict.fromkeys([*of_journal, *of_log]))


def inspect_job(jobs: spool.Spool, name: str, *, lines: int, state_dir: Path) -> JobInspection:
    """Look at a job. Reads its whole log.

    Args:
        jobs: The spool.
        name: The job.
        state_dir: Where the journals are.
        lines: How many of the last lines of the log are wanted.

    Raises:
        NoSuchJobError: There is none.
        LocalIOError: Its log can't be read.
    """
    job, damage = None, None
    try:
        job, is_archived = jobs.read(name)
        job = leases.with_host(jobs, job)
    except (JobFileError, LocalIOError) as exc:
        damage, is_archived = exc.message, not jobs.job_path(name).exists()
    files = _files(jobs, name, is_archived=is_archived)
    log = _log(jobs, name, lines=lines)
    key = log.reading.journal_key if log else None
    found = (
        processes.job_processes(job.pid, process_match(jobs, job))
        if job and not is_archived
        else processes.JobProcesses(None, (), ())
    )
    return JobInspection(
        name=name,
        job=job,
        damage=damage,
        is_archived=is_archived,
        created=_created(job),
        ended=_time(files["job"][1].st_mtime) if is_archived and "job" in files else None,
        paths={key: path for key, (path, _) in files.items()},
        image_bytes=files["image"][1].st_size if "image" in files else None,
        ownership=found.ownership,
        pids=tuple(sorted(member.pid for member in (*found.workers, *found.descendants))),
        log=log,
        journal=_journal(state_dir, key, name) if key else None,
    )


def inspect_at_server(server: "JobServer", name: str, *, lines: int) -> JobInspection:
    """Ask a server for a job. Reads its whole log.

    Args:
        server: The server.
        name: The job.
        lines: How many of the last lines of the log are wanted.

    Raises:
        NoSuchJobError: There is none.
        ClouduploaderError: See `client.JobServer`.
    """
    job, damage = None, None
    try:
        job = server.read(name)
    except JobFileError as exc:
        damage = exc.message
    facts = server.log_facts(name)
    log = None
    if facts:
        with server.fetch_log(name, facts.size_bytes) as file:
            log = JobLogFile(
                size_bytes=facts.size_bytes,
                changed=facts.changed,
                is_held=None,
                last_lines=_last_lines(file, lines),
                reading=jobs_log.read_back(file),
            )
    return JobInspection(
        name=name,
        job=job,
        damage=damage,
        is_archived=job is not None and job.state.is_final,
        created=_created(job),
        ended=None,
        paths=None,
        image_bytes=None,
        ownership=None,
        pids=None,
        log=log,
        journal=None,
    )


def _journal(state_dir: Path, key: str, name: str) -> journal.JournalContents | None:
    """Return a job's journal, without what later jobs with the same upload wrote."""
    found = journal.read(state_dir, key)
    if found is None:
        return None
    begins = [(at, entry.get("job")) for at, entry in enumerate(found.entries) if entry["what"] == "begin"]
    own = max((number for number, (_, job) in enumerate(begins) if job == name), default=None)
    if own is None:
        return None
    if own + 1 == len(begins):
        return found
    entries = found.entries[: begins[own + 1][0]]
    return dataclasses.replace(found, is_live=False, entries=entries, state=journal.state_of(entries))


def _files(jobs: spool.Spool, name: str, *, is_archived: bool) -> dict[str, tuple[Path, os.stat_result]]:
    paths = {
        "job": jobs.done_path(name) if is_archived else jobs.job_path(name),
        "image": jobs.file_path(name),
        "data": jobs.data_path(name),
        "log": jobs.done_log_path(name) if is_archived else jobs.log_path(name),
        "result": jobs.result_path(name),
        "directory": jobs.work_dir(name),
    }
    found = {}
    for key, path in paths.items():
        try:
            found[key] = path, path.stat()
        except OSError:
            continue  # not there, or not for us to see
    return found


def _created(job: Job | None) -> datetime.datetime | None:
    try:
        return _time(job.created) if job and job.created is not None else None
    except (ValueError, OverflowError, OSError):
        return None  # a number that is no time


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _log(jobs: spool.Spool, name: str, *, lines: int) -> JobLogFile | None:
    log = jobs_log.open_log(jobs, name)
    if log is None:
        return None
    with log:
        status = os.fstat(log.fileno())
        return JobLogFile(
            size_bytes=status.st_size,
            changed=_time(status.st_mtime),
            is_held=any(processes.is_locked(path) for path in (jobs.log_path(name), jobs.done_log_path(name))),
            last_lines=_last_lines(log, lines),
            reading=jobs_log.read_back(log),
        )


def _last_lines(log: BinaryIO, lines: int) -> tuple[str, ...]:
    log.seek(jobs_log.last_lines_offset(log, lines))
    text = log.read().decode(errors="replace").removesuffix("\n")
    return tuple(text.split("\n")) if text else ()
