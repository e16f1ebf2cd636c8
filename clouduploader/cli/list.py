"""`clouduploader list`."""

import itertools
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output, table
from clouduploader.cli.job_view import DAMAGED, FIELDS, job_fields
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.cli.text import age
from clouduploader.errors import ExitCode
from clouduploader.model.job import JobState

if TYPE_CHECKING:
    from clouduploader.jobs.list import ListedJob

TERMINAL_LIMIT = 50  # jobs that `list` shows without --limit: about a screen

STATES = [state.value for state in JobState]

TERMINAL_COLUMNS = (
    table.Column("job"),
    table.Column("state", rank=1),
    table.Column("age", rank=4),
    table.Column("user", least=8, rank=3),
    table.Column("target", rank=5),
    table.Column("project", least=12, rank=6),
    table.Column("filename", least=16, rank=2),
    table.Column("details", least=22),
)
HOST_COLUMN = table.Column("host", rank=2)


@click.command("list")
@click.option("--user", "users", multiple=True, help="Only jobs of this user. May be repeated, as all filters.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--target", "targets", multiple=True, shell_complete=completion.target, help="Only jobs for this target.")
@click.option("--project", "projects", multiple=True, help="Only jobs of this project.")
@click.option("--running", is_flag=True, help="Only jobs that are not over.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Show the newest N; 0 for all.  [{TERMINAL_LIMIT} on a terminal, else all]",
)
@server_option
@json_option
@pass_session
def list_command(
    session: Session,
    /,
    *,
    users: tuple[str, ...],
    states: tuple[str, ...],
    targets: tuple[str, ...],
    projects: tuple[str, ...],
    running: bool,
    limit: int | None,
) -> int:
    """List the jobs, running and done, newest first.

    On a terminal the columns are made to fit, and with --verbose there is one for the host that has the job, where
    several upload for a server; otherwise all fields are printed, with tabs between them.

    With --json the data are {"total": N, "jobs": [...]}: each job's fields by OBS's names, its id as job,
    and archived and damage. The total is before all filters but --running; null from a
    server that knows a user by a token. OBS's server does not list jobs whose record it can't read.
    """
    from clouduploader.jobs import list as jobs_list

    is_terminal = sys.stdout.isatty()
    if limit is None and is_terminal and not session.is_json:
        limit = TERMINAL_LIMIT
    query = jobs_list.JobQuery(users=users, states=states, targets=targets, projects=projects, is_running=running)
    server = session.server
    listing = jobs_list.list_at_server(server, query) if server else jobs_list.list_jobs(session.open_spool(), query)
    entries = itertools.islice(listing.entries, limit or None)
    if session.is_json:
        documents = (_document(entry) for entry in entries)
        output.print_json_stream(session, {"total": listing.total}, key="jobs", items=documents)
        return ExitCode.OK
    columns = tuple(map(table.Column, ("job", *FIELDS)))
    if is_terminal:
        columns = (*TERMINAL_COLUMNS, *([HOST_COLUMN] if session.is_verbose else []))
    table.print_table(columns, (_row(entry, columns) for entry in entries))
    if is_terminal and not session.is_quiet and next(listing.entries, None):
        which = "that match" if query.is_selective or listing.total is None else f"of {listing.total} jobs"
        click.echo(f"These are the newest {limit} {which}; --limit 0 shows all.", err=True)
    return ExitCode.OK


def _row(entry: "ListedJob", columns: Sequence[table.Column]) -> list[object]:
    fields = job_fields(entry.job) if entry.job else {"state": DAMAGED, "details": entry.damage}
    if entry.job and entry.job.created is not None:
        fields["age"] = age(time.time() - entry.job.created)
    return [entry.name, *(fields.get(column.title) for column in columns[1:])]


def _document(entry: "ListedJob") -> dict[str, Any]:
    fields = job_fields(entry.job) if entry.job else dict.fromkeys(FIELDS)
    return {"job": entry.name, **fields, "archived": entry.is_archived, "damage": entry.damage}
