"""`clouduploader account`: the users' accounts in the clouds."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output, parsing, table, target_values
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.parsing import CommandGroup
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import TargetCommand
from clouduploader.cli.text import clean, moment
from clouduploader.errors import ExitCode, UsageError
from clouduploader.platforms import DEFAULT_TARGET
from clouduploader.plugin import Accounts, JsonValue, Verification
from clouduploader.store import job_log
from clouduploader.uploads import registry

if TYPE_CHECKING:
    from clouduploader.admin.accounts import AccountDetails
    from clouduploader.store.accounts import StoredAccount

COLUMNS = (
    table.Column("user", least=8),
    table.Column("target", rank=2),
    table.Column("created", rank=3),
    table.Column("values"),  # ids all of them: rather a longer line
)
ENCRYPTED = "(encrypted)"
TEXT, POLICIES = "text", "json"
"""The forms in which `account show` prints what any platform says; the others are scripts of the platform's."""


class AccountOption(click.Option):
    """An option that takes words of the target's platform, which its help lists with their meanings.

    Args:
        words: Gives them.
        attributes: See click.Option; `help` without a full stop.
    """

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 as Click has it
        words: Callable[[Accounts], Mapping[str, str]],
        **attributes: Any,  # noqa: ANN401 as Click has it
    ) -> None:
        super().__init__(*arguments, shell_complete=completion.account_words(words), **attributes)
        self._words = words

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Give the option with its words, and what they mean; None where the platform has none."""
        kept = registry.load_without_settings(ctx.meta.get(parsing.TARGET, DEFAULT_TARGET)).accounts
        words = self._words(kept) if kept else {}
        if not words:
            return None
        meanings = "; ".join(f"{word}: {meaning}" for word, meaning in words.items())
        bracket = f"  [{self.default}]" if isinstance(self.default, str) else ""
        return f"{self.opts[0]} [{'|'.join(words)}]", f"{self.help}: {meanings}.{bracket}"


def _extras(kept: Accounts) -> Mapping[str, str]:
    return kept.extras


def _forms(kept: Accounts) -> Mapping[str, str]:
    return {TEXT: "all, for people", POLICIES: "the policies alone", **kept.scripts}


@click.group("account", cls=CommandGroup)
def account_command() -> None:
    """Keep the users' accounts in the clouds.

    An account says how this service gets into a user's own account in a cloud. `submit` takes it from here. All of it
    is in database/accounts.sqlite in the home; what is secret, encrypted.
    """


@account_command.command("create")
@click.argument("user")
@completion.target_option
@json_option
@pass_session
def create_command(session: Session, /, *, user: str, target: str) -> None:
    """Make an account for USER, with what the service itself makes up, such as an id, and print that.

    With --json the data are {"user", "target", "created", "values": {...}, "encrypted": [...]}: the names of the
    values that are kept encrypted and not shown.
    """
    from clouduploader.admin import accounts

    made = accounts.create(session.config, user, target)
    if session.is_json:
        output.print_json(session, _document(made))
    else:
        output.print_fields(list(_values(made).items()))


@account_command.command("show", cls=TargetCommand, takes=target_values.is_setting)
@click.argument("user", shell_complete=completion.user)
@completion.target_option
@click.option(
    "--with", "extras", cls=AccountOption, words=_extras, multiple=True, help="Permissions for this too; repeatable"
)
@click.option("--form", cls=AccountOption, words=_forms, default=TEXT, help="What is printed")
@json_option
@pass_session
def show_command(
    session: Session, /, *, user: str, target: str, given: Mapping[str, JsonValue], extras: tuple[str, ...], form: str
) -> None:
    """Print what USER has to do in the cloud.

    It prints ids, policies as the cloud takes them, and scripts that make what is needed. What comes of it, such as the
    name of a role, is then entered by `account set`.

    With --json the data are those of `account create`, and "facts", "policies" and "scripts", each an object.
    """
    from clouduploader.admin import accounts

    config = target_values.with_settings(session.config, target, given)
    with _log(session) as log:
        shown = accounts.show(config, user, target, extras=extras, reporter=log)
    if session.is_json:
        output.print_json(session, {**_document(shown.account), **_guide(shown)})
    elif form == TEXT:
        _print_text(shown)
    elif form == POLICIES:
        click.echo(json.dumps(shown.guide.policies, indent=2))
    elif form in shown.guide.scripts:
        click.echo(shown.guide.scripts[form])
    else:
        forms = ", ".join([TEXT, POLICIES, *shown.guide.scripts])
        raise UsageError(f"there is no form '{form}' of what {target} asks for", hint=f"There are: {forms}.")


@account_command.command("set")
@click.argument("user", shell_complete=completion.user)
@click.argument("field", shell_complete=completion.account_field)
@click.argument("value", required=False)
@completion.target_option
@json_option
@pass_session
def set_command(session: Session, /, *, user: str, field: str, value: str | None, target: str) -> None:
    """Enter a value into the account of USER.

    FIELD is a key of the target data that an account for the target holds. A value that the platform calls secret is
    read from standard input, and is kept encrypted for the key pair of `keygen`.

    With --json the data are {"user", "target", "field"}.
    """
    from clouduploader.admin import accounts

    known = accounts.find_field(session.config, target, field)
    if known.is_secret and value is not None:
        raise UsageError(
            f"{field} is secret: give it on standard input", hint="Other users of this machine can read a command line."
        )
    if value is None and not known.is_secret:
        raise UsageError(f"a value for {field} is missing")
    text = _read_secret(field) if value is None else value
    accounts.enter(session.config, user, target, field=known, value=text)
    if session.is_json:
        output.print_json(session, {"user": user, "target": target, "field": field})


@account_command.command("list")
@click.option("--target", shell_complete=completion.target, help="Only accounts for this platform.")
@json_option
@pass_session
def list_command(session: Session, /, *, target: str | None) -> None:
    """List the accounts.

    With --json the data are {"accounts": [...]}, each as of `account create`.
    """
    from clouduploader.admin import accounts

    found = accounts.list_accounts(session.config, target)
    if session.is_json:
        output.print_json(session, {"accounts": [_document(one) for one in found]})
    else:
        table.print_table(COLUMNS, [(one.user, one.target, moment(one.created), _joined(one)) for one in found])


@account_command.command("remove")
@click.argument("user", shell_complete=completion.user)
@completion.target_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_session
def remove_command(session: Session, /, *, user: str, target: str, yes: bool) -> None:
    """Remove the account of USER from the home.

    Nothing in the cloud is changed, and jobs that are in the spool keep their target data. A new account gets
    other ids.

    With --json the data are {"user", "target"}.
    """
    from clouduploader.admin import accounts

    for account in accounts.list_accounts(session.config, target):
        if account.user == user and not yes:
            question = f"Remove the account of {clean(user)} for {clean(target)}?"
            output.confirm(session, question, is_agreed=yes, shown=[_joined(account)])
    accounts.remove(session.config, user, target)
    if session.is_json:
        output.print_json(session, {"user": user, "target": target})


@account_command.command("verify")
@click.argument("user", shell_complete=completion.user)
@completion.target_option
@json_option
@pass_session
def verify_command(session: Session, /, *, user: str, target: str) -> int:
    """Try whether the account of USER can be used, and by USER alone.

    The service tries to get in as for an upload, and then as it would for another user. An account that lets it in
    then is open to anyone who uses this service: the exit code is 79. It is 77 if the account does not let it in for
    USER.

    With --json the data are {"user", "target", "is_usable", "is_open", "findings": [...]}, each as of `check`.
    """
    from clouduploader.admin import accounts

    with _log(session) as log:
        outcome = accounts.verify(session.config, user, target, reporter=log)
    code = _exit_code(outcome)
    if session.is_json:
        rows = [dataclasses.asdict(finding) for finding in outcome.findings]
        data = {"is_usable": outcome.is_usable, "is_open": outcome.is_open, "findings": rows}
        output.print_json(session, {"user": user, "target": target, **data}, exit_code=code)
    else:
        click.echo("\n".join(output.finding(found) for found in outcome.findings))
    return code


def _exit_code(outcome: Verification) -> ExitCode:
    if outcome.is_open:
        return ExitCode.OPEN_ACCOUNT
    return ExitCode.OK if outcome.is_usable else ExitCode.DENIED


@contextmanager
def _log(session: Session) -> Iterator[job_log.JobLog]:
    """Make a log that is written to stderr if verbose, and nowhere else."""
    with open(2, "wb", buffering=0, closefd=False) as stderr:
        yield job_log.JobLog([stderr] if session.is_verbose else [], is_verbose=session.is_verbose)


def _read_secret(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, err=True))
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        pass  # raised out here, for that exception carries the value
    raise UsageError(f"the value for {name} is not UTF-8")


def _values(account: "StoredAccount") -> Mapping[str, str]:
    return {name: ENCRYPTED if name in account.encrypted else value for name, value in account.values.items()}


def _joined(account: "StoredAccount") -> str:
    return " ".join(f"{name}={value}" for name, value in _values(account).items())


def _document(account: "StoredAccount") -> dict[str, Any]:
    return {
        "user": account.user,
        "target": account.target,
        "created": moment(account.created),
        "values": {name: value for name, value in account.values.items() if name not in account.encrypted},
        "encrypted": sorted(account.encrypted),
    }


def _guide(shown: "AccountDetails") -> dict[str, Any]:
    guide = shown.guide
    return {"facts": dict(guide.facts), "policies": dict(guide.policies), "scripts": dict(guide.scripts)}


def _print_text(shown: "AccountDetails") -> None:
    facts = {**shown.guide.facts, **_values(shown.account)}
    output.print_fields([(name.replace("_", " "), value) for name, value in facts.items()])
    for name, document in shown.guide.policies.items():
        click.echo(f"\nPolicy '{name}':\n{json.dumps(document, indent=2)}")
