"""The options that stand for target data, and what else `upload` and `submit` have in common."""

import getpass
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from clouduploader import targetdata
from clouduploader.errors import UsageError
from clouduploader.platform import JsonValue
from clouduploader.runner import read_targetdata

Function = TypeVar("Function", bound=Callable[..., Any])

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


OPTIONS = (
    click.option("--target", default="ec2", show_default=True, help="The platform; see `clouduploader platforms`."),
    click.option("--region", help="The cloud's region, for example eu-west-1."),
    click.option("--name", help="Name of the new image in the cloud."),
    click.option("--description", metavar="TEXT", help="A sentence about it, for people."),
    click.option("--tag", multiple=True, callback=_tags, metavar="NAME=VALUE", help="A tag of it; may be repeated."),
    click.option("--architecture", metavar="[x86_64|arm64|i386]", help="What it runs on.  [what the image tells]"),
    click.option(
        "--boot-mode", metavar="[legacy-bios|uefi|uefi-preferred]", help="How it boots.  [what the image tells]"
    ),
    click.option("--method", metavar="[ec2uploadimg|ebs-direct|auto]", help="How it gets there.  [clouduploader.conf]"),
    click.option("--sha256", metavar="DIGEST", help="The SHA-256 that IMAGE must have.  [what IMAGE.sha256 says]"),
    click.option(
        "--zero-blocks", metavar="[send|holes|skip]", help="Which zeros are left out: of ebs-direct.  [holes]"
    ),
    click.option("--verify", metavar="[none|sample|full]", help="How much is read back: of ebs-direct.  [sample]"),
    click.option("--encrypt", is_flag=True, default=None, help="Encrypt it: of ebs-direct."),
    click.option("--kms-key", metavar="KEY", help="The KMS key to encrypt it with.  [the account's default]"),
    click.option("--keep", metavar="[nothing|snapshot]", help="What a failure leaves for another try.  [nothing]"),
    click.option("--force", is_flag=True, default=None, help="Go on even if IMAGE is not what is said of it."),
    click.option("--copy-to", multiple=True, callback=_lists, metavar="REGION", help="Copy it there; may be repeated."),
    click.option(
        "--share",
        multiple=True,
        callback=_lists,
        metavar="WHO",
        help="Share it: account, ARN of an organization, public.",
    ),
    click.option("--deprecate-at", metavar="DATE", help="From when on it is deprecated, for example 2027-01-31."),
    click.option("--subnet", help="Subnet for the helper instance. Without it a VPC is made and removed again."),
    click.option("--data", type=click.Path(path_type=Path), help="A JSON file with target data; the options go first."),
    click.option("--user", help="Whose job it is.  [your login]"),
)
"""In the order of the help."""


def options(function: Function) -> Function:
    """Give a command OPTIONS."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def login() -> str:
    """Whose job it is if nobody says."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f"uid {os.getuid()}"


def gathered(path: Path | None, options: Mapping[str, JsonValue]) -> bytes:
    """The target data of a file, with those of the options on top.

    Args:
        path: The file, or None.
        options: What the command got for options of KEYS.

    Raises:
        UsageError: The file is encrypted as a whole, and there are options.
        TargetDataError: It is no JSON object.
        MissingFileError, LocalIOError: It can't be read.
    """
    given = {KEYS[name]: value for name, value in options.items() if value not in (None, [], {})}
    if path is None:
        return json.dumps(given).encode()
    data = read_targetdata(path)
    if not given:
        return data
    if targetdata.is_armored(data.decode("utf-8", "replace")):
        raise UsageError(f"{path} is encrypted as a whole, so options can't add to it")
    return json.dumps({**targetdata.parse(data), **given}).encode()
