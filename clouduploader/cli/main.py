"""The program's entry, and its one error boundary: nothing below it prints or exits."""

import importlib
import io
import itertools
import os
import resource
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click

import clouduploader
from clouduploader.cli import boundary, examples, output, routing
from clouduploader.cli.parsing import GLOBAL_OPTIONS, CommandGroup, with_global_options
from clouduploader.cli.session import Session
from clouduploader.errors import ClouduploaderError, ExitCode, LocalIOError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

COMMANDS = {
    "account": "account",
    "check": "check",
    "cleanup": "cleanup",
    "contract": "obs_call",
    "encrypt": "keys",
    "image": "image",
    "inspect": "jobs",
    "keygen": "keys",
    "kill": "jobs",
    "list": "jobs",
    "log": "jobs",
    "platforms": "platforms",
    "pubkey": "keys",
    "resume": "resume",
    "retry": "retry",
    "sandbox": "sandbox",
    "serve": "serve",
    "submit": "submit",
    "upload": "upload",
    "worker": "worker",
}
"""Each subcommand and its module in this package, where it is called `NAME_command`."""

STACK_WORDS = 16_384  # of 8 bytes, which are only reserved; as many are left in its chunk, for some 500 frames


class LazyGroup(CommandGroup):
    """A group that imports a subcommand's module only when that subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands in the order of the alphabet."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand, or return None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"clouduploader.cli.{COMMANDS[cmd_name]}")
        command = with_global_options(getattr(module, f"{cmd_name}_command"))
        command.epilog = examples.epilog(cmd_name)
        return command


@click.version_option(clouduploader.__version__, message="%(prog)s %(version)s")
@click.group(
    cls=LazyGroup,
    params=list(GLOBAL_OPTIONS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="OBS calls `clouduploader [OPTIONS] USER TARGET UPLOAD_FILE TARGETDATA LOGFILE`, or with "
    "`FILENAME RESULT_FILE` in place of LOGFILE: five or six operands, the third and fourth absolute "
    "paths.",
)
def clouduploader_command() -> None:
    """Turn a disk image from a build service into a bootable image in a cloud account."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The command line without the program's name; None for this process's own.

    Returns:
        The exit code, see ExitCode.
    """
    _open_streams()
    _keep_to_ourselves()
    session = Session()
    words = routing.route(sys.argv[1:] if arguments is None else arguments)
    # Known before Click parses, so that its own complaints are JSON as well.
    session.is_json = "--json" in itertools.takewhile(lambda word: word != "--", words)
    try:
        answer = clouduploader_command.main(args=words, prog_name="clouduploader", standalone_mode=False, obj=session)
    except SystemExit as exc:
        if exc.code != 1:  # with 1 Click answers a closed pipe, with all else a shell that completes
            raise
        _drop_output()
        return ExitCode.PIPE_CLOSED
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.ctx.get_help() if exc.ctx else exc.message, err=True)
        return ExitCode.USAGE
    except click.Abort:
        click.echo("clouduploader: stopped", err=True)
        return ExitCode.INTERRUPTED
    except Exception as exc:  # noqa: BLE001 the boundary: whatever it is, a person gets one line
        error = boundary.as_ours(exc)
        try:
            _report(session, error, exc)
            sys.stdout.flush()  # what is left of an answer that could not be written
        except (OSError, LocalIOError):  # a full disk
            _drop_output()
            if session.is_json:
                _tell(error)
        return int(error.exit_code)
    return answer if isinstance(answer, int) else ExitCode.OK


# CPython has its frames in chunks of 16 KiB, and gives the last one back when it is empty: a loop that calls across
# the end of one makes two system calls each time, thousands while urllib3 compiles its regular expressions. A frame
# that asks for more than a chunk gets a larger one, in which there is room for all that is called from it.
main.__code__ = main.__code__.replace(co_stacksize=STACK_WORDS)


def _open_streams() -> None:
    """Let what the caller closed of standard input, output and error lead nowhere.

    Otherwise the next file that is opened gets that number, and what is meant for a terminal gets into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 as long as the process lives
    # "is": else somebody has put something of his own there.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(_StandardOutput(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_StandardError(2, "w", closefd=False), sys.stderr)


def _stream(raw: io.FileIO, former: TextIO | None) -> io.TextIOWrapper:
    """A text stream in the place of the interpreter's own; a name that its encoding can't show is no error."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=former.encoding if former else None,
        errors="backslashreplace",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )


class _StandardOutput(io.FileIO):
    """Gives the answer; if it can't, the error says which file it was."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # nobody is told of that one
        except OSError as exc:
            raise LocalIOError(f"can't write to standard output: {exc.strerror}") from exc


class _StandardError(io.FileIO):
    """Tells a person how it goes; if it can't, it goes on all the same."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _keep_to_ourselves() -> None:
    """Leave no core file, in which keys would be; and let no umask lock us out of what we make."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(os.umask(0o077) & 0o077)


def _drop_output() -> None:
    """Send what is still in the buffer of standard output nowhere: the interpreter would fail once more with it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _report(session: Session, error: ClouduploaderError, cause: Exception) -> None:
    """Print an error as one line with its hint, or as JSON."""
    if session.is_verbose and error is not cause and not isinstance(cause, click.ClickException):
        lines = "".join(traceback.format_exception(cause)).splitlines()
        click.echo("\n".join(map(output.clean, lines)), err=True)
    if session.is_json:
        click.echo(output.envelope(session, data=None, error=error, exit_code=int(error.exit_code)))
    else:
        _tell(error)


def _tell(error: ClouduploaderError) -> None:
    """Print an error as one line with its hint."""
    click.echo(f"clouduploader: {output.clean(error.sentence())}", err=True)
