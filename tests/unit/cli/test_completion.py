import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from clouduploader.cli import completion, main, program
from clouduploader.cli.session import Session
from clouduploader.model.job import JobState
from clouduploader.platforms import BUILT_INS
from clouduploader.sandbox.aws.layout import REGIONS

SCRIPTS = Path(__file__).parents[3] / "completion"
CONTEXT = click.Context(program.clouduploader_command)


@pytest.fixture
def complete(tmp_path, monkeypatch, make_spool):
    """Return a function that gives what completes the last word of a command line; has the attribute `jobs`."""
    jobs = make_spool()
    monkeypatch.setenv("CLOUDUPLOADER_HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDUPLOADER_SPOOL", str(jobs.directory))

    def complete(*words):
        made = ShellComplete(program.clouduploader_command, {"obj": Session()}, completion.PROGRAM, completion.VARIABLE)
        return [item.value for item in made.get_completions(list(words[:-1]), words[-1])]

    complete.jobs = jobs
    return complete


def options():
    """Every option of every command: the words that lead to it, and the option."""
    for name in sorted(program.COMMANDS):
        command = program.clouduploader_command.get_command(CONTEXT, name)
        inner = getattr(command, "commands", {})
        for words, one in {(name,): command, **{(name, word): one for word, one in inner.items()}}.items():
            yield from (
                (words, option) for option in one.get_params(click.Context(one)) if isinstance(option, click.Option)
            )


ENUMERATED = [
    ((*words, option.opts[-1]), option.metavar.strip("[]").split("|"))
    for words, option in options()
    if option.metavar and "|" in option.metavar
]


@pytest.mark.parametrize(("words", "values"), ENUMERATED, ids=lambda value: " ".join(value))
def test_enumerated_option_completes_its_values(complete, words, values):
    assert complete(*words, "") == values


def test_there_are_enumerated_options():
    assert len(ENUMERATED) > 15


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["up"], ["upload"]),
        (["account", "se"], ["set"]),
        (["list", "--state", "s"], ["scheduled", "succeeded"]),
        (["upload", "--target", ""], sorted(BUILT_INS)),
        (["platforms", "--schema", "d"], ["directory"]),
        (["upload", "--region", "eu-west-"], ["eu-west-1", "eu-west-2", "eu-west-3"]),
        (["check", "--region", "cn-northw"], ["cn-northwest-1"]),
        (["upload", "--copy-to", "eu-west-1,us-west-"], ["eu-west-1,us-west-1", "eu-west-1,us-west-2"]),
        (["sandbox", "--region", "eu-c"], ["eu-central-1"]),
        (["account", "set", "tom", ""], ["external_id", "arn"]),
        (["account", "show", "tom", "--with", ""], ["copies", "kms", "cleanup", "boundary"]),
        (["account", "show", "tom", "--form", ""], ["text", "json", "cloudformation", "commands"]),
        (["account", "show", "tom", "--target", "directory", "--form", ""], []),
        (["upload", "--target", "directory", "--fo"], ["--force"]),
        (["upload", "--target", "directory", "--meth"], []),
        (["upload", "--target", "nosuch", "--meth"], []),
        (["upload", "a.raw", "--spo"], ["--spool"]),
    ],
)
def test_word_is_completed_with_what_there_is(complete, words, expected):
    assert complete(*words) == expected


def test_regions_are_those_of_all_partitions(complete):
    found = complete("upload", "--region", "")
    assert set(REGIONS) < set(found)
    assert {"cn-north-1", "us-gov-west-1", "us-iso-east-1"} < set(found)


def test_jobs_are_completed_the_newest_first(complete, make_job):
    for name, state in (("7", JobState.UPLOADING), ("11", JobState.FAILED), ("12", JobState.SUCCEEDED)):
        make_job(complete.jobs, name, state=state)
    for command in ("inspect", "log", "resume", "retry"):
        assert complete(command, "") == ["12", "11", "7"]
    assert complete("log", "1") == ["12", "11"]
    assert complete("cleanup", "--job", "7") == ["7"]
    assert complete("kill", "") == ["7"]
    assert complete("log", "--spool", "/nowhere", "") == []
    assert complete("--spool", "/nowhere", "log", "") == []


def test_tokens_are_completed_by_their_ids(complete, tmp_path, capsys):
    assert main.main(["token", "create", "--user", "tom", "--home", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert complete("token", "revoke", "") == [text[5:13]]


def test_users_with_an_account_are_completed(complete, tmp_path):
    for user in ("tom", "tina"):
        assert main.main(["account", "create", user, "--home", str(tmp_path)]) == 0
    assert sorted(complete("account", "show", "t")) == ["tina", "tom"]


LOADED = """
import atexit, sys
from clouduploader.cli import main
atexit.register(lambda: print(*sys.modules))
main.main()
"""


def test_completion_loads_no_sdk(complete):
    words = {"COMP_WORDS": "clouduploader upload --region ", "COMP_CWORD": "3", completion.VARIABLE: "bash_complete"}
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
    *values, loaded = done.stdout.splitlines()
    assert "plain,eu-west-1" in values
    assert not {"botocore", "boto3", "rich", "asyncssh", "cryptography"} & set(loaded.split())


@pytest.mark.parametrize("shell", completion.FILES)
def test_committed_script_is_what_the_program_makes(shell):
    assert (SCRIPTS / completion.FILES[shell]).read_text() == completion.script(shell), (
        f"run: python -m clouduploader.cli.completion {shell} > completion/{completion.FILES[shell]}"
    )


IN_BASH = """
. completion/clouduploader
COMP_WORDS=(clouduploader upload --method e) COMP_CWORD=3
_clouduploader_completion clouduploader
printf "%s\\n" "${COMPREPLY[@]}"
complete -p clouduploader >&2
"""
IN_ZSH = """
compdef() { print -u2 $* }
compadd() { print -l -- $completions }
source completion/_clouduploader
words=(clouduploader upload --method e) CURRENT=4
_clouduploader_completion
"""
IN_FISH = """
source completion/clouduploader.fish
complete --do-complete "clouduploader upload --method e"
complete clouduploader >&2
"""


@pytest.mark.parametrize(
    ("command", "script"),
    [(["bash", "--norc", "-c"], IN_BASH), (["zsh", "-f", "-c"], IN_ZSH), (["fish", "--no-config", "-c"], IN_FISH)],
    ids=["bash", "zsh", "fish"],
)
def test_shell_completes_by_its_script(complete, command, script, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, script], env=os.environ | {"PATH": path, "HOME": str(tmp_path)}, cwd=SCRIPTS.parent,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["ebs-direct", "ec2uploadimg"]  # fish sorts
    assert re.search("clouduploader", done.stderr)
