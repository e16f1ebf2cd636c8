"""Which form of the command line this is, decided before Click is imported.

OBS passes its arguments by exec: a user may be called `list` or `-king`, and none of these must be taken for a command
or an option.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from clouduploader.cli.session import Session
from clouduploader.errors import UsageError

OPERAND_COUNTS = (5, 6)  # the forms of December 2017 and of OBS 2.9; see docs/reference/obs-call.rst
FLAGS = {"-v": "is_verbose", "--verbose": "is_verbose", "-q": "is_quiet", "--quiet": "is_quiet"}
DIRECTORIES = {"--home": "home", "--spool": "spool"}
"""The options that may stand before OBS's operands, and what they set of Session; as in cli/options.py."""


def obs_call_start(arguments: Sequence[str]) -> int | None:
    """Find OBS's call: five or six operands whose third and fourth are absolute paths.

    Options may stand before them. A target never begins with a dash.

    Args:
        arguments: The command line without the program's name.

    Returns:
        Where the operands begin; None for every other command line.
    """
    for start in _operand_starts(arguments):
        operands = arguments[start:]
        if len(operands) in OPERAND_COUNTS and _is_obs_call(operands):
            return start
    return None


def set_options(session: Session, options: Sequence[str]) -> None:
    """Note the options before OBS's operands in the session; of two that are the same the last one counts.

    Raises:
        UsageError: A directory is a file, or can't be read; in Click's words.
    """
    words = iter(options)
    for word in words:
        if word in FLAGS:
            setattr(session, FLAGS[word], True)
        else:
            name, is_joined, value = word.partition("=")
            setattr(session, DIRECTORIES[name], _directory(name, value if is_joined else next(words)))


def _directory(option: str, value: str) -> Path:
    problem = ""
    try:
        if stat.S_ISREG(os.stat(value).st_mode):  # noqa: PTH116 what is given, not what Path makes of ""
            problem = "is a file"
        elif not os.access(value, os.R_OK):
            problem = "is not readable"
    except OSError:
        pass  # the command that needs the directory says that it is not there
    if problem:
        raise UsageError(f"{option}: Directory {value!r} {problem}", hint="See `clouduploader --help`.")
    return Path(value)


def _is_obs_call(operands: Sequence[str]) -> bool:
    return operands[2].startswith("/") and operands[3].startswith("/") and not operands[1].startswith("-")


def _operand_starts(arguments: Sequence[str]) -> list[int]:
    """List where the operands can begin: at the front, and behind each complete leading option."""
    starts = [0]
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word in FLAGS or (word.partition("=")[0] in DIRECTORIES and "=" in word):
            position += 1
        elif word in DIRECTORIES:
            position += 2
        else:
            break
        starts.append(position)
    return starts
