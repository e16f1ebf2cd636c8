import re
import subprocess
from pathlib import Path

import click
import pytest

from clouduploader.cli import examples, manual, program
from clouduploader.errors import ExitCode
from clouduploader.platforms import BUILT_INS
from clouduploader.uploads import registry

PAGE = Path(__file__).parents[3] / "man" / "clouduploader.1"


def show(roff):
    """What a reader sees, without the marks of a terminal; groff's complaints fail the test."""
    process = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=78n"],
        input=roff.encode("ascii"),
        capture_output=True,
        check=True,
    )
    assert process.stderr == b""
    return process.stdout.decode()


@pytest.fixture(scope="module")
def shown():
    """The whole page as a reader sees it."""
    return show(manual.render())


def test_committed_page_is_what_the_program_says():
    assert PAGE.read_text("ascii") == manual.render(), "run: python -m clouduploader.cli.manual > man/clouduploader.1"


def test_page_is_shown_without_a_complaint(shown):
    headings = re.findall(r"^[A-Z][A-Z ]+$", shown, re.MULTILINE)
    assert headings == [
        *["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "TARGETS", "EXIT STATUS", "ENVIRONMENT", "FILES"],
        *["EXAMPLES", "SEE ALSO"],
    ]


def test_page_explains_every_exit_code(shown):
    words = " ".join(shown.split())
    assert [code for code in ExitCode if f" {code:d} {code.meaning}" not in words] == []


@pytest.mark.parametrize("target", BUILT_INS)
def test_page_tells_what_each_of_our_platforms_says_of_itself(shown, target):
    shown = " ".join(shown.split())
    platform = registry.load_without_settings(target)
    assert f"{target} {platform.description}" in shown
    for file in platform.files:
        assert f"/etc/obs/cloudupload/{file.path} {file.description}" in shown
    if platform.accounts:
        assert platform.accounts.description.replace("`", "") in shown


def test_page_shows_each_task_as_it_is_typed(shown):
    tasks = shown.partition("EXAMPLES")[2]
    assert [line for line in examples.TASKS.values() if f"\n           {line}\n" not in tasks] == []


@pytest.mark.parametrize("name", sorted(program.COMMANDS))
def test_page_explains_every_option(shown, name):
    context = click.Context(program.clouduploader_command, info_name="clouduploader")
    command = program.clouduploader_command.get_command(context, name)
    headings = re.findall(r"^   (\S+(?: \S+)?)$", shown, re.MULTILINE)
    inner = {f"{name} {word}": one for word, one in getattr(command, "commands", {}).items()}
    for heading, one in {name: command, **inner}.items():
        assert (heading in headings) == (not one.hidden)
        names = [option for p in one.get_params(click.Context(one)) if isinstance(p, click.Option) for option in p.opts]
        assert [option for option in names if not one.hidden and option not in shown] == []


def test_text_of_commands_is_shown_as_it_is(add_command):
    @click.command()
    @click.option("--odd", metavar="A|B", help="'quoted' \\n back\\slash, caf\u00e9, a^b~c.")
    def odd_command():
        """Do `odd --things` at once.

        .TH is no request here.

        \b
        line one
        .line two
        """

    add_command("odd", odd_command)
    shown = show(manual.render())
    assert "Do odd --things at once." in shown
    assert ".TH is no request here." in shown
    assert re.search(r"^ +line one\n +\.line two$", shown, re.MULTILINE)
    assert "'quoted' \\n back\\slash, caf\u00e9, a^b~c." in " ".join(shown.split())
    assert "--odd A|B" in shown
