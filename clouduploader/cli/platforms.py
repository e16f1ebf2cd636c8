"""`clouduploader platforms`."""

import json

import click

from clouduploader.cli import completion, output, table
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session

COLUMNS = (
    table.Column("TARGET"),
    table.Column("PACKAGE", rank=2),
    table.Column("STATE", least=16),
    table.Column("DESCRIPTION", least=32, rank=1),
)


@click.command("platforms")
@click.option(
    "--schema", "target", metavar="TARGET", shell_complete=completion.target,
    help="Print the JSON Schema of this platform's data.",
)  # fmt: skip
@json_option
@pass_session
def platforms_command(session: Session, target: str | None) -> None:
    """List the platforms that images can be uploaded to.

    Each is a target that jobs can name. Packages can bring more of them: see "Write a
    platform" in the documentation.

    With --json the data are {"platforms": [{"target", "package", "problem", "description"}]}, problem being null
    for one that can be used, else description; with --schema too, {"schema": {...}}.
    """
    from clouduploader.admin import platforms

    if target is not None:
        schema = platforms.schema(target, session.config)
        if session.is_json:
            output.print_json(session, {"schema": schema})
        else:
            click.echo(json.dumps(schema, indent=2))
        return
    found = platforms.list_platforms(session.config)
    if session.is_json:
        output.print_json(session, {"platforms": [vars(one) for one in found]})
    else:
        rows = [(one.target, one.package, one.problem or "ok", one.description or "") for one in found]
        table.print_table(COLUMNS, rows)
