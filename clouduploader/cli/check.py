"""`clouduploader check`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from clouduploader.admin import check
from clouduploader.cli import completion, output, target_values
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import REGION, TargetCommand
from clouduploader.errors import ExitCode
from clouduploader.plugin import Field, JsonValue, Level, Platform


def _takes(platform: Platform, field: Field) -> bool:
    """Take what has a setting that an upload may choose itself, and the region."""
    return field.name == REGION or target_values.is_setting(platform, field)


@click.command("check", cls=TargetCommand, takes=_takes)
@completion.target_option
@click.option("--data", type=click.Path(path_type=Path), help="Target data of a job, to try its rights and names too.")
@json_option
@pass_session
def check_command(session: Session, /, *, target: str, given: Mapping[str, JsonValue], data: Path | None) -> int:
    """Check whether everything is in place for an upload.

    Nothing is changed. One line a finding: ok, warning or failure, what was looked at, what was found, what to do. The
    exit code is 78 if there is a failure. Without --target and other options, each platform is looked at that has
    settings, a file in the home or an account. For a target with several methods, what the one in use does not need is
    not looked at; what it may need is a warning. With --region only that region is looked at, else all that are
    configured.

    With --json the data are {"findings": [...]}, each with level, subject, message and hint.
    """
    region = given.get(REGION)
    settings = {name: value for name, value in given.items() if name != REGION}
    config = target_values.with_settings(session.config, target, settings)
    is_named = click.get_current_context().get_parameter_source("target") is not ParameterSource.DEFAULT
    targets = [target] if is_named or given or data else check.configured(config) or [target]
    findings = []
    for finding in check.run(config, targets=targets, region=None if region is None else str(region), data_path=data):
        findings.append(finding)
        if not session.is_json:
            click.echo(output.finding(finding))
    code = ExitCode.CONFIG if any(found.level is Level.FAILURE for found in findings) else ExitCode.OK
    if session.is_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        output.print_json(session, {"findings": rows}, exit_code=code)
    return code
