"""`clouduploader sandbox`: a private cloud on this machine."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from clouduploader.cli import completion
from clouduploader.cli.options import login, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import UsageError
from clouduploader.sandbox import host, layout
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.registry import CLOUDS, DEFAULT_CLOUD

HELP = """Run COMMAND, or a shell, in a private cloud on this machine.

Everything an upload needs is there: the cloud, an account (see `account`) of yours in it, an image, and a job in the
spool. `upload`, `submit`, `serve` and `worker` need no settings. Nothing in there reaches a network. No root is needed,
but user namespaces are. When COMMAND ends, all of it is removed, and its exit status is ours.

The clouds:
"""


def _options() -> list[click.Parameter]:
    """Make the options that stand for the fields of the clouds."""
    found: list[click.Parameter] = []
    for cloud in CLOUDS.values():
        for field in dataclasses.fields(cloud):  # type: ignore[arg-type] # those that are not abstract are dataclasses
            meaning = field.metadata["option"]
            option = click.Option(
                [meaning.name, f"{cloud.target}_{field.name}"],
                multiple=isinstance(field.default, tuple),
                default=field.default,
                show_default=True,
                metavar=meaning.metavar,
                shell_complete=completion.among(meaning.choices),
                help=f"{cloud.target}: {meaning.help}",
            )
            found.append(option)
    return found


def _chosen(target: str, options: Mapping[str, object]) -> SandboxCloud:
    """Make the cloud of its own options.

    Raises:
        UsageError: An option is another cloud's.
    """
    context = click.get_current_context()
    prefix = f"{target}_"
    for option in context.command.params:
        is_given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if option.name in options and is_given and not option.name.startswith(prefix):
            raise UsageError(f"{option.opts[0]} is not for the cloud '{target}'", hint="See `sandbox --help`.")
    own = {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}
    return CLOUDS[target](**own)


_CLOUD = click.Option(
    ["--cloud", "target"],
    type=click.Choice(list(CLOUDS)),
    default=DEFAULT_CLOUD.target,
    show_default=True,
    help="Which cloud it is.",
)


@click.command(
    "sandbox",
    params=[_CLOUD, *_options()],
    help=HELP + "".join(f"\n{target}: {cloud.contents}.\n" for target, cloud in CLOUDS.items()),
    context_settings={"allow_interspersed_args": False},
)
@click.option("--install", "is_installation", is_flag=True, help="Install what the cloud needs, and end.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Make the sandbox in this new directory, and leave it there.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def sandbox_command(
    session: Session,
    /,
    *,
    target: str,
    is_installation: bool,
    keep: Path | None,
    command: tuple[str, ...],
    **options: object,
) -> int:
    """Make the cloud, and run the command in it; see HELP."""
    from clouduploader.sandbox import user_account  # the store and the platforms are for the command alone

    cloud = _chosen(target, options)

    def say(line: str) -> None:
        if not session.is_quiet:
            click.echo(f"clouduploader: {line}", err=True)

    def announce(place: layout.Layout) -> None:
        described = json.loads(place.description.read_text())
        user_account.create(cloud, place, login())
        if not session.is_quiet:
            click.echo(_introduction(cloud, place, described, is_shell=not command), err=True)

    if is_installation:
        host.prepare(cloud, say)
        return 0
    os.environ["LOGNAME"] = login()  # in there, everybody without it is root
    return host.run(cloud, command or host.default_command(), keep=keep, say=say, announce=announce)


def _introduction(cloud: SandboxCloud, place: layout.Layout, described: Mapping[str, Any], *, is_shell: bool) -> str:
    first = f"clouduploader: sandbox at {cloud.headline(described)}"
    if not is_shell:
        return first
    facts = {
        **cloud.facts(described),
        "home": f"{place.home}, with an account of {login()}",
        "spool": f"{place.spool}, where job 1 waits",
        "all of it": place.description,
    }
    width = max(map(len, facts))
    return "\n".join(
        [
            first,
            "",
            *(f"  {name:{width}} {fact}" for name, fact in facts.items()),
            "",
            cloud.advice,
            "",
            *(f"  {line}" for line in cloud.examples(place)),
            "",
            "Leave it with `exit`; then all of it is removed.",
        ]
    )
