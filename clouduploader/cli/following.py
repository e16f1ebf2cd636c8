"""Follow a job's log, and turn its outcome into an exit code; for `log` and `submit --wait`."""

import functools
from collections.abc import Callable
from typing import Protocol

import click

from clouduploader.cli.session import Session
from clouduploader.cli.text import clean
from clouduploader.errors import ExitCode
from clouduploader.jobs import log
from clouduploader.model.job import Job, JobState


class Read(Protocol):
    """A function that reads a log to its end; see `follow_log`."""

    def __call__(
        self,
        *,
        write: Callable[[bytes], None],
        is_following: bool = False,
        while_waiting: Callable[[], None] = log.wait_quietly,
    ) -> log.LogPosition:
        """Write the log."""


def reader(session: Session, name: str, *, lines: int | None) -> Read:
    """Return the function that reads a job's log, in the spool or at a server."""
    server = session.server
    if server:
        return functools.partial(log.follow_at_server, server, name, lines=lines)
    return functools.partial(log.follow_log, session.open_spool(), name, lines=lines)


def tell_outcome(session: Session, job: Job) -> None:
    """Print on stderr how a job ended, unless --quiet."""
    if not session.is_quiet:
        details = f": {clean(job.details)}" if job.details else ""
        click.echo(f"job {job.name} {job.state}{details}", err=True)


def outcome_code(job: Job) -> ExitCode:
    """Return the exit code for a job: PROTOCOL for one that failed, else OK."""
    return ExitCode.PROTOCOL if job.state is JobState.FAILED else ExitCode.OK
