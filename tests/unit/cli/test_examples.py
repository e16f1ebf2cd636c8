import re
import shlex

import click
import pytest

from clouduploader.cli import examples, main, program
from clouduploader.cli.session import Session

CONTEXT = click.Context(program.clouduploader_command)
LINES = [
    (name, line)
    for name in sorted(program.COMMANDS)
    for line in re.findall(r"^clouduploader .*$", examples.epilog(name) or "", re.MULTILINE)
]
TASKS = [(line.split()[1], line) for line in examples.TASKS.values()]


def test_every_command_has_examples():
    assert {name for name, _ in LINES} == set(program.COMMANDS)


@pytest.mark.parametrize(("name", "line"), LINES + TASKS)
def test_example_is_what_the_command_takes(name, line):
    executable, first, *words = shlex.split(re.split(" [<>]", line)[0])
    assert (executable, first) == ("clouduploader", name)
    command = program.clouduploader_command.get_command(CONTEXT, name)
    if isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(name, words, obj=Session())


def test_help_shows_each_example_on_a_line_of_its_own(capsys):
    assert main.main(["log", "--help"]) == 0
    assert "\n  clouduploader log --follow 7\n  clouduploader log 7 --lines 20\n" in capsys.readouterr().out
