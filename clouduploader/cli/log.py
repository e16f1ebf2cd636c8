"""`clouduploader log`."""

import sys

import click

from clouduploader.cli import completion, following, output
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.errors import UsageError


@click.command("log")
@click.argument("job", shell_complete=completion.job)
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the job ends.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.  [all]")
@server_option
@json_option
@pass_session
def log_command(session: Session, /, *, job: str, follow: bool, lines: int | None) -> int:
    """Show the log of JOB.

    The exit code is 0 for a job that succeeded or still runs, and 76 for one that failed. The log of a
    killed job is followed until its uploader has cleaned up; at OBS's server until it is killed. A connection to a
    server that breaks is made again.

    With --json, not to be followed, the data are job, state, details and log.
    """
    if session.is_json and follow:
        raise UsageError("--json and --follow do not go together")
    read = following.reader(session, job, lines=lines)
    if session.is_json:
        pieces: list[bytes] = []
        end = read(write=pieces.append)
        text = b"".join(pieces).decode(errors="replace")
        data = {"job": job, "state": end.job.state, "details": end.job.details, "log": text}
        output.print_json(session, data, exit_code=following.outcome_code(end.job))
        return following.outcome_code(end.job)
    write = output.log_writer(sys.stdout)
    end = read(write=write, is_following=follow)
    if follow:
        following.tell_outcome(session, end.job)
    return following.outcome_code(end.job)
