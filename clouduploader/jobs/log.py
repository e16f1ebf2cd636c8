"""Read a job's log, and follow it while it grows."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from clouduploader.errors import LocalIOError, MissingFileError, TransientError
from clouduploader.model.job import Details, Job, JobState
from clouduploader.store import job_log, spool
from clouduploader.store.job_log import LogReading
from clouduploader.util import files, privileges, processes
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client import JobServer

POLL_SECONDS = 0.3  # soon enough for a person, and no load
SERVER_POLL_SECONDS = 1.0  # OBS's server looks as often itself whether a log has grown
PATIENCE_SECONDS = 120.0  # for a server that is restarted, with its machine
BLOCK_BYTES = 65_536


@frozen()
class LogPosition:
    """Where the log was left.

    Attributes:
        job: As it was then.
        is_archived: Whether the job is over.
    """

    job: Job
    is_archived: bool


def wait_quietly() -> None:
    """Do nothing while a job waits."""


def follow_log(
    jobs: spool.Spool,
    name: str,
    *,
    write: Callable[[bytes], None],
    is_following: bool = False,
    lines: int | None = None,
    while_waiting: Callable[[], None] = wait_quietly,
) -> LogPosition:
    """Hand out a job's log as it lies there; when following, until the job ends.

    The log of a killed job is followed until no process has it open for writing any more: the uploader
    cleans up, and says so there.

    Args:
        jobs: The spool.
        name: The job.
        write: Takes the next bytes.
        is_following: Whether to wait for more, and for a log that is not there yet; a job may also end
            without one.
        lines: Begin with the last so many lines; None for all.
        while_waiting: Called at each poll while the job waits to be started.

    Raises:
        NoSuchJobError: There is no such job.
        JobFileError: Its file is damaged.
        MissingFileError: It has no log, and is not followed.
        LocalIOError: The log can't be read.
    """
    job, is_archived = jobs.read(name)
    log = open_log(jobs, name)
    while log is None and is_following and not is_archived:
        if job.state is JobState.SCHEDULED:
            while_waiting()
        time.sleep(POLL_SECONDS)
        job, is_archived = jobs.read(name)
        log = open_log(jobs, name)
    if log is None and is_following:
        return LogPosition(job, is_archived)
    if log is None:
        raise _no_log(name, is_over=is_archived)
    with contextlib.ExitStack() as stack:
        stack.enter_context(log)
        if lines is not None:
            log.seek(last_lines_offset(log, lines))
        while True:
            # First the state, then the log: what was written before the end is not missed.
            job, is_archived = jobs.read(name)
            if job.state is JobState.SCHEDULED:
                while_waiting()
            is_over = is_archived or job.state.is_final
            is_cleaning_up = is_over and job.details == Details.KILLED and processes.is_locked(jobs.done_log_path(name))
            for block in _blocks(log):
                write(block)
            successor = _successor(jobs, name, log)
            if successor:
                log = stack.enter_context(successor)
            elif not is_following or (is_over and not is_cleaning_up):
                return LogPosition(job, is_archived)
            else:
                time.sleep(POLL_SECONDS)


def follow_at_server(
    server: "JobServer",
    name: str,
    *,
    write: Callable[[bytes], None],
    is_following: bool = False,
    lines: int | None = None,
    while_waiting: Callable[[], None] = wait_quietly,
) -> LogPosition:
    """Hand out the log of a server's job; when following, until the job ends.

    When following, a connection that breaks does no harm: the server is asked again for what comes behind the
    bytes that are here. What a killed uploader writes after its job's end comes only from our own server,
    and if it was asked before that end: no other server tells how long it goes on.

    Args:
        server: The server.
        name: The job.
        write: Takes the next bytes.
        is_following: See `follow_log`.
        lines: See `follow_log`.
        while_waiting: See `follow_log`.

    Raises:
        NoSuchJobError: There is no such job.
        MissingFileError: It has no log, and is not followed.
        TransientError: The server could not be asked for PATIENCE_SECONDS; or once, at first or if it is not followed.
        ClouduploaderError: See `client.JobServer`.
    """
    job = server.read(name)
    facts = server.log_facts(name)
    if facts is None and not is_following:
        raise _no_log(name, is_over=job.state.is_final)
    position = 0
    if facts and lines is not None:
        with server.fetch_log(name, facts.size_bytes) as log:
            position = last_lines_offset(log, lines)
    if facts and not is_following:
        for block in server.log(name, start=position, end=facts.size_bytes):
            write(block)
        return LogPosition(job, job.state.is_final)
    heard = time.monotonic()
    while True:
        try:
            # First the state, then the log: what was written before the end is not missed.
            job = server.read(name)
            if not job.state.is_final:
                heard = time.monotonic()  # a server that has no log yet has it later, until the job ends
            if job.state is JobState.SCHEDULED:
                while_waiting()
            facts = server.log_facts(name)
            if facts and facts.size_bytes < position:
                position = 0  # another log took its place
            if facts and not (job.state.is_final and facts.size_bytes == position):
                for block in server.log(name, start=position):
                    position += len(block)
                    write(block)
                    heard = time.monotonic()
            if job.state.is_final:
                return LogPosition(job, is_archived=True)
        except TransientError:
            if time.monotonic() >= heard + PATIENCE_SECONDS:
                raise
        time.sleep(SERVER_POLL_SECONDS)


def open_log(jobs: spool.Spool, name: str) -> BinaryIO | None:
    """Open a job's log, wherever it is; None if there is none. The caller closes it.

    Raises:
        LocalIOError: It can't be read.
    """
    # Twice, for it may be moved to the archive after we looked for it in the spool.
    for path in (jobs.log_path(name), jobs.done_log_path(name)):
        try:
            with privileges.as_owner(jobs.directory):
                return files.open_read(path)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    return None


def last_lines_offset(log: BinaryIO, lines: int) -> int:
    """Return where the last so many lines of a log begin; a last line without an end counts as one."""
    end = position = log.seek(0, os.SEEK_END)
    left = lines
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        log.seek(start)
        block = log.read(position - start)
        found = len(block) - 1 if position == end else len(block)  # the end of the last line begins none
        while left and (found := block.rfind(b"\n", 0, found)) >= 0:
            left -= 1
        if not left:
            return start + found + 1
        position = start
    return 0


def read_back(log: BinaryIO) -> LogReading:
    """Read in a whole log what the upload told of itself; undecodable bytes are replaced."""
    log.seek(0)
    with os.fdopen(log.fileno(), encoding="utf-8", errors="replace", newline="\n", closefd=False) as lines:
        return job_log.read(lines)


def _no_log(name: str, *, is_over: bool) -> MissingFileError:
    return MissingFileError(f"the job {name} has no log{'' if is_over else ' yet'}")


def _blocks(log: BinaryIO) -> Iterator[bytes]:
    while block := _read(log):
        yield block


def _read(log: BinaryIO) -> bytes:
    try:
        return log.read(BLOCK_BYTES)
    except OSError as exc:
        raise LocalIOError(f"the log can't be read: {exc.strerror}") from exc


def _successor(jobs: spool.Spool, name: str, log: BinaryIO) -> BinaryIO | None:
    """Return the log that took this one's place; None if this is still the job's, wherever it was moved."""
    current = open_log(jobs, name)
    if current is None or os.path.sameopenfile(current.fileno(), log.fileno()):
        if current:
            current.close()
        return None
    return current
