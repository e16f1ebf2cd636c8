"""The manual page, made from the program: `python -m clouduploader.cli.manual > man/clouduploader.1`.

Commands and options come from Click, exit codes from ExitCode. It bears the version and no date,
so that the same program always gives the same bytes.
"""

import re
import sys
from collections.abc import Iterator, Sequence

import click

import clouduploader
from clouduploader.cli import examples
from clouduploader.cli.options import GLOBAL_OPTIONS
from clouduploader.cli.program import clouduploader_command
from clouduploader.cli.session import CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, SERVER_VARIABLE, TOKEN_VARIABLE
from clouduploader.cli.target_command import FieldOption, TargetCommand
from clouduploader.cluster import settings as cluster_settings
from clouduploader.errors import ExitCode
from clouduploader.platforms import BUILT_INS
from clouduploader.plugin import Platform
from clouduploader.store import config, credentials
from clouduploader.uploads import registry

CONTRACT = (
    "[OPTIONS] USER TARGET UPLOAD_FILE TARGETDATA FILENAME RESULT_FILE",
    "[OPTIONS] USER TARGET UPLOAD_FILE TARGETDATA LOGFILE",
)
DESCRIPTION = """
The Open Build Service starts clouduploader once per upload job, in one of the first two forms: six or five
operands, the third and fourth absolute paths. The image UPLOAD_FILE is uploaded for USER to the platform TARGET
as the JSON file TARGETDATA says. The result, one line such as the id of the image, goes to RESULT_FILE, and the log
to standard output, where OBS catches it; in the second form the log is appended to LOGFILE, and the result goes to
standard output.

In the third form an administrator runs a command: uploads by hand, looks at jobs, kills them, makes keys,
checks the installation.

Answers go to standard output, everything else to standard error. Answers that are not shown on a terminal are
tab-separated and whole. With `--json` the answer, and a failure too, is one JSON object with the keys
`version`, `command`, `exit_code`, `data` and `error`.
"""
ENVIRONMENT = {
    "CLOUDUPLOADER_HOME": f"Keys, credentials and settings, instead of {config.DEFAULT_HOME}.",
    "CLOUDUPLOADER_SPOOL": f"The jobs, instead of {config.DEFAULT_SPOOL}.",
    "CLOUDUPLOADER_STATE": f"The journals of uploads, instead of {config.STATE_NAME} in the spool.",
    SERVER_VARIABLE: "The URL of a job server that `submit`, `list`, `inspect`, `log` and `kill` ask instead of the "
    "spool, unless `--spool` is given.",
    CA_VARIABLE: "The file with the authorities of the server's certificate, as with --ca.",
    CERT_VARIABLE: "The file with a certificate for a server that asks for one, as with --cert.",
    KEY_VARIABLE: "The file with its key, as with --key.",
    TOKEN_VARIABLE: "The token that says to a server who asks, see `token`; programs that are started do not get it.",
    cluster_settings.PASSWORD_VARIABLE: "The password of the broker; better in a file, see FILES.",
    credentials.VARIABLE: "The directory of secrets that systemd or a container hands to a service: the files token "
    "and broker-password in it go before those of the home.",
    "NO_COLOR": "If it is set and not empty, nothing is coloured.",
    "PATH": "Where programs are looked for, such as gpg, qemu-img and qemu-nbd.",
    "TMPDIR": "Where the private directories of uploads are made, which need little room.",
    "XDG_CONFIG_HOME": "Where the home of a plain user is, as clouduploader in it; ~/.config by default.",
    "XDG_STATE_HOME": "Where the spool of a plain user is, as clouduploader in it; ~/.local/state by default.",
    "HTTPS_PROXY": "The proxy to the cloud; NO_PROXY names the hosts that are asked without it.",
}
FILES = {
    f"{config.DEFAULT_HOME}/{config.FILE_NAME}": "Settings, an INI file. The command line and the environment "
    "win over it.",
    f"{config.DEFAULT_HOME}/.gnupg": "The GPG key that target data are encrypted for.",
    f"{config.DEFAULT_HOME}/secret.pem": "The RSA key that OBS encrypts secrets for.",
    f"{config.DEFAULT_HOME}/_pubkey": "Its public half, which OBS hands out.",
    f"{config.DEFAULT_HOME}/database/accounts.sqlite": "The users' accounts in the clouds.",
    f"{config.DEFAULT_HOME}/database/tokens.sqlite": "Hashes of the tokens by which the server knows who asks.",
    f"{config.DEFAULT_HOME}/token": "The token that this program sends to a server where CLOUDUPLOADER_TOKEN is "
    "not set; for its owner alone.",
    f"{config.DEFAULT_HOME}/openid-secret": "What proves the server to the OpenID provider by which users sign in.",
    f"{config.DEFAULT_HOME}/{cluster_settings.PASSWORD_FILE}": "The password of the broker, for uploads by many hosts.",
    f"{config.DEFAULT_SPOOL}": "The jobs; those that have ended are in done.",
}

ROFF = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
"""Characters that groff would print as something else: groff_char(7), "The ASCII character set"."""


