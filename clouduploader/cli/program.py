"""The commands as Click knows them, and what becomes of Click's own ways to end."""

import importlib
import itertools
from collections.abc import Sequence

import click

import clouduploader
from clouduploader.cli import examples
from clouduploader.cli.options import GLOBAL_OPTIONS, with_global_options
from clouduploader.cli.parsing import CommandGroup, as_usage_error
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode

COMMANDS = (
    "account",
    "check",
    "cleanup",
    "cluster",
    "encrypt",
    "image",
    "inspect",
    "keygen",
    "kill",
    "list",
    "log",
    "platforms",
    "pubkey",
    "resume",
    "retry",
    "sandbox",
    "serve",
    "submit",
    "token",
    "upload",
    "worker",
)
"""The subcommands. Each has the module of its name in this package, where it is called `NAME_command`."""


class LazyGroup(CommandGroup):
    """A group that imports a subcommand's module only when that subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand, or return None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"clouduploader.cli.{cmd_name}")
        command = with_global_options(getattr(module, f"{cmd_name}_command"))
        command.epilog = examples.epilog(cmd_name)
        return command


@click.version_option(clouduploader.__version__, message="%(prog)s %(version)s")
@click.group(
    cls=LazyGroup,
    params=list(GLOBAL_OPTIONS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="OBS calls `clouduploader [OPTIONS] USER TARGET UPLOAD_FILE TARGETDATA FILENAME RESULT_FILE`, or with "
    "`LOGFILE` in place of the last two: six or five operands, the third and fourth absolute paths.",
)
def clouduploader_command() -> None:
    """Turn a disk image from a build service into a bootable image in a cloud account."""


def run(session: Session, words: Sequence[str]) -> int:
    """Run a command of the command line.

    Args:
        session: Gets what the global options say.
        words: The command line without the program's name.

    Returns:
        The exit code.

    Raises:
        UsageError: The words are wrong.
        BrokenPipeError: The reader of the output went away.
        KeyboardInterrupt: Ctrl-C, or a question was answered with no.
        Exception: What the command raised.
    """
    # Known before Click parses, so that its own complaints are JSON as well.
    session.is_json = "--json" in itertools.takewhile(lambda word: word != "--", words)
    try:
        answer = clouduploader_command.main(
            args=list(words), prog_name="clouduploader", standalone_mode=False, obj=session
        )
    except SystemExit as exc:
        if exc.code != 1:  # with 1 Click answers a closed pipe, with all else a shell that completes
            raise
        raise BrokenPipeError from None
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.ctx.get_help() if exc.ctx else exc.message, err=True)
        return ExitCode.USAGE
    except click.ClickException as exc:
        raise as_usage_error(exc) from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return answer if isinstance(answer, int) else ExitCode.OK
