"""`clouduploader sandbox`: a private AWS on this machine."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import click

from clouduploader.cli import completion
from clouduploader.cli.options import login, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import UsageError
from clouduploader.sandbox import host, layout
from clouduploader.sandbox.aws.cloud import AwsCloud
from clouduploader.sandbox.aws.layout import REGIONS

# 170 s of sleep in an upload become 3.4 s, and no poll gets so dense that it fills the log.
DEFAULT_WAIT_FACTOR = 0.02
DEFAULT_REGIONS = ("us-east-1", "eu-central-1")


@click.command("sandbox", context_settings={"allow_interspersed_args": False})
@click.option(
    "--region",
    "regions",
    multiple=True,
    default=DEFAULT_REGIONS,
    show_default=True,
    metavar="REGION",
    shell_complete=completion.among(REGIONS),
    help="Prepare a helper AMI there; can be repeated.",
)
@click.option(
    "--wait-factor",
    type=click.FloatRange(0, 1, min_open=True),
    default=DEFAULT_WAIT_FACTOR,
    show_default=True,
    help="Multiply the waiting times of ec2uploadimg by this; 1 leaves them as they are.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Make the sandbox in this new directory, and leave it there.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def sandbox_command(
    session: Session, regions: tuple[str, ...], wait_factor: float, keep: Path | None, command: tuple[str, ...]
) -> int:
    """Run COMMAND, or a shell, in a private AWS on this machine.

    Everything an upload needs is there: an AWS account, a customer's role, an account (see `account`) of yours with
    that role, a helper instance that the real ec2uploadimg can log in to, an image, and a job in the spool. `upload`,
    `submit`, `serve` and `worker` need no settings. Nothing in there reaches a network. No root is needed, but user
    namespaces are. When COMMAND ends, all of it is removed, and its exit status is ours.
    """
    unknown = [region for region in regions if region not in REGIONS]
    if unknown:
        raise UsageError(f"no such region here: {', '.join(unknown)}", hint=f"Known are: {', '.join(REGIONS)}.")

    def announce(place: layout.Layout) -> None:
        described = json.loads(place.description.read_text())
        _make_account(place, described)
        if not session.is_quiet:
            click.echo(_introduction(place, described, is_shell=not command), err=True)

    os.environ["LOGNAME"] = login()  # in there, everybody without it is root
    cloud = AwsCloud(wait_factor=wait_factor, regions=tuple(dict.fromkeys(regions)))
    return host.run(cloud, command or host.default_command(), keep=keep, announce=announce)


def _make_account(place: layout.Layout, described: dict[str, Any]) -> None:
    """Make an account with the sandbox's role for the user who runs it, for `submit`."""
    from clouduploader.store import accounts

    values = {"external_id": described["external_id"], "arn": described["role_arn"]}
    book = accounts.AccountStore(place.home)
    book.create(login(), "ec2", values, now=datetime.datetime.now(datetime.UTC))


def _introduction(place: layout.Layout, described: dict[str, Any], *, is_shell: bool) -> str:
    factor = described["wait_factor"]
    waiting = (
        "the waiting times of ec2uploadimg are as always"
        if factor == 1
        else f"the waiting times of ec2uploadimg are multiplied by {factor:g}"
    )
    first = f"clouduploader: sandbox at {described['endpoint']}; nothing in it is real, and {waiting}"
    if not is_shell:
        return first
    return f"""{first}

  role          {described["role_arn"]}
  external id   {described["external_id"]}
  region        {described["region"]} (subnet {described["subnet_id"]})
  home          {described["home"]}, with an account of {login()}
  spool         {described["spool"]}, where job 1 waits
  all of it     {place.description}

Try the following: upload an image; have the service upload one, and job 1; do with job 1 what OBS does.
`aws` (from 2.13 on) and boto3 show you the account as a user who may see all.

  clouduploader upload --method ebs-direct --name my-image {place.sample}
  clouduploader list
  clouduploader serve 2>serve.log &
  clouduploader submit --wait --method ebs-direct --name my-other-image {place.sample}
  clouduploader sandbox-user ec2 {place.spool}/1.file {place.spool}/1.data {place.spool}/1.log
  aws ec2 describe-images --owners self

Leave it with `exit`; then all of it is removed."""
