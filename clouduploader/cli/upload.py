"""`clouduploader upload`: by hand."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import click

from clouduploader.cli import completion, output, target_values, uploading
from clouduploader.cli.options import ImageFile, data_option, json_option, login, pass_session, user_option
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import TargetCommand
from clouduploader.cli.text import clean
from clouduploader.errors import ExitCode
from clouduploader.jobs import upload
from clouduploader.plugin import JsonValue
from clouduploader.store import config, home, job_log
from clouduploader.uploads import registry
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else config.parse_size(text)
    except ValueError as exc:
        raise click.BadParameter(f"it {exc}") from exc


@click.command("upload", cls=TargetCommand)
@click.argument("image", type=ImageFile())
@completion.target_option
@data_option
@user_option
@click.option("--max-size", callback=_size, metavar="SIZE", help="How large IMAGE may be unpacked, for example 20G.")
@click.option("--events", type=click.Path(path_type=Path), help="Write events as JSON lines to this file.")
@click.option("--dry-run", is_flag=True, help="Check all, say what would be done, and change nothing.")
@json_option
@pass_session
def upload_command(
    session: Session,
    /,
    *,
    image: Path,
    target: str,
    data: Path | None,
    user: str | None,
    events: Path | None,
    max_size: int | None,
    dry_run: bool,
    given: Mapping[str, JsonValue],
) -> int:
    """Upload IMAGE, and print what came out.

    That is the id of the image in the cloud, or how else the target calls it. The upload is a job in the spool like
    those of OBS: `list`, `inspect`, `log` and `kill` know it.

    Where the image is there, but a part of what else was asked for failed, for example a copy to one region, the exit
    code is 75: each part is reported on stderr, and the same command once more does the rest.

    With --json the data are job, result, images (by region), objects (each with kind, id and region, the image
    first) and shortfalls (each with subject and reason); with --dry-run steps and costs.
    """
    order = upload.ManualUpload(
        user=user or login(),
        target=target,
        image_path=image.absolute(),
        targetdata=target_values.gather(session.config, target, data, given),
        events_path=events,
    )
    settings = session.config
    if max_size is not None:
        settings = dataclasses.replace(settings, max_size=config.Setting(max_size, "--max-size"))
    for path in home.exposed(settings.home.value, registry.load(target, settings).files):
        output.warn(session, f"others on this machine can read {path}")
    cancel = Cancel()
    signals.listen(cancel)
    if dry_run:
        return _plan(session, order, settings, cancel)
    # a region that is misspelt is no job's failure
    if target_values.has_unknown_values(settings, target, order.targetdata):
        upload.check(order, config=settings, log=job_log.JobLog([], is_verbose=False), cancel=cancel)
    outcome = uploading.run_watched(session, upload.run, order, config=settings, cancel=cancel)
    return uploading.print_outcome(session, outcome)


def _plan(session: Session, order: upload.ManualUpload, settings: config.Config, cancel: Cancel) -> int:
    notes = io.BytesIO()  # what is guessed, passed over or warned of; no job keeps them
    log = job_log.JobLog(uploading.sinks(session) or [notes], is_verbose=session.is_verbose)
    plan = upload.check(order, config=settings, log=log, cancel=cancel)
    if not session.is_quiet:
        click.echo(notes.getvalue(), nl=False, err=True)
    if session.is_json:
        output.print_json(session, {"steps": plan.steps, "costs": [vars(cost) for cost in plan.costs]})
        return ExitCode.OK
    for step in plan.steps:
        click.echo(f"would {clean(step)}")
    for cost in plan.costs:
        period = " a month" if cost.is_monthly else ""
        click.echo(f"would cost at most {cost.usd:.2f} USD{period}: {clean(cost.what)}")
    return ExitCode.OK
