"""`clouduploader keygen`."""

import click

from clouduploader.cli import output
from clouduploader.cli.keypair import own_keys
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean


@click.command("keygen")
@click.option("--rsa", "is_rsa", is_flag=True, help="Make secret.pem and _pubkey, for OBS's own encryption.")
@json_option
@pass_session
def keygen_command(session: Session, is_rsa: bool) -> None:
    """Make the key pair that target data are encrypted for.

    It is put into the home (see --home), without a passphrase, readable by the home's owner only, which must be the
    user that the upload worker runs as. What is there already is never overwritten.

    With --json the data are {"paths": [...], "owner": "..."}.
    """
    from clouduploader.admin import keys

    made = keys.generate(own_keys(session, is_rsa=is_rsa))
    paths = [str(path) for path in made.paths]
    if session.is_json:
        output.print_json(session, {"paths": paths, "owner": made.owner})
    else:
        for path in paths:
            click.echo(f"Made {clean(path)}, which belongs to {made.owner}.")
