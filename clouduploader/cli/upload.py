"""`clouduploader upload`: by hand."""

import contextlib
import getpass
import json
import os
import signal
import sys
from pathlib import Path

import click

from clouduploader import home, joblog, stopping, targetdata
from clouduploader.cli import output
from clouduploader.cli.session import Session, json_option, pass_session, verbose_option
from clouduploader.commands import upload_image
from clouduploader.errors import ExitCode, UsageError
from clouduploader.job import Job
from clouduploader.runner import read_targetdata
from clouduploader.stop import Stop

_OPTIONS = {
    "region": "region",
    "name": "ami_name",
    "arn": "arn",
    "external_id": "external_id",
    "subnet": "vpc_subnet_id",
}
"""The options that stand for keys of the target data."""


@click.command("upload")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--target", default="ec2", show_default=True, help="The platform; see `clouduploader platforms`.")
@click.option("--region", help="The cloud's region, for example eu-west-1.")
@click.option("--name", help="Name of the new image in the cloud.")
@click.option("--arn", help="ARN of the role to act as. Without it your own AWS credentials are used.")
@click.option("--external-id", help="External id that the role asks for.")
@click.option("--subnet", help="Subnet for the helper instance. Without it a VPC is made and removed again.")
@click.option("--data", type=click.Path(path_type=Path), help="A JSON file with target data; the options go first.")
@click.option("--user", help="Whose job it is.  [your login]")
@click.option("--events", type=click.Path(path_type=Path), help="Write events as JSON lines to this file.")
@click.option("--dry-run", is_flag=True, help="Check all, say what would be done, and change nothing.")
@verbose_option
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
    dry_run: bool,
    **options: str | None,
) -> int:
    """Upload IMAGE, and print what came out.

    For EC2 that is the id of an AMI. The upload is a job in the spool like those of OBS: `list`, `inspect`,
    `log` and `kill` know it.
    """
    given = {_OPTIONS[name]: value for name, value in options.items() if value is not None}
    order = upload_image.Order(
        user=user or _login(),
        target=target,
        image_path=image.absolute(),
        targetdata=_targetdata(data, given),
        events_path=events,
    )
    for path in home.exposed(session.config.home.value):
        output.warn(session, f"everybody on this machine can read {path}")
    stop = Stop()
    stopping.listen(stop)
    if dry_run:
        return _plan(session, order, stop)
    _lead_group()
    with contextlib.ExitStack() as views:
        outcome = upload_image.run(
            order,
            config=session.config,
            stop=stop,
            sinks=_sinks(session),
            is_verbose=session.is_verbose,
            watch=lambda job, log: _watch(session, job, log, views),
        )
    if session.is_json:
        things = [vars(thing) for thing in outcome.result.objects]
        output.print_json(session, {"job": outcome.job.name, "result": outcome.result.id, "objects": things})
    else:
        click.echo(outcome.result.id)
    return ExitCode.OK


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f"uid {os.getuid()}"


def _targetdata(path: Path | None, given: dict[str, str]) -> bytes:
    """The target data of the file, with those of the options on top."""
    if path is None:
        return json.dumps(given).encode()
    data = read_targetdata(path)
    if not given:
        return data
    if targetdata.is_armored(data.decode("utf-8", "replace")):
        raise UsageError(f"{path} is encrypted as a whole, so options can't add to it")
    return json.dumps({**targetdata.parse(data), **given}).encode()


def _plan(session: Session, order: upload_image.Order, stop: Stop) -> int:
    log = joblog.JobLog(_sinks(session), is_verbose=session.is_verbose)
    steps = upload_image.check(order, config=session.config, log=log, stop=stop)
    if session.is_json:
        output.print_json(session, {"steps": steps})
    else:
        click.echo("\n".join(f"would {output.clean(step)}" for step in steps))
    return ExitCode.OK


def _sinks(session: Session) -> list[joblog.Sink]:
    """Where the log is shown, line by line: on stderr if verbose."""
    return [open(2, "wb", buffering=0, closefd=False)] if session.is_verbose else []


def _watch(session: Session, job: Job, log: joblog.JobLog, views: contextlib.ExitStack) -> None:
    """Tell a person which job it is, and show on a terminal how it goes."""
    if session.is_quiet:
        return
    click.echo(f"job {job.name}: uploading {output.clean(job.filename or '')}", err=True)
    if sys.stderr.isatty() and not session.is_verbose:
        from clouduploader.cli import progress

        log.listen(views.enter_context(progress.ProgressView()))


def _lead_group() -> None:
    """Become the leader of our process group: the pid in a job's file is a group, for `kill`.

    A shell with job control has seen to that; in a script, the terminal must learn whom Ctrl-C is for.
    """
    if os.getpgrp() == os.getpid():
        return
    is_in_front = sys.stdin.isatty() and os.tcgetpgrp(0) == os.getpgrp()
    os.setpgid(0, 0)
    if is_in_front:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what a background process gets for tcsetpgrp
        os.tcsetpgrp(0, os.getpgrp())
