"""The program's entry, and the error boundary of the command line: nothing below it prints an error or exits.

OBS's call is run without Click, whose import takes a tenth of the time until the first request to the cloud.
"""

import contextlib
import io
import os
import resource
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

from clouduploader.cli import boundary, collector, routing
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode, LocalIOError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Main = TypeVar("Main", bound=Callable[..., int])

STACK_WORDS = 16_384  # of 8 bytes, which are only reserved; as many are left in its chunk, for some 500 frames


def _in_large_chunk(function: Main) -> Main:
    """Let the frames of all that a function calls lie in one chunk of the interpreter's.

    CPython has frames in chunks of 16 KiB, and gives the last one back when it is empty: a loop that calls across the
    end of one makes two system calls each time, thousands while urllib3 compiles its regular expressions. A frame that
    asks for more than a chunk gets a larger one.
    """
    function.__code__ = function.__code__.replace(co_stacksize=STACK_WORDS)
    return function


@_in_large_chunk
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The command line without the program's name; None for this process's own.

    Returns:
        The exit code, see ExitCode.
    """
    collector.collect_rarely()
    _open_streams()
    _protect_process()
    words = sys.argv[1:] if arguments is None else list(arguments)
    session = Session()
    try:
        start = routing.obs_call_start(words)
        if start is not None:
            from clouduploader.cli import obs_call

            routing.set_options(session, words[:start])
            return obs_call.run(session, words[start:])
        from clouduploader.cli import program

        return program.run(session, words)
    except BrokenPipeError:
        _drop_output()
        return ExitCode.PIPE_CLOSED
    except KeyboardInterrupt:
        boundary.tell("clouduploader: stopped")
        return ExitCode.INTERRUPTED
    except Exception as exc:  # noqa: BLE001 the boundary: the caller gets one line, whatever was raised
        error = boundary.as_ours(exc)
        try:
            boundary.report(session, error, exc)
            sys.stdout.flush()  # what is left of an answer that could not be written
        except (OSError, LocalIOError):  # a full disk
            _drop_output()
            if session.is_json:
                boundary.tell_error(error)
        return int(error.exit_code)


def _open_streams() -> None:
    """Open /dev/null in the place of each standard stream that the caller has closed.

    Otherwise the next file that is opened gets that number, and what is meant for a terminal gets into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 as long as the process lives
    # "is": a caller inside the process may have put a stream of its own there.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(io.BufferedWriter(_StandardOutput(1, "w", closefd=False)), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(_StandardError(2, "w", closefd=False), sys.stderr)


def _stream(binary: "io.BufferedWriter | _StandardError", former: TextIO | None) -> io.TextIOWrapper:
    """Make a text stream in the place of the interpreter's own; it escapes what its encoding can't show."""
    return io.TextIOWrapper(
        binary,
        encoding=former.encoding if former else None,
        errors="backslashreplace",
        line_buffering=binary.fileno() == 2 or binary.isatty(),
    )


class _StandardOutput(io.FileIO):
    """Standard output; an error of writing says that it is this file."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise  # ends the program without a word
        except OSError as exc:
            raise LocalIOError(f"can't write to standard output: {exc.strerror}") from exc


class _StandardError(io.FileIO):
    """Standard error; what can't be written is dropped, and the program goes on.

    It has no buffer: a signal whose handler raises just after a write would leave the line in there, and it would be
    written once more.
    """

    def write(self, data: "ReadableBuffer") -> int:
        rest = memoryview(data).cast("B")
        size_bytes = rest.nbytes
        with contextlib.suppress(OSError):
            while rest and (written := super().write(rest)):
                rest = rest[written:]
        return size_bytes


def _protect_process() -> None:
    """Allow no core file, which would hold keys; and no umask that locks us out of what we make."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(os.umask(0o077) & 0o077)


def _drop_output() -> None:
    """Lead standard output to /dev/null: the interpreter would fail once more with what is in its buffer."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
