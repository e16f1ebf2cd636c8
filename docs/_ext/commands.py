"""The commands with their options and examples, as Click has them."""

import re
from collections.abc import Iterable, Iterator

import click
import rst

from clouduploader.cli.options import GLOBAL_OPTIONS
from clouduploader.cli.program import clouduploader_command
from clouduploader.cli.target_command import FieldOption, TargetCommand
from clouduploader.platforms import BUILT_INS

ROOT = click.Context(clouduploader_command, info_name="clouduploader", **clouduploader_command.context_settings)


def program() -> Iterator[str]:
    """Describe what stands before the name of a command."""
    yield from _described(clouduploader_command, ROOT)


def command(name: str) -> Iterator[str]:
    """Describe one command, and those inside it."""
    found = clouduploader_command.get_command(ROOT, name)
    if found is None:
        raise LookupError(f"there is no command {name}")
    context = click.Context(found, parent=ROOT, info_name=name)
    yield from _described(found, context)
    if isinstance(found, click.Group):
        for inner, one in sorted(found.commands.items()):
            yield from rst.section(f"{name} {inner}")
            yield from _described(one, click.Context(one, parent=context, info_name=inner))


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from rst.block(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    yield from _paragraphs(command.help or "")
    yield f".. program:: {context.command_path}"
    yield ""
    shared = [*GLOBAL_OPTIONS, command.get_help_option(context)] if context.parent else []
    parameters = command.get_params(context)
    yield from _options((one for one in parameters if one not in shared and not isinstance(one, FieldOption)), context)
    if shared:
        yield from ("Besides these it takes the :ref:`options of all commands <global-options>`.", "")
    if isinstance(command, TargetCommand):
        for target in BUILT_INS:
            if options := command.field_options(target):
                yield from (f".. rubric:: Options of the target {target}", "")
                yield from ("They stand for keys of the :doc:`target data </reference/target-data>`.", "")
                yield from _options(options, context)
    yield from _paragraphs(command.epilog or "", language="sh")


def _options(parameters: Iterable[click.Parameter], context: click.Context) -> Iterator[str]:
    for parameter in parameters:
        names, meaning = parameter.get_help_record(context) or ("", "")
        if meaning:
            more = " See :doc:`/reference/json`." if parameter.name == "json" else ""
            yield from (f".. option:: {names.replace(' / ', ', ')}", "", f"   {rst.inline(meaning)}{more}", "")


def _paragraphs(text: str, language: str = "text") -> Iterator[str]:
    """Yield paragraphs as Click understands them: one that begins with a backspace keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.partition("\f")[0].strip("\n")):
        first, _, rest = paragraph.partition("\n")
        yield from rst.block(rest, language) if first.strip() == "\b" else (rst.inline(paragraph), "")
