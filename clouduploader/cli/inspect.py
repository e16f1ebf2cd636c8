"""`clouduploader inspect`."""

from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output
from clouduploader.cli.job_view import DAMAGED, FIELDS, inspect, job_fields, object_document, object_text, utc
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean
from clouduploader.errors import ExitCode

if TYPE_CHECKING:
    from clouduploader.jobs.inspect import JobInspection
    from clouduploader.store import journal

INSPECT_LINES = 10  # as tail(1)


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

    Its fields and files, the processes that work on it, its objects in the cloud, its journal, and the end of its log.

    With --json the data are those of `list`, and ended, image_bytes, paths, process (working, foreign, gone,
    unknown or null), pids, phase, objects, log and journal (null, or key, state, outcome, objects, asked and
    shortfalls).

    A server does not show files and processes: with --server they are left out, and in JSON ended, image_bytes,
    paths, process, pids, journal and the log's held are null.
    """
    found = inspect(session, job, lines=lines)
    if session.is_json:
        output.print_json(session, _inspection(found))
        return ExitCode.OK
    output.print_fields(_inspection_fields(found))
    if found.log and found.log.last_lines:
        click.echo("\n" + "\n".join(map(clean, found.log.last_lines)))
    return ExitCode.OK


def _inspection_fields(found: "JobInspection") -> list[tuple[str, object]]:
    job, log = found.job, found.log
    pairs: list[tuple[str, object]] = [("job", found.name)]
    if job:
        pairs += [(key, value) for key, value in job_fields(job).items() if value is not None]
    else:
        pairs += [("state", DAMAGED), ("details", found.damage)]
    if found.ended:
        pairs.append(("ended", utc(found.ended.timestamp())))
    if found.image_bytes is not None:
        pairs.append(("image bytes", found.image_bytes))
    if not found.is_archived and found.pids is not None:
        pairs.append(("process", _process_text(found)))
    pairs += [(f"{key} path", path) for key, path in (found.paths or {}).items()]
    if log:
        pairs.append(("log bytes", log.size_bytes))
        pairs += [("log changed", utc(log.changed.timestamp()))] if log.changed else []
        pairs += [("phase", log.reading.phase)] if log.reading.phase else []
        pairs += [("object", object_text(thing)) for thing in found.objects]
    if found.journal:
        pairs += [("journal", f"{found.journal.key} ({_journal_state(found)})")]
        for item in _shortfalls(found.journal.state):
            pairs.append(("shortfall", f"{item.get('subject')}: {item.get('reason')}"))
    return pairs


def _journal_state(found: "JobInspection") -> str:
    """Return the state of the upload: live, resumable (dead, with something to go on with), or ended."""
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
        "objects": [object_document(thing) for thing in found.objects],
        "asked": [{"kind": entry.get("kind"), "region": entry.get("region")} for entry in state.asked],
        "shortfalls": _shortfalls(state),
    }


def _process_text(found: "JobInspection") -> str:
    if found.job and found.job.host:
        return f"on the host {found.job.host}"
    pid = found.job.pid if found.job else None
    pids = ", ".join(map(str, found.pids or ()))
    texts = {
        "working": f"works on the job ({pids})",
        "foreign": f"{pid} is no process of this job",
        "gone": f"{pid} is gone",
        "unknown": f"{pid} is there, but only root or its owner can see what it does",
    }
    text = texts[found.ownership] if found.ownership else "none"
    if found.pids and found.ownership != "working":
        text += f"; but these have its log open: {pids}"
    elif not found.pids and found.log and found.log.is_held:
        text += "; but a process has its log locked"
    return text


def _inspection(found: "JobInspection") -> dict[str, Any]:
    log = found.log
    reading = log.reading if log else None
    return {
        "job": found.name,
        **(job_fields(found.job) if found.job else dict.fromkeys(FIELDS)),
        "archived": found.is_archived,
        "damage": found.damage,
        "ended": utc(found.ended.timestamp()) if found.ended else None,
        "image_bytes": found.image_bytes,
        "paths": None if found.paths is None else {key: str(path) for key, path in found.paths.items()},
        "process": found.ownership,
        "pids": None if found.pids is None else list(found.pids),
        "phase": reading.phase if reading else None,
        "objects": [object_document(thing) for thing in reading.objects] if reading else None,
        "log": log
        and {
            "size_bytes": log.size_bytes,
            "changed": log.changed and utc(log.changed.timestamp()),
            "held": log.is_held,
            "last_lines": list(log.last_lines),
        },
        "journal": _journal(found),
    }
