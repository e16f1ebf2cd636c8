"""Completions for shells, and their scripts: `python -m clouduploader.cli.completion SHELL > completion/FILE`.

Nothing here imports an SDK or asks a server; what can't be found out completes nothing.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from clouduploader.cli import parsing
from clouduploader.cli.session import Session
from clouduploader.errors import ClouduploaderError
from clouduploader.platforms import DEFAULT_TARGET

if TYPE_CHECKING:
    from clouduploader.plugin import Accounts, Platform

PROGRAM = "clouduploader"
VARIABLE = "_CLOUDUPLOADER_COMPLETE"  # as Click names it
FILES = {"bash": "clouduploader", "zsh": "_clouduploader", "fish": "clouduploader.fish"}
"""The script of each shell, under the name by which the shell finds it in its directory of such scripts."""
MAX_JOBS = 200  # more than fit on a screen; the newest

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]


def script(shell: str) -> str:
    """Make the script that a shell loads; it calls the program for each completion."""
    found = get_completion_class(shell)
    if found is None:
        raise ValueError(shell)
    made = found(click.Command(PROGRAM), {}, PROGRAM, VARIABLE)
    return made.source_template % made.source_vars()


def among(words: Sequence[str]) -> Completer:
    """Complete one of these words."""
    return _completer(lambda _context: words)


def target(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete the name of a platform."""

    def names(_context: click.Context) -> list[str]:
        from clouduploader.uploads import registry

        return registry.names()

    return _completer(names)(context, parameter, incomplete)


def running_job(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete a job that is not over, the newest first."""

    def names(found: click.Context) -> list[str]:
        return _newest(_session(found).open_spool().running_names())

    return _completer(names)(context, parameter, incomplete)


def job(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete a job, the newest first."""

    def names(found: click.Context) -> list[str]:
        jobs = _session(found).open_spool()
        every = {*jobs.running_names(), *jobs.archived_names()}
        return _newest([name for name in every if name.startswith(incomplete)])

    return _completer(names)(context, parameter, incomplete)


def user(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete a user who has an account."""
    from clouduploader.admin import accounts

    return _completer(
        lambda found: [one.user for one in accounts.list_accounts(_session(found).config, _target(found))]
    )(context, parameter, incomplete)


def token(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete the id of a token."""
    from clouduploader.admin import tokens

    return _completer(lambda found: [one.token.id for one in tokens.list_tokens(_session(found).config, None)])(
        context, parameter, incomplete
    )


def account_field(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Complete a field that accounts for the platform have."""

    def names(found: click.Context) -> list[str]:
        return [one.name for one in _platform(found).fields if one.is_of_account]

    return _completer(names)(context, parameter, incomplete)


def account_words(words: Callable[["Accounts"], Iterable[str]]) -> Completer:
    """Complete words of the platform's accounts, where it has accounts."""

    def names(found: click.Context) -> list[str]:
        kept = _platform(found).accounts
        return list(words(kept)) if kept else []

    return _completer(names)


def field(key: str) -> Completer:
    """Complete a value of a field of the platform that --target names; behind a comma, where it takes lists."""

    def values(context: click.Context) -> Sequence[str]:
        return parsing.choices(_platform(context), key)

    return _completer(values)


target_option = click.option(
    "--target",
    default=DEFAULT_TARGET,
    show_default=True,
    shell_complete=target,
    help="The platform; see `clouduploader platforms`.",
)
"""The option `--target`."""


def _completer(words: Callable[[click.Context], Sequence[str]]) -> Completer:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
        is_list = isinstance(parameter, click.Option) and parameter.multiple
        front, comma, last = incomplete.rpartition(",") if is_list else ("", "", incomplete)
        found: Sequence[str] = ()
        with contextlib.suppress(ClouduploaderError, OSError):  # a shell has no place for what is wrong
            found = words(context)
        return [CompletionItem(f"{front}{comma}{word}") for word in found if word.startswith(last)]

    return complete


def _session(context: click.Context) -> Session:
    return context.ensure_object(Session)


def _platform(context: click.Context) -> "Platform":
    from clouduploader.uploads import registry

    return registry.load(_target(context), _session(context).config)


def _target(context: click.Context) -> str:
    return str(context.params.get("target") or DEFAULT_TARGET)


def _newest(names: Sequence[str]) -> list[str]:
    return sorted(names, key=int, reverse=True)[:MAX_JOBS]


if __name__ == "__main__":
    sys.stdout.write(script(sys.argv[1]))
