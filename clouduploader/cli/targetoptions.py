"""The options that stand for target data, and what else `upload` and `submit` have in common."""

import dataclasses
import getpass
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from clouduploader.cli import completion, parsing
from clouduploader.errors import TargetDataError, UsageError
from clouduploader.plugin import FieldKind, JsonValue, Platform
from clouduploader.plugin.fields import is_allowed, problem
from clouduploader.store import target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)  # RFC 3986, 3.1
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
    "share_snapshot": "share_snapshot",
    "imds": "imds_support",
    "deprecate_at": "deprecate_at",
    "arn": "arn",
    "external_id": "external_id",
    "subnet": "vpc_subnet_id",
}
"""The options that stand for keys of the target data. What is a right value is said by the platform's fields."""
OPTION_NAMES = {key: f"--{name.replace('_', '-')}" for name, key in KEYS.items()}


class ImageFile(click.Path):
    """The path of an image."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Take a path, and nothing that somebody takes for one.

        Raises:
            UsageError: It is a URL.
        """
        if URL.match(str(value)):
            raise UsageError(
                f"{value} is a URL, and images are not downloaded",
                hint="Download it, for example with `curl -LO URL`, and give the path of the file.",
            )
        return super().convert(value, param, ctx)


def _tags(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise click.BadParameter(f"'{word}' is not of the form NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _lists(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[str]:
    return [item.strip() for word in words for item in word.split(",")]


def _option(name: str, *names: str, **attributes: Any) -> Callable[[Function], Function]:  # noqa: ANN401 as Click has it
    """An option; one that stands for a key of the target data completes the values that the platform knows."""
    key = KEYS.get(name.partition("/")[0].removeprefix("--").replace("-", "_"))
    if key:
        attributes["shell_complete"] = completion.field(key)
    return click.option(name, *names, **attributes)


OPTIONS = (
    completion.target_option,
    _option("--region", help="The cloud's region, for example eu-west-1."),
    _option("--name", help="Name of the new image in the cloud."),
    _option("--description", metavar="TEXT", help="A sentence about it, for people."),
    _option("--tag", multiple=True, callback=_tags, metavar="NAME=VALUE", help="A tag of it; may be repeated."),
    _option("--architecture", metavar="[x86_64|arm64|i386]", help="What it runs on.  [what the image tells]"),
    _option("--boot-mode", metavar="[legacy-bios|uefi|uefi-preferred]", help="How it boots.  [what the image tells]"),
    _option(
        "--imds", metavar="[2.0|v2.0|optional]", help="Which metadata service its instances demand, for ever.  [2.0]"
    ),
    _option("--method", metavar="[ec2uploadimg|ebs-direct|auto]", help="How it gets there.  [clouduploader.conf]"),
    _option("--sha256", metavar="DIGEST", help="The SHA-256 that IMAGE must have.  [what IMAGE.sha256 says]"),
    _option("--zero-blocks", metavar="[send|holes|skip]", help="Which zeros are left out: of ebs-direct.  [holes]"),
    _option("--verify", metavar="[none|sample|full]", help="How much is read back: of ebs-direct.  [sample]"),
    _option("--encrypt", is_flag=True, default=None, help="Encrypt it: of ebs-direct."),
    _option("--kms-key", metavar="KEY", help="The KMS key to encrypt it with.  [the account's default]"),
    _option("--keep", metavar="[nothing|snapshot]", help="What a failure leaves for another try.  [nothing]"),
    _option("--force", is_flag=True, default=None, help="Go on even if IMAGE is not what is said of it."),
    _option("--copy-to", multiple=True, callback=_lists, metavar="REGION", help="Copy it there, or to all regions."),
    _option(
        "--share",
        multiple=True,
        callback=_lists,
        metavar="WHO",
        help="Share it: account, ARN of an organization, public.",
    ),
    _option(
        "--share-snapshot/--no-share-snapshot",
        default=None,
        help="Whether those can copy it too.  [accounts, where the role lets us]",
    ),
    _option("--deprecate-at", metavar="DATE", help="From when on it is deprecated, for example 2027-01-31."),
    _option("--subnet", help="Subnet for the helper instance. Without it a VPC is made and removed again."),
    _option("--data", type=click.Path(path_type=Path), help="A JSON file with target data; the options go first."),
    _option("--user", help="Whose job it is.  [your login]"),
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


def gathered(config: Config, target: str, path: Path | None, options: Mapping[str, JsonValue]) -> bytes:
    """The target data of a file, with those of the options on top, and what only the person's environment tells.

    Args:
        config: See Config.
        target: Names the platform.
        path: The file, or None.
        options: What the command got for options of KEYS.

    Raises:
        UsageError: An option is missing, or of another target; or there are options, but the file is encrypted as a
            whole.
        TargetDataError: An option has a wrong value, or the file holds no JSON object.
        MissingFileError, LocalIOError: It can't be read.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    platform = registry.load(target, config)
    given = {KEYS[name]: value for name, value in options.items() if value not in (None, [], {})}
    known = {field.name for field in platform.fields}
    misplaced = [f"{OPTION_NAMES[key]} means nothing for the target {target}" for key in given if key not in known]
    problems = _problems(platform, given)
    document: dict[str, JsonValue] = {}
    if path is not None:
        data = target_data.read_file(path)
        if target_data.is_armored(data.decode("utf-8", "replace")):
            if given:
                raise UsageError(f"{path} is encrypted as a whole, so options can't add to it")
            return data
        try:
            document = target_data.parse(data)
        except TargetDataError as exc:
            raise TargetDataError(f"{path}: {exc.message}", hint=exc.hint) from None
    document = {**document, **given}
    for field in platform.fields:
        if field.is_required and field.name in OPTION_NAMES and not document.get(field.name):
            found = parsing.hints(platform).default(field.name)
            if found:
                document[field.name] = found
            else:
                misplaced.append(f"{OPTION_NAMES[field.name]} is missing")
    if misplaced:
        raise UsageError("; ".join([*misplaced, *problems]))
    if path is None and not problems:
        problems = [_with_option_name(text) for text in platform.problems(document)]
    if problems:
        raise TargetDataError("; ".join(problems))
    return json.dumps(document).encode()


def novel_regions(config: Config, target: str, region: JsonValue, copies: JsonValue) -> list[str]:
    """What is to be said of regions that the platform's software does not know: new ones or misspelt ones.

    Args:
        config: See Config.
        target: Names the platform.
        region: What target data or options say, right or wrong; or None.
        copies: The same of the regions for copies.

    Raises:
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    known = parsing.choices(registry.load(target, config), "region")
    named = [("--region", region), *(("--copy-to", word) for word in (copies if isinstance(copies, list) else []))]
    found = []
    for option, word in named:
        if known and isinstance(word, str) and word not in ("all", *known):
            near = parsing.nearest(word, known)
            found.append(
                f'{option} is "{word}", a region not known here' + (f" (did you mean {near}?)" if near else "")
            )
    return found


def is_novel(config: Config, target: str, data: bytes) -> bool:
    """Whether target data, as of `gathered`, name such regions; what is encrypted as a whole is not looked into.

    Raises:
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    if target_data.is_armored(data.decode("utf-8", "replace")):
        return False
    document = target_data.parse(data)
    return bool(novel_regions(config, target, document.get("region"), document.get("regions")))


def check_given(config: Config, target: str, options: Mapping[str, JsonValue]) -> None:
    """Look whether what options say by themselves is right, for a command that takes some of KEYS.

    Args:
        config: See Config.
        target: Names the platform.
        options: By the names of KEYS; None for those that were not given.

    Raises:
        TargetDataError: A value is wrong.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    given = {KEYS[name]: value for name, value in options.items() if value is not None}
    problems = _problems(registry.load(target, config), given)
    if problems:
        raise TargetDataError("; ".join(problems))


def with_method(config: Config, target: str, method: str) -> Config:
    """The settings with another `method` in the section of a platform.

    Raises:
        UsageError: The platform has only one.
        TargetDataError: It has no such method.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    platform = registry.load(target, config)
    if not any(field.name == "method" for field in platform.fields):
        raise UsageError(f"--method means nothing for the target {target}")
    for wrong in _problems(platform, {"method": method}):
        raise TargetDataError(wrong)
    section = {**config.platforms.get(target, {}), "method": method}
    return dataclasses.replace(config, platforms={**config.platforms, target: section})


def _problems(platform: Platform, given: Mapping[str, JsonValue]) -> list[str]:
    """What is wrong with the options by themselves, and what may have been meant."""
    fields = {field.name: field for field in platform.fields}
    problems = []
    for key, value in given.items():
        name, field = OPTION_NAMES[key], fields.get(key)
        if field is None:
            continue
        is_list = field.kind is FieldKind.ARRAY
        one = dataclasses.replace(field, name=name, kind=FieldKind.STRING if is_list else field.kind)
        for word in value if isinstance(value, list) else [value]:
            if not is_allowed(one, word):
                near = parsing.nearest(str(word), parsing.choices(platform, key))
                meant = f" (did you mean {near}?)" if near else ""
                problems.append(problem(one, word, is_hidden=field.is_secret) + meant)
    return problems


def _with_option_name(problem: str) -> str:
    """What a platform says of a field, in the words of the command line."""
    key, _, rest = problem.partition(" ")
    return f"{OPTION_NAMES.get(key, key)} {rest}"
