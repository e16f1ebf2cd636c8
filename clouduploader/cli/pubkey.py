"""`clouduploader pubkey`."""

import click

from clouduploader.cli import output
from clouduploader.cli.keypair import own_keys
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session


@click.command("pubkey")
@click.option("--rsa", "is_rsa", is_flag=True, help="Print _pubkey, for OBS's own encryption.")
@json_option
@pass_session
def pubkey_command(session: Session, is_rsa: bool) -> None:
    """Print the public key that target data are encrypted for.

    With --json the data are {"public_key": "..."}.
    """
    key = own_keys(session, is_rsa=is_rsa).public_key()
    if session.is_json:
        output.print_json(session, {"public_key": key})
    else:
        click.echo(key, nl=False)
