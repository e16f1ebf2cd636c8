"""`clouduploader check`."""

import dataclasses
from pathlib import Path

import click

from clouduploader.admin import check
from clouduploader.cli import completion, output, targetoptions
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode
from clouduploader.plugin import Level


@click.command("check")
@completion.target_option
@click.option(
    "--region",
    shell_complete=completion.field("region"),
    help="Look at this region only; else at all that are configured.",
)
@click.option(
    "--method",
    metavar="[ec2uploadimg|ebs-direct|auto]",
    shell_complete=completion.field("method"),
    help="Look at what this method needs.  [that of --data, else the setting]",
)
@click.option("--data", type=click.Path(path_type=Path), help="Target data of a job, to try its role and name too.")
@json_option
@pass_session
def check_command(
    session: Session, /, *, target: str, region: str | None, method: str | None, data: Path | None
) -> int:
    """Look whether everything is in place for an upload.

    Nothing is changed. One line a finding: ok, warning or failure, what was looked at, what was found, what to do. The
    exit code is 78 if there is a failure. What the method in use does not need is not looked at; what it may need,
    as ec2uploadimg with the method auto, is a warning.

    With --json the data are {"findings": [...]}, each with level, subject, message and hint.
    """
    config = session.config if method is None else targetoptions.with_method(session.config, target, method)
    findings = []
    for finding in check.run(config, target=target, region=region, data_path=data):
        findings.append(finding)
        if not session.is_json:
            click.echo(output.finding(finding))
    code = ExitCode.CONFIG if any(found.level is Level.FAILURE for found in findings) else ExitCode.OK
    if session.is_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        output.print_json(session, {"findings": rows}, exit_code=code)
    return code
