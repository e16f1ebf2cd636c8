"""Commands whose options stand for the target data of the platform that `--target` names."""

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from clouduploader.cli import completion, parsing
from clouduploader.errors import ClouduploaderError, LocalIOError, MissingFileError, UsageError
from clouduploader.platforms import DEFAULT_TARGET
from clouduploader.plugin import Field, FieldKind, Platform
from clouduploader.uploads import registry
from clouduploader.util import masking

Takes = Callable[[Platform, Field], bool]

REGION = "region"  # the field that names a place of the cloud, as CloudObject has it

_OPTIONS = f"{__name__}.options"  # in the context's meta: the options that were made for its command line


class FieldOption(click.Option):
    """An option that stands for a field.

    Args:
        field: The field. Its value is checked by the platform's rules later, so that all mistakes are reported at once.
        is_repeatable: Whether it takes several values of a field that has one.
        default_text: What holds without it.
    """

    def __init__(self, field: Field, *, is_repeatable: bool, default_text: str) -> None:
        self.field = field
        attributes: dict[str, Any] = {}
        name = field.option or field.option_name()
        text = (field.help or field.description).removesuffix(".")
        if field.is_secret:
            attributes = {"type": click.Path(path_type=Path, allow_dash=True), "callback": _read_secret}
            attributes["metavar"] = "FILE"
            text += f": from FILE, or standard input for -; of at least {field.least_length} characters"
        elif field.kind is FieldKind.BOOLEAN:
            attributes = {"is_flag": True, "default": None}
        elif field.kind is FieldKind.INTEGER:
            attributes = {"type": click.INT}
        elif field.kind is FieldKind.OBJECT:
            attributes = {"multiple": True, "callback": _pairs, "metavar": "NAME=VALUE"}
        elif field.kind is FieldKind.ARRAY:
            attributes = {"multiple": True, "callback": _words}
        elif is_repeatable:
            attributes = {"multiple": True, "callback": _list}
            text += "; may be repeated"
        metavar = field.metavar or (f"[{'|'.join(field.allowed)}]" if field.allowed else None)
        if metavar and "metavar" not in attributes:
            attributes["metavar"] = metavar
        bracket = f"  [{default_text}]" if default_text else ""
        super().__init__(
            [name, f"field_{field.name}"],
            help=f"{text}.{bracket}",
            shell_complete=None if field.is_secret else completion.field(field.name),  # a file's name by its type
            **attributes,
        )


class TargetCommand(click.Command):
    """A command with an option for each field of the platform that `--target` names.

    Its function gets the values as `given`: a mapping of those that were given by the names of the fields.

    Args:
        takes: Which fields have an option; those that have none by themselves never do.
        repeatable: Names of fields that have one value, of which the command takes several: a list.
        account_text: What holds where a field of the user's account is not given; the field's own text if None.
        needs_target: Whether there must be a platform for the target, by the words of the command line.
        arguments: See click.Command.
    """

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 as Click has it
        takes: Takes = lambda _platform, _field: True,
        repeatable: Sequence[str] = (),
        account_text: str | None = None,
        needs_target: Callable[[Sequence[str]], bool] = lambda _words: True,
        **attributes: Any,  # noqa: ANN401 as Click has it
    ) -> None:
        super().__init__(*arguments, **attributes)
        self._takes = takes
        self._repeatable = repeatable
        self._account_text = account_text
        self._needs_target = needs_target

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find out the target, make its options, and gather what is given for its fields.

        Raises:
            UnknownTargetError: No platform answers to the target.
            PluginLoadError: Its platform can't be loaded.
        """
        target = ctx.meta[parsing.TARGET] = _named_target(args)
        try:
            ctx.meta[_OPTIONS] = self.field_options(target)
        except ClouduploaderError:
            is_completing = ctx.resilient_parsing
            if not is_completing and self._needs_target(args):
                raise
            ctx.meta[_OPTIONS] = []
        rest = super().parse_args(ctx, args)
        values = {option.field.name: ctx.params.pop(str(option.name), None) for option in ctx.meta[_OPTIONS]}
        ctx.params["given"] = {name: value for name, value in values.items() if value not in (None, (), [], {})}
        return rest

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """List the parameters: arguments, target, fields, and the rest."""
        found = super().get_params(ctx)
        options = ctx.meta[_OPTIONS] if _OPTIONS in ctx.meta else self.field_options(DEFAULT_TARGET)
        place = next(index for index, parameter in enumerate(found) if parameter.name == "target") + 1
        return [*found[:place], *options, *found[place:]]

    def field_options(self, target: str) -> list[FieldOption]:
        """Make the options of a target, those that are needed first.

        Raises:
            ClouduploaderError: Its platform can't be loaded.
        """
        platform = registry.load_without_settings(target)
        taken = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        fields = [
            field
            for field in platform.fields
            if field.option_name() and field.option_name() not in taken and self._takes(platform, field)
        ]
        fields.sort(key=lambda field: (not field.is_required, field.is_of_account))
        return [
            FieldOption(
                field,
                is_repeatable=field.name in self._repeatable,
                default_text=(self._account_text if field.is_of_account else None) or field.default_text,
            )
            for field in fields
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, which have options of the default target: not in the help of another."""
        if ctx.meta.get(parsing.TARGET, DEFAULT_TARGET) == DEFAULT_TARGET:
            super().format_epilog(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the target behind those of the command itself."""
        own: list[tuple[str, str]] = []
        fields: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                (fields if isinstance(parameter, FieldOption) else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        target = ctx.meta.get(parsing.TARGET, DEFAULT_TARGET)
        if fields:
            with formatter.section(f"Options of the target {target} (`--target T --help` shows those of T)"):
                formatter.write_dl(fields)


def _named_target(words: Sequence[str]) -> str:
    """Find what `--target` says, before the options are known that it has."""
    front = list(itertools.takewhile(lambda word: word != "--", words))
    found = DEFAULT_TARGET
    for word, following in itertools.zip_longest(front, front[1:]):
        if word == "--target" and following is not None:
            found = following
        elif word.startswith("--target="):
            found = word.partition("=")[2]
    return found


def _pairs(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise click.BadParameter(f"'{word}' is not of the form NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _words(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[str]:
    return [item.strip() for word in words for item in word.split(",")]


def _list(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[str]:
    return list(words)


def _read_secret(context: click.Context, parameter: click.Parameter, path: Path | None) -> str | None:
    """Read a secret, which must not be on a command line, from a file; one line end at the end is cut off."""
    if path is None or context.resilient_parsing:
        return None
    option = max(parameter.opts, key=len)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except FileNotFoundError as exc:
        raise MissingFileError(f"{option}: there is no {path}") from exc
    except OSError as exc:
        raise LocalIOError(f"{option}: {path} can't be read: {exc.strerror}") from exc
    try:
        secret = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        pass  # raised out here, for that exception carries the value
    else:
        masking.hide(secret)
        return secret
    raise UsageError(f"{option}: {path} is not UTF-8")
