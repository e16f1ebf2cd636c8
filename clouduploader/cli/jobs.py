"""`clouduploader list`, `inspect`, `log` and `kill`."""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output, table
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.cli.text import age, clean
from clouduploader.errors import ClouduploaderError, ExitCode, UsageError
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool

if TYPE_CHECKING:  # each command loads its own: `list` is not to wait for what `kill` needs
    from clouduploader.jobs.inspect import JobInspection
    from clouduploader.jobs.kill import KillResult
    from clouduploader.jobs.list import ListedJob
    from clouduploader.plugin import CloudObject
    from clouduploader.store import journal

TERMINAL_LIMIT = 50  # jobs that `list` shows to a person who did not say how many: about a screen
INSPECT_LINES = 10  # as tail(1)
KILL_TIMEOUT_SECONDS = 300.0  # ec2uploadimg reacts to SIGTERM after the step it is at, which takes minutes
STATES = [state.value for state in JobState]
DAMAGED = "damaged"

FIELDS = (
    "state", "created", "user", "target", "project", "repository", "package", "arch", "filename", "size",
    "progress", "try", "pid", "details",
)  # fmt: skip
"""What is shown of a job, in this order; XML's names, `state` being `damaged` for a damaged one."""

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

    On a terminal the columns are made to fit; otherwise all fields are printed, with tabs between them.

    With --json the data are {"total": N, "jobs": [...]}: each job's fields by OBS's names, its id as job,
    and archived and damage. The total is before all filters but --running. A server does not list
    jobs whose record it can't read.
    """
    from clouduploader.jobs import list as jobs_list

    is_terminal = sys.stdout.isatty()
    if limit is None and is_terminal and not session.is_json:
        limit = TERMINAL_LIMIT
    query = jobs_list.JobQuery(users=users, states=states, targets=targets, projects=projects, is_running=running)
    server = session.server
    listing = jobs_list.list_at_server(server, query) if server else jobs_list.list_jobs(_spool(session), query)
    entries = itertools.islice(listing.entries, limit or None)
    if session.is_json:
        documents = (_document(entry) for entry in entries)
        output.print_json_stream(session, {"total": listing.total}, key="jobs", items=documents)
        return ExitCode.OK
    columns = TERMINAL_COLUMNS if is_terminal else tuple(map(table.Column, ("job", *FIELDS)))
    table.print_table(columns, (_row(entry, columns) for entry in entries))
    if is_terminal and not session.is_quiet and next(listing.entries, None):
        which = "that match" if query.is_selective else f"of {listing.total} jobs"
        click.echo(f"These are the newest {limit} {which}; --limit 0 shows all.", err=True)
    return ExitCode.OK


@click.command("inspect")
@click.argument("job", shell_complete=completion.job)
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), metavar="N", default=INSPECT_LINES, show_default=True,
    help="Show the last N lines of the log.",
)  # fmt: skip
@server_option
@json_option
@pass_session
def inspect_command(session: Session, /, *, job: str, lines: int) -> int:
    """Show everything about JOB.

    Its fields and files, who works on it, its objects in the cloud, what its journal tells, and the end of its log.

    With --json the data are those of `list`, and ended, image_bytes, paths, process (working, foreign, gone,
    unknown or null), pids, phase, objects, log and journal (null, or key, state, outcome, objects, asked and
    shortfalls).

    A server does not tell of files and processes: with --server they are left out, and in JSON ended, image_bytes,
    paths, process, pids, journal and the log's held are null.
    """
    found = _inspect(session, job, lines=lines)
    if session.is_json:
        output.print_json(session, _inspection(found))
        return ExitCode.OK
    output.print_fields(_inspection_fields(found))
    if found.log and found.log.last_lines:
        click.echo("\n" + "\n".join(map(clean, found.log.last_lines)))
    return ExitCode.OK


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
    from clouduploader.cli import following

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


@click.command("kill")
@click.argument("names", metavar="JOB...", nargs=-1, required=True, shell_complete=completion.running_job)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until the uploader has cleaned up and ended.")
@click.option(
    "--force", is_flag=True,
    help="Wait, then end with SIGKILL what has not ended, and remove ourselves what is left in the cloud.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=KILL_TIMEOUT_SECONDS, show_default=True, metavar="SECONDS",
    help="How long --wait and --force wait.",
)  # fmt: skip
@server_option
@json_option
@pass_session
def kill_command(
    session: Session, /, *, names: tuple[str, ...], yes: bool, wait: bool, force: bool, timeout: float
) -> int:
    """Kill each JOB, and let its uploader clean up.

    The uploader gets a SIGTERM, and the job is failed, "killed". Without --yes the jobs are shown, with user, image
    and what they have in the cloud, and it asks. A job that is over already is left as it is. No process is stopped
    that does not work on the job.
    The exit code is the highest of all jobs: 0; 75 if something still ran when the time was over; 76 if
    something is left in the cloud.

    With --json the data are {"jobs": [...]}, each with job, state, exit_code, finished_before, process,
    forced, remaining_pids, removed, left and error. A server does not tell of processes: with --server there
    is no --wait and no --force, and process and remaining_pids are null.
    """
    from clouduploader.jobs import kill

    server = session.server
    if server and (wait or force):
        raise UsageError(
            "--wait and --force need the spool: a server does not tell of a job's processes",
            hint="`clouduploader log JOB` shows what a killed uploader says.",
        )
    if not yes:
        _ask_before_kill(session, names)
    manner = kill.KillOptions(is_waiting=wait or force, is_forced=force, timeout_seconds=timeout)
    sinks = [] if session.is_quiet else [os.fdopen(2, "wb", buffering=0, closefd=False)]
    outcomes = (
        kill.kill_at_server(server, names)
        if server
        else kill.kill_jobs(_spool(session), names, manner=manner, config=session.config, sinks=sinks)
    )
    codes = []
    documents = []
    for killed in outcomes:
        code = _kill_code(killed, is_waiting=manner.is_waiting)
        codes.append(code)
        documents.append(_kill_document(killed, code))
        if not session.is_json:
            _print_killed(killed, is_waiting=manner.is_waiting)
    if session.is_json:
        output.print_json(session, {"jobs": documents}, exit_code=max(codes))
    return max(codes)


def _ask_before_kill(session: Session, names: Sequence[str]) -> None:
    """Show the jobs that would be killed, with what they have in the cloud, and ask; with none of them ask nothing."""
    living, lines = [], []
    for name in dict.fromkeys(names):
        try:
            found = _inspect(session, name, lines=0)
        except ClouduploaderError:
            continue  # what can't be killed is told when it is tried
        if found.job and not found.job.state.is_final:
            living.append(name)
            facts = [("user", found.job.user), ("image", found.job.filename), ("target", found.job.target)]
            told = [found.job.state, *(f"{key} {value}" for key, value in facts if value)]
            lines.append(f"job {name}: {', '.join(told)}")
            lines += [f"  with {_thing_text(thing)}" for thing in found.objects]
    if living:
        question = f"Kill the job{'s' * (len(living) > 1)} {', '.join(living)}?"
        output.confirm(session, question, is_agreed=False, shown=lines)


def _inspect(session: Session, name: str, *, lines: int) -> "JobInspection":
    from clouduploader.jobs import inspect

    server = session.server
    if server:
        return inspect.inspect_at_server(server, name, lines=lines)
    return inspect.inspect_job(_spool(session), name, lines=lines, state_dir=session.config.state.value)


def _spool(session: Session) -> spool.Spool:
    return spool.Spool(session.config.spool.value)


def _row(entry: "ListedJob", columns: Sequence[table.Column]) -> list[object]:
    fields = _fields(entry.job) if entry.job else {"state": DAMAGED, "details": entry.damage}
    if entry.job and entry.job.created is not None:
        fields["age"] = age(time.time() - entry.job.created)
    return [entry.name, *(fields.get(column.title) for column in columns[1:])]


def _document(entry: "ListedJob") -> dict[str, Any]:
    fields = _fields(entry.job) if entry.job else dict.fromkeys(FIELDS)
    return {"job": entry.name, **fields, "archived": entry.is_archived, "damage": entry.damage}


def _fields(job: Job) -> dict[str, Any]:
    values = vars(job)
    return {
        **{field: values["try_" if field == "try" else field] for field in FIELDS},
        "created": None if job.created is None else _utc(job.created),
    }


def _utc(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"  # a number that is no time


def _inspection_fields(found: "JobInspection") -> list[tuple[str, object]]:
    job, log = found.job, found.log
    pairs: list[tuple[str, object]] = [("job", found.name)]
    if job:
        pairs += [(key, value) for key, value in _fields(job).items() if value is not None]
    else:
        pairs += [("state", DAMAGED), ("details", found.damage)]
    if found.ended:
        pairs.append(("ended", _utc(found.ended.timestamp())))
    if found.image_bytes is not None:
        pairs.append(("image bytes", found.image_bytes))
    if not found.is_archived and found.pids is not None:
        pairs.append(("process", _process_text(found)))
    pairs += [(f"{key} path", path) for key, path in (found.paths or {}).items()]
    if log:
        pairs.append(("log bytes", log.size_bytes))
        pairs += [("log changed", _utc(log.changed.timestamp()))] if log.changed else []
        pairs += [("phase", log.reading.phase)] if log.reading.phase else []
        pairs += [("object", _thing_text(thing)) for thing in found.objects]
    if found.journal:
        pairs += [("journal", f"{found.journal.key} ({_journal_state(found)})")]
        for item in _shortfalls(found.journal.state):
            pairs.append(("shortfall", f"{item.get('subject')}: {item.get('reason')}"))
    return pairs


def _journal_state(found: "JobInspection") -> str:
    """Where the upload stands: live, resumable (dead, with something to go on with), or ended."""
    if found.journal is None or found.journal.is_live:
        return "live"
    return "resumable" if found.journal.state.is_open else "ended"


def _shortfalls(state: "journal.JournalState") -> list[dict[str, Any]]:
    items = (state.end or {}).get("shortfalls")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _journal(found: "JobInspection") -> dict[str, Any] | None:
    if found.journal is None:
        return None
    state = found.journal.state
    return {
        "key": found.journal.key,
        "state": _journal_state(found),
        "outcome": state.end and state.end.get("outcome"),
        "objects": [_thing(thing) for thing in found.objects],
        "asked": [{"kind": entry.get("kind"), "region": entry.get("region")} for entry in state.asked],
        "shortfalls": _shortfalls(state),
    }


def _process_text(found: "JobInspection") -> str:
    pid = found.job.pid if found.job else None
    pids = ", ".join(map(str, found.pids or ()))
    texts = {
        "working": f"works on the job ({pids})",
        "foreign": f"{pid} is no process of this job",
        "gone": f"{pid} is gone",
        "unknown": f"{pid} is there, but only root or its owner can see what it does",
    }
    text = texts[found.standing] if found.standing else "none"
    if found.pids and found.standing != "working":
        text += f"; but these have its log open: {pids}"
    elif not found.pids and found.log and found.log.is_held:
        text += "; but somebody has its log locked"
    return text


def _inspection(found: "JobInspection") -> dict[str, Any]:
    log = found.log
    reading = log.reading if log else None
    return {
        "job": found.name,
        **(_fields(found.job) if found.job else dict.fromkeys(FIELDS)),
        "archived": found.is_archived,
        "damage": found.damage,
        "ended": _utc(found.ended.timestamp()) if found.ended else None,
        "image_bytes": found.image_bytes,
        "paths": None if found.paths is None else {key: str(path) for key, path in found.paths.items()},
        "process": found.standing,
        "pids": None if found.pids is None else list(found.pids),
        "phase": reading.phase if reading else None,
        "objects": [_thing(thing) for thing in reading.objects] if reading else None,
        "log": log
        and {
            "size_bytes": log.size_bytes,
            "changed": log.changed and _utc(log.changed.timestamp()),
            "held": log.is_held,
            "last_lines": list(log.last_lines),
        },
        "journal": _journal(found),
    }


def _thing(thing: "CloudObject") -> dict[str, str]:
    return {"kind": thing.kind, "id": thing.id, "region": thing.region}


def _thing_text(thing: "CloudObject") -> str:
    return f"{thing.kind} {thing.id}" + (f" in {thing.region}" if thing.region else "")


def _kill_code(killed: "KillResult", *, is_waiting: bool) -> int:
    codes: list[int] = [ExitCode.OK]
    if killed.error:
        codes.append(killed.error.exit_code)
    if killed.clean_up and killed.clean_up.left:
        codes.append(ExitCode.PROTOCOL)
    if is_waiting and killed.remaining_pids:
        codes.append(ExitCode.TEMPORARY)
    return max(codes)


def _kill_document(killed: "KillResult", code: int) -> dict[str, Any]:
    report, error = killed.clean_up, killed.error
    return {
        "job": killed.name,
        "state": killed.state,
        "exit_code": code,
        "finished_before": killed.is_finished_before,
        "process": killed.standing,
        "forced": killed.was_forced,
        "remaining_pids": None if killed.remaining_pids is None else list(killed.remaining_pids),
        "removed": report and [_thing(thing) for thing in report.removed],
        "left": report and [{**_thing(leftover.object), "reason": leftover.reason} for leftover in report.left],
        "error": error and {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
    }


def _print_killed(killed: "KillResult", *, is_waiting: bool) -> None:
    for text in _killed_texts(killed, is_waiting=is_waiting):
        click.echo(f"job {killed.name}: {clean(text)}")
    if killed.error:
        text = clean(f"job {killed.name}: {killed.error.sentence()}")
        click.echo(f"clouduploader: {text}", err=True)


def _killed_texts(killed: "KillResult", *, is_waiting: bool) -> Iterator[str]:
    if killed.is_finished_before:
        yield f"is over already: {killed.state}"
    elif killed.state:
        yield "killed" + (", with SIGKILL in the end" if killed.was_forced else "")
    if killed.standing == "foreign":
        yield "its pid belongs to another program by now, which was left alone"
    elif killed.standing == "gone":
        yield "its process was gone already"
    if killed.remaining_pids:
        pids = ", ".join(map(str, killed.remaining_pids))
        how = "still run" if is_waiting else f"clean up; see `clouduploader log -f {killed.name}`"
        yield f"its processes {pids} {how}"
    if killed.clean_up:
        for thing in killed.clean_up.removed:
            yield f"removed {_thing_text(thing)}"
        for leftover in killed.clean_up.left:
            yield f"left {_thing_text(leftover.object)}: {leftover.reason}"
