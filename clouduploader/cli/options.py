"""Options that several commands share: the global ones, `--json` and `--server`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from clouduploader.cli.session import SERVER_VARIABLE, Session

Function = TypeVar("Function", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path, file_okay=False)

pass_session = click.make_pass_decorator(Session)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Note a global option; the one that stands nearest to the command's end wins."""
    if value and parameter.name:
        setattr(context.ensure_object(Session), parameter.name, value)


def _global(*names: str, **attributes: Any) -> click.Option:  # noqa: ANN401 as Click has it
    return click.Option(names, expose_value=False, callback=_remember, **attributes)


GLOBAL_OPTIONS = (
    _global("-v", "--verbose", "is_verbose", is_flag=True, help="Show details on stderr, for debugging."),
    _global("-q", "--quiet", "is_quiet", is_flag=True, help="Show only errors on stderr."),
    _global(
        "--home", type=DIRECTORY, metavar="DIR",
        help="Keys, credentials and settings.  "
        "[CLOUDUPLOADER_HOME; /etc/obs/cloudupload, or for a plain user ~/.config/clouduploader]",
    ),
    _global(
        "--spool",
        type=DIRECTORY,
        metavar="DIR",
        help="The jobs.  [CLOUDUPLOADER_SPOOL; /srv/obs/cloudupload, or for a plain user ~/.local/state/clouduploader]",
    ),
)  # fmt: skip
"""Taken before and after the name of every command; each sets the attribute of Session that bears its name.

Before OBS's operands they are read by cli/routing.py.
"""


def with_global_options(command: click.Command) -> click.Command:
    """Let a command, and those inside it, take the global options too."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_global_options(inner)
    command.params += [option for option in GLOBAL_OPTIONS if option not in command.params]
    return command


def json_option(function: Function) -> Function:
    """Give a command `--json`; the program's entry has looked for it already."""
    return click.option("--json", is_flag=True, expose_value=False, help="Answer with one JSON object.")(function)


def server_option(function: Function) -> Function:
    """Give a command `--server`."""

    def remember(context: click.Context, _parameter: click.Parameter, url: str | None) -> None:
        context.ensure_object(Session).server_url = url

    return click.option(
        "--server",
        metavar="URL",
        expose_value=False,
        callback=remember,
        help=f"Ask the server there, instead of the spool.  [{SERVER_VARIABLE}]",
    )(function)
