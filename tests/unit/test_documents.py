"""The documents against the code: what they quote is there."""

import ast
import json
import re
import shlex
from pathlib import Path

import click

import clouduploader
from clouduploader.cli import program
from clouduploader.platforms.ec2 import check
from clouduploader.platforms.ec2.ec2uploadimg import command
from clouduploader.platforms.ec2.iam import policies
from clouduploader.store import config

TOP = Path(__file__).parents[2]
README = (TOP / "README.rst").read_text("utf-8")
README_WORDS = " ".join(README.split())


def section(title):
    """The text of a section of the README, up to the next one of the same kind."""
    return re.search(rf"\n{re.escape(title)}\n=+\n(.*?)(?=\n[^\n]+\n=+\n|\Z)", README, re.DOTALL)[1]


def documents():
    """The JSON documents in the section about the role, trust and rights."""
    blocks = re.findall(r"^    \{.*?^    \}$", section("The IAM role"), re.DOTALL | re.MULTILINE)
    return [json.loads(block) for block in blocks]


def texts_of_the_program():
    for path in Path(clouduploader.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_quoted_error_lines_are_said_by_the_program():
    quoted = [
        fragment
        for line in re.findall(r"^``.*``$", section("Troubleshooting"), re.MULTILINE)
        for fragment in re.findall(r"``(.+?)``", line)
    ]
    said = "\0".join(texts_of_the_program())
    assert len(quoted) > 30
    assert [fragment for fragment in quoted if fragment not in said] == []


def test_role_may_do_all_that_makes_and_removes():
    _trust, rights, direct, *_others = documents()
    actions = rights["Statement"][0]["Action"]
    assert f"{len(actions)} actions" in README
    assert f"{len(direct['Statement'][0]['Action'])} actions" in README
    assert len(actions) == len(set(actions)) == 36
    assert {f"ec2:{operation}" for operation in (*command.MAKERS, *command.REMOVERS)} <= set(actions)


def test_policies_are_those_of_the_program():
    trust, *permissions = documents()
    external_id = trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"]
    assert trust == policies.trust(partition="aws", account_id="111122223333", external_id=external_id)
    shown = [name for name in policies.ACTIONS if name != "cleanup"]  # whose four are named in the text
    assert permissions == [policies.permissions(name) for name in shown]
    words = re.search(r"only with the right to describe them: (.*?) besides", README_WORDS)[1]
    assert [f"ec2:{name}" for name in re.findall(r"\bDescribe\w+", words)] == list(policies.ACTIONS["cleanup"])


def test_policy_of_ebs_direct_is_what_check_tries():
    tried = {f"ec2:{action}" for action in check.DRY_RUNS} | set(check.UNTRIABLE)
    assert tried == set(policies.ACTIONS["ebs-direct"])


def test_paths_are_those_of_the_program():
    assert f"``{config.DEFAULT_HOME}" in (TOP / "ARCHITECTURE.rst").read_text("utf-8")
    assert f"file in {config.DEFAULT_HOME}" in README


def test_examples_use_options_that_exist():
    texts = [README, *(path.read_text("utf-8") for path in (TOP / "docs").rglob("*.rst"))]
    examples = re.findall(r"^ +\$ clouduploader (.*?)(?: [|<>].*)?$", "\n".join(texts), re.MULTILINE)
    context = click.Context(program.clouduploader_command)
    group_options = {option for parameter in program.clouduploader_command.params for option in parameter.opts}
    unknown = []
    for example in examples:
        words = shlex.split(example)
        name = next(word for word in words if word in program.COMMANDS)
        command = program.clouduploader_command.get_command(context, name)
        if isinstance(command, click.Group):
            command = command.commands[words[words.index(name) + 1]]
        known = group_options | {
            option for parameter in command.get_params(click.Context(command)) for option in parameter.opts
        }
        unknown += [f"{name} {word}" for word in words if word.startswith("-") and word not in known]
    assert len(examples) > 10
    assert unknown == []
