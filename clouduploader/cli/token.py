"""`clouduploader token`: tokens for those who ask the server over a network."""

import datetime
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import completion, output, table
from clouduploader.cli.options import json_option, pass_session, read_span
from clouduploader.cli.parsing import CommandGroup
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean, moment
from clouduploader.store.tokens import Role

if TYPE_CHECKING:
    from clouduploader.admin.tokens import ListedToken
    from clouduploader.store.tokens import StoredToken

COLUMNS = (
    table.Column("id"),
    table.Column("user", least=8),
    table.Column("role", rank=1),
    table.Column("created", rank=4),
    table.Column("expires", rank=2),
    table.Column("used", rank=3),
    table.Column("note", least=12, rank=5),
)


@click.group("token", cls=CommandGroup)
def token_command() -> None:
    """Keep the tokens by which the server knows who asks.

    To `serve`, the holder of a token is its user. Only a hash of it is kept, in database/tokens.sqlite in the home.
    """


@token_command.command("create")
@click.option("--user", required=True, help="Whose it is.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.USER.value,
    show_default=True,
    help="A user sees and changes own jobs alone, an admin all jobs; a monitor sees how the service does, and no job; "
    "a worker, a host of a cluster, gets jobs with what opens their accounts.",
)
@click.option(
    "--expires",
    "lifetime",
    callback=read_span,
    metavar="SPAN",
    help="How long it is worth something, for example 12h, 30d or 8w.  [for ever]",
)
@click.option("--note", default="", help="What it is for, as the list shows it.")
@json_option
@pass_session
def create_command(
    session: Session, /, *, user: str, role: str, lifetime: datetime.timedelta | None, note: str
) -> None:
    """Make a token, and print it: nothing can show it again.

    Its user gives it to clouduploader as CLOUDUPLOADER_TOKEN, in the file `token` of the home, or in the keyring of the
    desktop; the first that there is counts. Into the keyring it comes, with the URL of the server, by
    `secret-tool store --label clouduploader service clouduploader server URL`, which asks for it. Other programs send
    it as a header, `Authorization: Bearer TOKEN`.

    With --json the data are {"token", "id", "user", "role", "note", "created", "expires"}.
    """
    from clouduploader.admin import tokens

    made, text = tokens.create(session.config, user, Role(role), note=note, lifetime=lifetime)
    if session.is_json:
        output.print_json(session, {"token": text, **_document(made)})
    else:
        click.echo(text)


@token_command.command("list")
@click.option("--user", help="Only tokens of this user.")
@json_option
@pass_session
def list_command(session: Session, /, *, user: str | None) -> None:
    """List the tokens, by ids that open nothing.

    When a token was last used is told to the hour.

    With --json the data are {"tokens": [...]}, each as of `token create` without the token itself, and with "used".
    """
    from clouduploader.admin import tokens

    found = tokens.list_tokens(session.config, user)
    if session.is_json:
        output.print_json(session, {"tokens": [_document(one.token) | {"used": _time(one.used)} for one in found]})
    else:
        table.print_table(COLUMNS, [_row(one) for one in found])


@token_command.command("revoke")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=completion.token)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_session
def revoke_command(session: Session, /, *, ids: tuple[str, ...], yes: bool) -> None:
    """Revoke tokens: the server takes them no more, from the next request on.

    With --json the data are {"ids": [...]}.
    """
    from clouduploader.admin import tokens

    known = {one.token.id: one for one in tokens.list_tokens(session.config, None)}
    names = list(dict.fromkeys(ids))
    shown = ["  ".join(filter(None, map(str, _row(known[name])))) for name in names if name in known]
    if shown:  # the attempt to revoke another tells that it is not there
        question = f"Revoke the token{'s' * (len(names) > 1)} {', '.join(map(clean, names))}?"
        output.confirm(session, question, is_agreed=yes, shown=shown)
    tokens.revoke(session.config, names)
    if session.is_json:
        output.print_json(session, {"ids": names})


def _row(one: "ListedToken") -> list[object]:
    token = one.token
    return [token.id, token.user, token.role, moment(token.created), _time(token.expires), _time(one.used), token.note]


def _document(token: "StoredToken") -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "role": token.role,
        "note": token.note,
        "created": moment(token.created),
        "expires": _time(token.expires),
    }


def _time(when: datetime.datetime | None) -> str | None:
    return None if when is None else moment(when)