def render() -> str:
    """Return the page as roff for man(7), plain ASCII."""
    program = clouduploader_command
    context = click.Context(program, info_name="clouduploader", **program.context_settings)
    lines = [
        '.\\" Made by python -m clouduploader.cli.manual; edit the program instead.',
        f'.TH CLOUDUPLOADER 1 "" "clouduploader {clouduploader.__version__}" "clouduploader"',
        ".nh",  # no hyphens in what may be copied, and no blanks spread in it
        ".ad l",
        ".SH NAME",
        f"clouduploader \\- {_text(_summary(program))}",
        ".SH SYNOPSIS",
        *_synopsis(*CONTRACT, "[OPTIONS] COMMAND [ARGUMENTS]"),
        ".SH DESCRIPTION",
        *_paragraphs(DESCRIPTION),
        ".SH OPTIONS",
        *_options(program, context),
        ".SH COMMANDS",
    ]
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        if command is not None and not command.hidden:
            lines += _command(command, click.Context(command, parent=context, info_name=name))
    platforms = {target: registry.load_without_settings(target) for target in BUILT_INS}
    lines += [".SH TARGETS", *_definitions({target: _target(platform) for target, platform in platforms.items()})]
    lines += [".SH EXIT STATUS", *_definitions({str(int(code)): code.meaning for code in ExitCode})]
    lines += [".SH ENVIRONMENT", *_definitions(ENVIRONMENT)]
    lines += [".SH FILES", *_definitions(files())]
    lines += [".SH EXAMPLES"]
    for purpose, line in examples.TASKS.items():
        lines += [*_paragraphs(f"{purpose}:"), ".PP", ".RS 4", ".nf", _line(line), ".fi", ".RE"]
    lines += [".SH SEE ALSO", ".BR gpg (1)"]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Tell what is in each file of ours and of our platforms, by its path."""
    platforms = [registry.load_without_settings(target) for target in BUILT_INS]
    return FILES | {f"{config.DEFAULT_HOME}/{one.path}": one.description for own in platforms for one in own.files}


def _target(platform: Platform) -> str:
    return f"{platform.description} {platform.accounts.description if platform.accounts else ''}".strip()


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    name = context.command_path.removeprefix("clouduploader ")
    yield f".SS {_text(name)}"
    yield from _synopsis(" ".join([name, *command.collect_usage_pieces(context)]))
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    if isinstance(command, TargetCommand):
        for target in BUILT_INS:
            if options := command.field_options(target):
                yield from _paragraphs(f"Options of the target {target}:")
                yield from _listed(options, context)
    yield from _paragraphs(command.epilog or "")
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from _command(command.commands[inner], click.Context(command.commands[inner], context, inner))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    shown_above = [*GLOBAL_OPTIONS, command.get_help_option(context)] if context.parent else []
    own = [one for one in command.get_params(context) if one not in shown_above and not isinstance(one, FieldOption)]
    yield from _listed(own, context)


def _listed(parameters: Sequence[click.Parameter], context: click.Context) -> Iterator[str]:
    for parameter in parameters:
        term, meaning = parameter.get_help_record(context) or ("", "")
        if meaning:
            yield from (".TP", _marked(term), *_filled(meaning))


def _synopsis(*forms: str) -> Iterator[str]:
    for form in forms:
        yield from (".PP", f"\\fBclouduploader\\fP {_marked(form)}")


def _definitions(meanings: dict[str, str]) -> Iterator[str]:
    for term, meaning in meanings.items():
        yield from (".TP", f"\\fB{_text(term)}\\fP", *_filled(meaning))


def _summary(command: click.Command) -> str:
    """Return the first sentence of a command's help in the form of a manual page's title."""
    sentence = (command.help or "").split("\n\n")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs as Click understands them: one that begins with a backspace keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.partition("\f")[0].strip("\n")):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == "\b":
            yield from (".PP", ".nf", *map(_line, rest.splitlines()), ".fi")
        elif paragraph.strip():
            yield from (".PP", *_filled(paragraph))


def _filled(text: str) -> Iterator[str]:
    """Yield one line of roff for text that is filled anyway, with code set in bold."""
    yield _line(" ".join(text.split()))


def _line(text: str) -> str:
    roff = "".join(f"\\fB{_text(part)}\\fP" if index % 2 else _text(part) for index, part in enumerate(text.split("`")))
    return f"\\&{roff}" if roff.startswith(".") else roff


def _marked(usage: str) -> str:
    """Return a form of use: names of options and commands in bold, what stands for a value in italics."""
    return "".join(
        f"\\fI{_text(word)}\\fP"
        if re.fullmatch(r"[A-Z][A-Z_]*", word)
        else f"\\fB{_text(word)}\\fP"
        if re.fullmatch(r"-*[a-z][a-z0-9-]*", word)
        else _text(word)
        for word in re.split(r"([A-Za-z_0-9-]+)", usage)
    )


def _text(text: str) -> str:
    """Return text that roff prints as it is."""
    return "".join(ROFF.get(char, char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text)


if __name__ == "__main__":
    sys.stdout.write(render())
