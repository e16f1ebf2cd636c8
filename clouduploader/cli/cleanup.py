"""`clouduploader cleanup`: remove what dead uploads left in the cloud."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from clouduploader.cli import completion, output, table, target_values
from clouduploader.cli.options import data_option, json_option, pass_session, read_span
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import REGION, TargetCommand
from clouduploader.cli.text import age, clean, moment
from clouduploader.errors import ExitCode
from clouduploader.jobs import cleanup
from clouduploader.platforms import DEFAULT_TARGET
from clouduploader.plugin import CleanUpReport, CloudObject, Field, JsonValue, Platform
from clouduploader.store import job_log, target_data
from clouduploader.util import privileges

COLUMNS = (
    table.Column("kind", least=8, rank=2),
    table.Column("id"),
    table.Column("region", rank=3),
    table.Column("job"),
    table.Column("user", least=8, rank=5),
    table.Column("image", least=16, rank=4),
    table.Column("age", rank=6),
    table.Column("what happened", least=16, rank=1),
)


def _takes(_platform: Platform, field: Field) -> bool:
    """Take what opens an account, and the regions to look through."""
    return field.name == REGION or field.is_of_account


def _needs_target(words: Sequence[str]) -> bool:
    """Tell whether there must be a platform for the target: journals name their own, if the job ever had one."""
    names = {word.partition("=")[0] for word in words}
    return "--target" in names and "--job" not in names


@click.command("cleanup", cls=TargetCommand, takes=_takes, repeatable=(REGION,), needs_target=_needs_target)
@click.option(
    "--target", shell_complete=completion.target,
    help="Only what uploads to this platform left; see `clouduploader platforms`.  "
    f"[all by journal; {DEFAULT_TARGET} where an account is named]",
)  # fmt: skip
@click.option("--job", shell_complete=completion.job, help="Only what the upload of this job left, by its journal.")
@data_option
@click.option(
    "--older-than", callback=read_span, metavar="AGE",
    help="Only what is older, for example 90m, 12h or 2d.  [any age by journal, 1d by tags alone]",
)  # fmt: skip
@click.option("--completed", is_flag=True, help="Also what is complete and could be made use of by `resume`.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_session
def cleanup_command(
    session: Session,
    /,
    *,
    target: str | None,
    job: str | None,
    given: Mapping[str, JsonValue],
    data: Path | None,
    older_than: datetime.timedelta | None,
    completed: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Remove what killed or failed uploads left in the cloud.

    The journals of dead uploads name it, and their target data open the account. Where account and region are named
    too, by options or --data, that account is looked through by our tags besides, for uploads whose journal is lost; of
    a platform that knows neither --target is enough. What belongs to an upload that lives, or to an image that can be
    used, is left alone; so is what is complete, or being completed, but no image yet, such as a snapshot, unless
    --completed is given.

    A cloud may not show for two minutes what it has made. What was asked for or made more recently, and does not show,
    is left for another clean-up.

    The exit code is 75 if something could not be removed, or may not show yet, or if the upload of --job still runs.

    With --json the data are {"dry_run": B, "things": [...]}, each with kind, id (null for what does not show yet),
    region, job, user, image, journal, created, story, outcome (removed, left, kept or found) and reason.
    """
    privileges.hide_memory()
    with open(2, "wb", buffering=0, closefd=False) as stderr:
        log = job_log.JobLog([] if session.is_quiet else [stderr], is_verbose=session.is_verbose)
        of_options = target or DEFAULT_TARGET
        if given or (target and job is None):  # the journal of a job names its own target
            target_values.check_given(session.config, of_options, given)
        context = cleanup.CleanupContext(session.config, log)
        named = given.get(REGION)
        regions = tuple(str(name) for name in named) if isinstance(named, list) else ()
        account = {name: value for name, value in given.items() if name != REGION}
        scope = cleanup.CleanupScope(
            target=of_options if job is None and (given or data) else target,
            regions=regions,
            targetdata=_targetdata(context, of_options, data, account | ({REGION: regions[0]} if regions else {})),
            older_than=older_than,
            is_complete_too=completed,
            job=job,
        )
        batches = cleanup.look(context, scope)
        to_remove = sum(len(batch.to_remove) for batch in batches)
        reports: list[CleanUpReport] = []
        if not session.is_json:
            _print_found(session, batches)
        if not dry_run:
            if to_remove:
                question = f"Remove {'this thing' if to_remove == 1 else f'these {to_remove} things'}?"
                output.confirm(session, question, is_agreed=yes)
            reports = list(cleanup.remove(context, batches))
    is_left = any(report.left for report in reports) or any(batch.error for batch in batches)
    code = ExitCode.TEMPORARY if is_left else ExitCode.OK
    if session.is_json:
        things = _documents(batches, reports, is_dry=dry_run)
        output.print_json(session, {"dry_run": dry_run, "things": things}, exit_code=code)
    else:
        _print_reports(session, reports)
    return code


