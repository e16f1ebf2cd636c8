"""The documents against the code: what they quote is there."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

import clouduploader
from clouduploader.cli import program
from clouduploader.cli.target_command import TargetCommand
from clouduploader.platforms.ec2 import check, rights
from clouduploader.platforms.ec2.ec2uploadimg import command
from clouduploader.store import config

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
ARCHITECTURE = (TOP / "ARCHITECTURE.rst").read_text("utf-8")
README = (TOP / "README.rst").read_text("utf-8")
PAGES = [path for path in DOCS.rglob("*.rst") if path.stem != "write-a-platform"]  # whose commands a test runs
TEXTS = [README, *(path.read_text("utf-8") for path in PAGES)]


def page(name):
    return (DOCS / f"{name}.rst").read_text("utf-8")


def texts_of_the_program():
    for path in Path(clouduploader.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_error_lines_are_said_by_the_program():
    quoted = [
        fragment
        for line in re.findall(r"^``.*``$", page("how-to/failed-job"), re.MULTILINE)
        for fragment in re.findall(r"``(.+?)``", line)
    ]
    said = "\0".join(texts_of_the_program())
    assert len(quoted) > 30
    assert [fragment for fragment in quoted if fragment not in said] == []


def test_role_may_do_all_that_makes_and_removes():
    actions = rights.actions("ec2uploadimg")
    assert len(actions) == len(set(actions))
    assert {f"ec2:{operation}" for operation in (*command.MAKERS, *command.REMOVERS)} <= set(actions)


@pytest.mark.parametrize("name", ["explanation/methods", "how-to/iam-roles"])
def test_number_of_actions_is_that_of_the_policies(name):
    shown = {int(number) for number in re.findall(r"(\d+) actions", page(name))}
    assert shown == {len(rights.actions(method)) for method in ("ec2uploadimg", "ebs-direct")}


def test_policy_of_ebs_direct_is_what_check_tries():
    tried = {f"ec2:{action}" for action in check.DRY_RUNS} | set(check.UNTRIABLE)
    assert tried == set(rights.actions("ebs-direct"))


def test_paths_are_those_of_the_program():
    assert f"``{config.DEFAULT_HOME}" in ARCHITECTURE
    assert f"file in {config.DEFAULT_HOME}" in page("how-to/obs-host")


def test_readme_and_architecture_stay_short():
    assert len(README.splitlines()) <= 150
    assert len(ARCHITECTURE.splitlines()) <= 200


def test_files_that_the_readme_links_to_exist():
    linked = [*re.findall(r"<([^<>:]+)>`__", README), *re.findall(r"^\.\. image:: (\S+)$", README, re.MULTILINE)]
    assert len(linked) > 20
    assert [name for name in linked if not (TOP / name).is_file()] == []


def test_examples_use_options_that_exist():
    text = re.sub(r"\\\n +", "", "\n".join(TEXTS))  # a line that goes on
    examples = re.findall(r"^ +(?:\$ )?clouduploader (?!\[)(.*?)(?: *[|<>&;#].*)?$", text, re.MULTILINE)
    context = click.Context(program.clouduploader_command)
    group_options = {option for parameter in program.clouduploader_command.params for option in parameter.opts}
    unknown = []
    for example in examples:
        words = shlex.split(example)
        name = next(word for word in words if word in program.COMMANDS)
        command = program.clouduploader_command.get_command(context, name)
        if isinstance(command, click.Group):
            command = command.commands[words[words.index(name) + 1]]
        parameters = command.get_params(click.Context(command))
        if isinstance(command, TargetCommand) and "--target" in words:
            parameters += command.field_options(words[words.index("--target") + 1])
        known = group_options | {option for parameter in parameters for option in parameter.opts}
        unknown += [f"{name} {word}" for word in words if word.startswith("-") and word not in known]
    assert len(examples) > 60
    assert unknown == []
