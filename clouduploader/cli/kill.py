"""`clouduploader kill`."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output
from clouduploader.cli.job_view import inspect, object_document, object_text
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean
from clouduploader.errors import ClouduploaderError, ExitCode, UsageError

if TYPE_CHECKING:
    from clouduploader.jobs.kill import KillResult

KILL_TIMEOUT_SECONDS = 300.0  # a program of a platform's may react to SIGTERM after its step only, which takes minutes


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
    forced, remaining_pids, removed, left and error. A server does not show processes: with --server there
    is no --wait and no --force, and process and remaining_pids are null.
    """
    from clouduploader.jobs import kill

    server = session.server
    if server and (wait or force):
        raise UsageError(
            "--wait and --force need the spool: a server does not show a job's processes",
            hint="`clouduploader log JOB` shows what a killed uploader says.",
        )
    if not yes:
        _ask_before_kill(session, names)
    options = kill.KillOptions(is_waiting=wait or force, is_forced=force, timeout_seconds=timeout)
    sinks = [] if session.is_quiet else [os.fdopen(2, "wb", buffering=0, closefd=False)]
    outcomes = (
        kill.kill_at_server(server, names)
        if server
        else kill.kill_jobs(session.open_spool(), names, options=options, config=session.config, sinks=sinks)
    )
    codes = []
    documents = []
    for killed in outcomes:
        code = _kill_code(killed, is_waiting=options.is_waiting)
        codes.append(code)
        documents.append(_kill_document(killed, code))
        if not session.is_json:
            _print_killed(killed, is_waiting=options.is_waiting)
    if session.is_json:
        output.print_json(session, {"jobs": documents}, exit_code=max(codes))
    return max(codes)


def _ask_before_kill(session: Session, names: Sequence[str]) -> None:
    """Show the jobs that would be killed, with what they have in the cloud, and ask; do nothing if there is none."""
    living, lines = [], []
    for name in dict.fromkeys(names):
        try:
            found = inspect(session, name, lines=0)
        except ClouduploaderError:
            continue  # the attempt to kill it reports why it can't be
        if found.job and not found.job.state.is_final:
            living.append(name)
            facts = [("user", found.job.user), ("image", found.job.filename), ("target", found.job.target)]
            told = [found.job.state, *(f"{key} {value}" for key, value in facts if value)]
            lines.append(f"job {name}: {', '.join(told)}")
            lines += [f"  with {object_text(thing)}" for thing in found.objects]
    if living:
        question = f"Kill the job{'s' * (len(living) > 1)} {', '.join(living)}?"
        output.confirm(session, question, is_agreed=False, shown=lines)


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
        "process": killed.ownership,
        "forced": killed.was_forced,
        "remaining_pids": None if killed.remaining_pids is None else list(killed.remaining_pids),
        "removed": report and [object_document(thing) for thing in report.removed],
        "left": report
        and [{**object_document(leftover.object), "reason": leftover.reason} for leftover in report.left],
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
    if killed.ownership == "foreign":
        yield "its pid belongs to another program by now, which was left alone"
    elif killed.ownership == "gone":
        yield "its process was gone already"
    if killed.remaining_pids:
        pids = ", ".join(map(str, killed.remaining_pids))
        how = "still run" if is_waiting else f"clean up; see `clouduploader log -f {killed.name}`"
        yield f"its processes {pids} {how}"
    if killed.clean_up:
        for thing in killed.clean_up.removed:
            yield f"removed {object_text(thing)}"
        for leftover in killed.clean_up.left:
            yield f"left {object_text(leftover.object)}: {leftover.reason}"
