"""Groups of commands, and errors of the command line that say what was meant."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from clouduploader.cli.session import Session
from clouduploader.errors import UsageError

if TYPE_CHECKING:  # `list` is not to wait for it
    from clouduploader.plugin import Hints, Platform


TARGET = f"{__name__}.target"  # in the context's meta: the target that the options of its command are for
SIMILAR = 0.6  # as in difflib.get_close_matches
_EXTRA = re.compile(r"Got unexpected extra arguments? \((.*)\)")


class CommandGroup(click.Group):
    """A group that notes which command was called, and says which one may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and note its full name for the JSON envelope.

        Raises:
            UsageError: There is none of that name.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = suggestion(name, self.list_commands(ctx))
            path = " ".join([*ctx.command_path.split()[1:], name])
            raise UsageError(f"there is no command {path}", hint=f"{hint}{_see_help(ctx)}")
        found = super().resolve_command(ctx, args)
        session = ctx.ensure_object(Session)
        session.command = " ".join(filter(None, (session.command, found[0])))
        return found


def suggestion(word: str, known: Iterable[str]) -> str:
    """Ask whether something similar was meant: a sentence and a blank, or "" if nothing is similar."""
    found = nearest(word, known)
    return f"Did you mean {found}? " if found else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the word that is most similar to one, the first of equals; None if none is similar."""
    likeness = {other: difflib.SequenceMatcher(None, word, other).ratio() for other in sorted(known)}
    found = max(likeness, key=likeness.__getitem__, default="")
    return found if likeness.get(found, 0.0) >= SIMILAR else None


def choices(platform: "Platform", key: str) -> Sequence[str]:
    """Return values that a field of a platform can have, as far as they are known."""
    allowed = next((field.allowed for field in platform.fields if field.name == key), ())
    return allowed or hints(platform).choices(key)


def hints(platform: "Platform") -> "Hints":
    """Return the hints of a platform; empty ones if it offers none."""
    return platform.hints or _NoHints()


class _NoHints:
    """The hints of a platform that offers none."""

    def choices(self, _name: str) -> Sequence[str]:
        return ()

    def default(self, _name: str) -> str | None:
        return None


def as_usage_error(exc: click.ClickException) -> UsageError:
    """Turn an error of Click into one of ours, which says what may have been meant."""
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    text, near = " ".join(exc.format_message().split()), ""
    match exc:
        case click.NoSuchOption():
            place = f" for the target {context.meta[TARGET]}" if context and TARGET in context.meta else ""
            text = f"there is no option {exc.option_name}{place}"
            near = suggestion(exc.option_name, _options(context))
            if exc.option_name == "--json" and context and isinstance(context.command, click.Group):
                text, near = "--json stands before the command that it is for", "Put it behind. "
        case click.MissingParameter(param=click.Parameter() as parameter):
            text = f"{named(parameter)} is missing"
        case click.BadParameter(param=click.Parameter() as parameter):
            text, near = _bad_value(parameter, exc.message.rstrip("."))
        case click.BadOptionUsage():
            is_without = "requires" in exc.message
            text = f"{exc.option_name} {'needs a value' if is_without else 'takes no value'}"
        case _ if found := _EXTRA.match(text):
            text = f"unexpected argument: {found[1]}"
    return UsageError(text, hint=f"{near}{_see_help(context)}".strip() or None)


def _bad_value(parameter: click.Parameter, message: str) -> tuple[str, str]:
    """Return what is wrong with a value, by Click's message about it; and what may have been meant, or ""."""
    kind, name = parameter.type, named(parameter)
    word = message.partition(" is not ")[0].strip("'")
    if isinstance(kind, click.Choice):
        choices = list(map(str, kind.choices))
        return f"{name} is '{word}', but must be one of {', '.join(choices)}", suggestion(word, choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        what = "whole number" if isinstance(kind, click.IntRange) else "number"
        least = f"{'greater than' if kind.min_open else 'of at least'} {kind.min}"
        most = f" and at most {kind.max}" if kind.max is not None else ""
        return f"{name} is '{word}', but must be a {what} {least}{most}", ""
    return f"{name}: {message}", ""


def _options(context: click.Context | None) -> list[str]:
    parameters = context.command.get_params(context) if context else []
    return [name for parameter in parameters if isinstance(parameter, click.Option) for name in parameter.opts]


def named(parameter: click.Parameter) -> str:
    """Return the name of a parameter as it is written: an option with its dashes, an operand as the help calls it."""
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


def _see_help(context: click.Context | None) -> str:
    return f"See `{context.command_path} --help`." if context else ""
