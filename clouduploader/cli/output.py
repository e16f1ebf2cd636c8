"""Answers: fields and findings for people, tab-separated lines for pipes, JSON for programs.

rich is loaded only when standard output is a terminal: it costs more time than most commands take.
"""

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

import clouduploader
from clouduploader.cli.session import Session
from clouduploader.cli.text import cell, clean
from clouduploader.errors import ClouduploaderError, ExitCode, UsageError

if TYPE_CHECKING:
    from clouduploader.plugin import CloudObject, Finding

COLOURS = {
    **{"succeeded": "green", "ok": "green", "failed": "red", "failure": "red", "damaged": "red"},
    **{"uploading": "cyan", "receiving": "cyan", "waiting": "yellow", "warning": "yellow"},
}
"""Colours of states and findings; of the eight that every terminal with colours has."""


def envelope(
    session: Session, *, data: Mapping[str, Any] | None, error: ClouduploaderError | None, exit_code: int
) -> str:
    """Return the JSON object that every `--json` answers with, success and failure alike.

    Keys: `version` and `command` (strings; command is null before it is known), `exit_code`,
    `data` (the command's own object, or null), `error` (null, or an object with `kind`, `message`
    and `hint`).
    """
    document = {
        "version": clouduploader.__version__,
        "command": session.command,
        "exit_code": exit_code,
        "data": data,
        "error": error and {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
    }
    return json.dumps(document, ensure_ascii=True)


def images(objects: Iterable["CloudObject"]) -> dict[str, str]:
    """Return the images among things in the cloud by region, as every answer in JSON has them."""
    return {thing.region: thing.id for thing in objects if thing.kind == "image"}


def print_json(session: Session, data: Mapping[str, Any], *, exit_code: int = ExitCode.OK) -> None:
    """Print a command's answer as JSON."""
    click.echo(envelope(session, data=data, error=None, exit_code=int(exit_code)))


def print_json_stream(
    session: Session, data: Mapping[str, Any], *, key: str, items: Iterable[Mapping[str, Any]]
) -> None:
    """Print an answer that holds a long list, without having all of it in memory at once.

    Args:
        session: See Session.
        data: The answer but for the list.
        key: The list's name in the answer.
        items: The list, taken while it is printed.
    """
    document = envelope(session, data={**data, key: []}, error=None, exit_code=ExitCode.OK)
    front, _, back = document.rpartition("[]")
    sys.stdout.write(front + "[")
    separator = ""
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ", "
    click.echo("]" + back)


def state(text: str, shown: str | None = None) -> str:
    """Colour the state of a job, or how good a finding is, on a terminal that has colours; else leave it.

    Args:
        text: The state.
        shown: What is printed, if that has blanks around it.
    """
    shown = text if shown is None else shown
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return click.style(shown, fg=COLOURS[text]) if has_colours and text in COLOURS else shown


def print_fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line: aligned on a terminal, else with a tab between."""
    if sys.stdout.isatty():
        width = max((len(name) for name, _ in pairs), default=0)
        lines = [f"{name + ':':{width + 1}} {state(cell(value))}" for name, value in pairs]
    else:
        lines = [f"{name}\t{cell(value)}" for name, value in pairs]
    if lines:
        click.echo("\n".join(lines))


def finding(found: "Finding") -> str:
    """Return a finding as a line: its level, what was checked, what was found, and what to do."""
    hint = f". {found.hint}" if found.hint else ""
    return state(found.level, f"{found.level:8}") + clean(f"{found.subject}: {found.message}{hint}")


def log_writer(stream: TextIO) -> Callable[[bytes], None]:
    """Return a function that shows a log: as it is, or on a terminal with escape sequences made harmless.

    Args:
        stream: Standard output or standard error.
    """
    if not stream.isatty():

        def write_plain(data: bytes) -> None:
            stream.buffer.write(data)
            stream.buffer.flush()

        return write_plain
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(data: bytes) -> None:
        parts = re.split(r"([\n\t])", decoder.decode(data).replace("\r\n", "\n"))
        click.echo("".join(part if part in ("\n", "\t") else clean(part) for part in parts), nl=False, file=stream)

    return write


def warn(session: Session, text: str) -> None:
    """Print a warning to stderr, unless --quiet."""
    if not session.is_quiet:
        click.echo(f"clouduploader: warning: {clean(text)}", err=True)


def confirm(session: Session, question: str, *, is_agreed: bool, shown: Sequence[str] = ()) -> None:
    """Ask before something is destroyed.

    Args:
        session: See Session.
        question: Ends with a question mark.
        shown: Lines that say what that is, unless it has been shown already.
        is_agreed: Whether `--yes` was given.

    Raises:
        UsageError: There is no terminal to ask on, or the answer is JSON, and no `--yes`.
        click.Abort: The answer was no.
    """
    if is_agreed:
        return
    if session.is_json:
        raise UsageError(f"{question} With --json there is no question.", hint="Give --yes to agree.")
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to answer on.", hint="Give --yes to agree.")
    for line in shown:
        click.echo(clean(line), err=True)
    click.confirm(question, abort=True, err=True)
