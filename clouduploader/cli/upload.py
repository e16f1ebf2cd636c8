"""`clouduploader upload`: by hand."""

import contextlib
import dataclasses
import getpass
import json
import os
from collections.abc import Mapping
from pathlib import Path

import click

from clouduploader import config, home, joblog, stopping, targetdata
from clouduploader.cli import output, uploading
from clouduploader.cli.session import Session, json_option, pass_session, verbose_option
from clouduploader.commands import upload_image
from clouduploader.errors import ExitCode, UsageError
from clouduploader.platform import JsonValue
from clouduploader.runner import read_targetdata
from clouduploader.stop import Stop

KEYS = {
    "region": "region",
    "name": "ami_name",
    "description": "description",
    "tag": "tags",
    "architecture": "architecture",
    "boot_mode": "boot_mode",
    "method": "method",
    "sha256": "sha256",
    "zero_blocks": "zero_blocks",
    "verify": "verify",
    "encrypt": "encrypted",
    "kms_key": "kms_key_id",
    "keep": "keep",
    "force": "force",
    "copy_to": "regions",
    "share": "share",
    "deprecate_at": "deprecate_at",
    "arn": "arn",
    "external_id": "external_id",
    "subnet": "vpc_subnet_id",
}
"""The options that stand for keys of the target data. What is a right value is said by the platform's fields."""


def _tags(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise click.BadParameter(f"'{word}' is not of the form NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _lists(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[str]:
    return [item.strip() for word in words for item in word.split(",")]


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else config.parse_size(text)
    except ValueError as exc:
        raise click.BadParameter(f"it {exc}") from exc


@click.command("upload")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--target", default="ec2", show_default=True, help="The platform; see `clouduploader platforms`.")
@click.option("--region", help="The cloud's region, for example eu-west-1.")
@click.option("--name", help="Name of the new image in the cloud.")
@click.option("--description", metavar="TEXT", help="A sentence about it, for people.")
@click.option("--tag", multiple=True, callback=_tags, metavar="NAME=VALUE", help="A tag of it; may be repeated.")
@click.option("--architecture", metavar="[x86_64|arm64|i386]", help="What it runs on.  [what the image tells]")
@click.option("--boot-mode", metavar="[legacy-bios|uefi|uefi-preferred]", help="How it boots.  [what the image tells]")
@click.option("--method", metavar="[ec2uploadimg|ebs-direct|auto]", help="How it gets there.  [clouduploader.conf]")
@click.option("--sha256", metavar="DIGEST", help="The SHA-256 that IMAGE must have.  [what IMAGE.sha256 says]")
@click.option("--max-size", callback=_size, metavar="SIZE", help="How large IMAGE may be unpacked, for example 20G.")
@click.option("--zero-blocks", metavar="[send|holes|skip]", help="Which zeros are left out: of ebs-direct.  [holes]")
@click.option("--verify", metavar="[none|sample|full]", help="How much is read back: of ebs-direct.  [sample]")
@click.option("--encrypt", is_flag=True, default=None, help="Encrypt it: of ebs-direct.")
@click.option("--kms-key", metavar="KEY", help="The KMS key to encrypt it with.  [the account's default]")
@click.option("--keep", metavar="[nothing|snapshot]", help="What a failure leaves for another try.  [nothing]")
@click.option("--force", is_flag=True, default=None, help="Go on even if IMAGE is not what is said of it.")
@click.option("--copy-to", multiple=True, callback=_lists, metavar="REGION", help="Copy it there; may be repeated.")
@click.option(
    "--share", multiple=True, callback=_lists, metavar="WHO", help="Share it: account, ARN of an organization, public."
)
@click.option("--deprecate-at", metavar="DATE", help="From when on it is deprecated, for example 2027-01-31.")
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
    max_size: int | None,
    dry_run: bool,
    **options: JsonValue,
) -> int:
    """Upload IMAGE, and print what came out.

    For EC2 that is the id of an AMI. The upload is a job in the spool like those of OBS: `list`, `inspect`,
    `log` and `kill` know it.

    Where the image is there, but a part of what else was asked for failed, for example a copy to one region, the exit
    code is 75: each part is told on stderr, and the same command once more does the rest.
    """
    given = {KEYS[name]: value for name, value in options.items() if value not in (None, [], {})}
    order = upload_image.Order(
        user=user or _login(),
        target=target,
        image_path=image.absolute(),
        targetdata=_targetdata(data, given),
        events_path=events,
    )
    settings = session.config
    if max_size is not None:
        settings = dataclasses.replace(settings, max_size=config.Setting(max_size, "--max-size"))
    for path in home.exposed(settings.home.value):
        output.warn(session, f"others on this machine can read {path}")
    stop = Stop()
    stopping.listen(stop)
    if dry_run:
        return _plan(session, order, settings, stop)
    uploading.lead_group()
    with contextlib.ExitStack() as views:
        outcome = upload_image.run(
            order,
            config=settings,
            stop=stop,
            sinks=uploading.sinks(session),
            is_verbose=session.is_verbose,
            watch=lambda job, log: uploading.watch(session, job, log, views),
        )
    return uploading.print_outcome(session, outcome)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f"uid {os.getuid()}"


def _targetdata(path: Path | None, given: Mapping[str, JsonValue]) -> bytes:
    """The target data of the file, with those of the options on top."""
    if path is None:
        return json.dumps(given).encode()
    data = read_targetdata(path)
    if not given:
        return data
    if targetdata.is_armored(data.decode("utf-8", "replace")):
        raise UsageError(f"{path} is encrypted as a whole, so options can't add to it")
    return json.dumps({**targetdata.parse(data), **given}).encode()


def _plan(session: Session, order: upload_image.Order, settings: config.Config, stop: Stop) -> int:
    log = joblog.JobLog(uploading.sinks(session), is_verbose=session.is_verbose)
    steps = upload_image.check(order, config=settings, log=log, stop=stop)
    if session.is_json:
        output.print_json(session, {"steps": steps})
    else:
        click.echo("\n".join(f"would {output.clean(step)}" for step in steps))
    return ExitCode.OK
