"""What `log` and `submit --wait` have in common: a log is followed, and the job's outcome is the exit code."""

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
    """Reads a log to its end; see `follow_log`."""

    def __call__(
        self,
        *,
        write: Callable[[bytes], None],
        is_following: bool = False,
        while_waiting: Callable[[], None] = log.wait_quietly,
    ) -> log.LogPosition:
        """Hand out the log."""


def reader(session: Session, name: str, *, lines: int | None) -> Read:
    """What reads a job's log, in the spool or at a server."""
    server = session.server
    if server:
        return functools.partial(log.follow_at_server, server, name, lines=lines)
    return functools.partial(log.follow_log, session.open_spool(), name, lines=lines)


def tell_outcome(session: Session, job: Job) -> None:
    """Say on stderr how a job ended, unless --quiet."""
    if not session.is_quiet:
        details = f": {clean(job.details)}" if job.details else ""
        click.echo(f"job {job.name} {job.state}{details}", err=True)


def outcome_code(job: Job) -> ExitCode:
    """The exit code for a job: that of a final no for one that failed."""
    return ExitCode.PROTOCOL if job.state is JobState.FAILED else ExitCode.OK