def _targetdata(
    context: cleanup.CleanupContext, target: str, path: Path | None, given: Mapping[str, JsonValue]
) -> Mapping[str, JsonValue]:
    if path is None:
        return given
    platform = context.load_platform(target, context.config)
    return {**context.values(target_data.read_file(path), platform), **given}


def _print_found(session: Session, batches: Sequence[cleanup.UploadLeftovers]) -> None:
    rows = []
    for batch in batches:
        for item in batch.items:
            thing = item.object
            kept = "" if item.is_unseen else "kept: "
            cause = f"{item.cause}; {kept}{item.keep_reason}" if item.keep_reason else item.cause
            place = (thing.kind, thing.id or None, thing.region)
            rows.append((*place, item.job, *_upload(batch), _age(item.created), cause))
    if rows:
        table.print_table(COLUMNS, rows)
    elif not session.is_quiet:
        click.echo("Nothing is left.", err=True)
    for batch in batches:
        if batch.error:
            output.warn(session, f"journal {batch.key}: {batch.error.message}")


def _upload(batch: cleanup.UploadLeftovers) -> tuple[object, object]:
    """Return the user and the image of an upload; None for each if its journal is lost."""
    began = (batch.contents and batch.contents.state.began) or {}
    return began.get("user"), began.get("filename")


def _print_reports(session: Session, reports: Sequence[CleanUpReport]) -> None:
    for report in reports:
        for leftover in report.left:
            click.echo(f"clouduploader: left {_text(leftover.object)}: {clean(leftover.reason)}", err=True)
    removed = sum(len(report.removed) for report in reports)
    if removed and not session.is_quiet:
        click.echo(f"Removed {removed} thing{'s' * (removed > 1)}.", err=True)


def _documents(
    batches: Sequence[cleanup.UploadLeftovers], reports: Sequence[CleanUpReport], *, is_dry: bool
) -> list[dict[str, Any]]:
    reasons = {leftover.object: leftover.reason for report in reports for leftover in report.left}
    documents = []
    for batch in batches:
        user, image = _upload(batch)
        for item in batch.items:
            reason = item.keep_reason or reasons.get(item.object) or (batch.error and batch.error.message)
            is_kept = item.keep_reason and not item.is_unseen
            outcome = "kept" if is_kept else "found" if is_dry else "left" if reason else "removed"
            documents.append(
                {
                    "kind": item.object.kind,
                    "id": item.object.id or None,
                    "region": item.object.region,
                    "job": item.job,
                    "user": user,
                    "image": image,
                    "journal": batch.key,
                    "created": moment(item.created) if item.created else None,
                    "story": item.cause,
                    "outcome": outcome,
                    "reason": reason,
                }
            )
    return documents


def _age(created: datetime.datetime | None) -> str | None:
    if created is None:
        return None
    seconds = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    return age(seconds)


def _text(thing: CloudObject) -> str:
    return clean(job_log.describe(thing))
