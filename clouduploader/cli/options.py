"""Options and arguments that several commands share."""

import datetime
import getpass
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from clouduploader.cli.session import CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, SERVER_VARIABLE, Session
from clouduploader.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([0-9]{1,6})([smhdw]?)")
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)  # RFC 3986, 3.1

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


def _remember_here(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Note an option that a command takes behind its name only."""
    setattr(context.ensure_object(Session), parameter.name or "", value)


def tls_options(function: Function) -> Function:
    """Give a command that asks a server `--ca`, `--cert` and `--key`."""
    for name, text in (
        ("--key", f"The key of --cert.  [{KEY_VARIABLE}; in the same file]"),
        ("--cert", f"A certificate for a server that asks for one, in PEM.  [{CERT_VARIABLE}]"),
        (
            "--ca",
            f"The authorities of the server's certificate, in PEM.  [{CA_VARIABLE}; those that this machine trusts]",
        ),
    ):
        function = click.option(
            name, type=FILE, metavar="FILE", expose_value=False, callback=_remember_here, help=text
        )(function)
    return function


def server_option(function: Function) -> Function:
    """Give a command `--server`, and `--ca`, `--cert` and `--key` for it."""
    return click.option(
        "--server",
        "server_url",
        metavar="URL",
        expose_value=False,
        callback=_remember_here,
        help=f"Ask the server there, or at unix:PATH, instead of the spool.  [{SERVER_VARIABLE}]",
    )(tls_options(function))


data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="A JSON file with target data; the options go first."
)
user_option = click.option("--user", help="Whose job it is.  [your login]")


def read_span(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime.timedelta | None:
    """Read a span of time, a number with a unit; the callback of an option."""
    if value is None:
        return None
    found = _SPAN.fullmatch(value)
    if not found:
        raise click.BadParameter(f"'{value}' is no span of time such as 90m, 12h or 2d", context, parameter)
    return datetime.timedelta(**{_UNITS[found[2] or "s"]: int(found[1])})


def login() -> str:
    """Return the login of this process's user, whose job it is without `--user`."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a container
        return f"uid {os.getuid()}"


class ImageFile(click.Path):
    """The path of an image."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Take a path.

        Raises:
            UsageError: It is a URL.
        """
        if URL.match(str(value)):
            raise UsageError(
                f"{value} is a URL, and images are not downloaded",
                hint="Download it, for example with `curl -LO URL`, and give the path of the file.",
            )
        return super().convert(value, param, ctx)
