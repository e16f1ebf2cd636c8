"""`clouduploader encrypt`."""

import json
import sys
from pathlib import Path

import click

from clouduploader.cli import output
from clouduploader.cli.keypair import own_keys
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import LocalIOError, MissingFileError


@click.command("encrypt")
@click.argument("file", type=click.Path(path_type=Path), default="-")
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME",
    help="Encrypt this value of the JSON object in FILE, and leave the rest; repeatable.",
)
@click.option("--rsa", "is_rsa", is_flag=True, help="Encrypt in OBS's own form, for _pubkey.")
@click.option(
    "-o",
    "--output",
    "output_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file (mode 0600) instead of standard output.",
)
@json_option
@pass_session
def encrypt_command(
    session: Session, file: Path, fields: tuple[str, ...], is_rsa: bool, output_path: Path | None
) -> None:
    """Encrypt a value or target data for the key pair in the home.

    Reads FILE, or standard input, where it asks on a terminal; a secret does not belong into a
    command line, which other users of the machine can read. One line end at the end is cut off.

    With --json the data are {"encrypted": "..."}, or {"targetdata": {...}} with --field; and
    {"path": "..."} with --output.
    """
    from clouduploader.admin import keys

    own = own_keys(session, is_rsa=is_rsa)
    data = _read(file)
    answer: dict[str, object]
    if fields:
        document = keys.encrypt_fields(own, data, fields)
        answer, text = {"targetdata": document}, json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        text = keys.encrypt(own, data)
        answer = {"encrypted": text}
    if output_path is not None:
        keys.write(output_path, text)
    if session.is_json:
        output.print_json(session, {"path": str(output_path)} if output_path else answer)
    elif output_path is None:
        click.echo(text, nl=False)


def _read(file: Path) -> bytes:
    if str(file) != "-":
        try:
            return file.read_bytes()
        except FileNotFoundError as exc:
            raise MissingFileError(f"there is no {file}") from exc
        except OSError as exc:
            raise LocalIOError(f"{file} can't be read: {exc.strerror}") from exc
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, err=True)).encode()
    return sys.stdin.buffer.read()
