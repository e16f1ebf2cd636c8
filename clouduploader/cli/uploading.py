"""Run an upload in the foreground, and print its result; for `upload`, `resume` and `retry`."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from clouduploader.cli import output
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean
from clouduploader.errors import ExitCode
from clouduploader.jobs.run_job import UploadOutcome
from clouduploader.model.job import Job
from clouduploader.store import job_log
from clouduploader.store.config import Config
from clouduploader.util.cancel import Cancel

Result = TypeVar("Result")


def run_watched(
    session: Session, run: Callable[..., Result], subject: object, *, config: Config, cancel: Cancel
) -> Result:
    """Run an upload in a process group of our own, with its progress on the terminal.

    Args:
        session: How much is shown.
        run: Of `upload_image`, `resume_job` or `retry_job`.
        subject: Its first argument.
        config: See Config.
        cancel: Where it is asked to end.
    """
    lead_group()
    with contextlib.ExitStack() as views:
        return run(
            subject,
            config=config,
            cancel=cancel,
            sinks=sinks(session),
            is_verbose=session.is_verbose,
            watch=lambda job, log: watch(session, job, log, views),
        )


def sinks(session: Session) -> list[job_log.Sink]:
    """Return the streams that show the log line by line: stderr if verbose."""
    return [open(2, "wb", buffering=0, closefd=False)] if session.is_verbose else []


def watch(session: Session, job: Job, log: job_log.JobLog, views: contextlib.ExitStack) -> None:
    """Print which job it is, and show the progress on a terminal."""
    if session.is_quiet:
        return
    click.echo(f"job {job.name}: uploading {clean(job.filename or '')}", err=True)
    if sys.stderr.isatty() and not session.is_verbose:
        from clouduploader.cli import progress

        log.listen(views.enter_context(progress.ProgressView()))


def print_outcome(session: Session, outcome: UploadOutcome) -> int:
    """Print the result, and what failed besides; that even if --quiet, for it is why the exit code is not 0.

    Returns:
        The exit code.
    """
    result = outcome.result
    if outcome.warning:
        click.echo(f"clouduploader: warning: {clean(outcome.warning)}", err=True)
    exit_code = ExitCode.TEMPORARY if result.shortfalls else ExitCode.OK
    for shortfall in result.shortfalls:
        click.echo(f"clouduploader: warning: {clean(f'{shortfall.subject}: {shortfall.reason}')}", err=True)
    if result.is_already_there and not session.is_quiet:
        click.echo(f"{clean(result.id)} is already there: an earlier upload made it", err=True)
    if session.is_json:
        data = {
            "job": outcome.job.name,
            "result": result.id,
            "already_there": result.is_already_there,
            "images": output.images(result.objects),
            "objects": [vars(thing) for thing in result.objects],
            "shortfalls": [vars(shortfall) for shortfall in result.shortfalls],
        }
        output.print_json(session, data, exit_code=exit_code)
    else:
        click.echo(result.id)
    return exit_code


def lead_group() -> None:
    """Become the leader of our process group: the pid in a job's file is a group, for `kill`.

    A shell with job control has done so; in a script, the terminal must learn which group Ctrl-C is for.
    """
    if os.getpgrp() == os.getpid():
        return
    try:
        is_in_front = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # ENOTTY: no terminal, or not the one that controls us
        is_in_front = False
    os.setpgid(0, 0)
    if is_in_front:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what a background process gets for tcsetpgrp
        os.tcsetpgrp(0, os.getpgrp())
