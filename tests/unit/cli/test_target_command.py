import io
import json
import subprocess
import sys

import click
import pytest

from clouduploader.cli import main
from clouduploader.cli.completion import target_option
from clouduploader.cli.options import pass_session
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import REGION, TargetCommand

EC2_OPTIONS = {
    "region": "--region", "ami_name": "--name", "description": "--description", "tags": "--tag",
    "architecture": "--architecture", "boot_mode": "--boot-mode", "method": "--method", "sha256": "--sha256",
    "zero_blocks": "--zero-blocks", "verify": "--verify", "encrypted": "--encrypt", "kms_key_id": "--kms-key",
    "keep": "--keep", "force": "--force", "regions": "--copy-to", "share": "--share",
    "share_snapshot": "--share-snapshot", "imds_support": "--imds", "deprecate_at": "--deprecate-at", "arn": "--arn",
    "external_id": "--external-id", "vpc_subnet_id": "--subnet",
}  # fmt: skip
"""What scripts of users hold."""

CLOUD = """
from clouduploader.plugin import Field, FieldKind, Platform

class Cloud(Platform):
    fields = (
        Field(name="api_key", description="The key.", is_secret=True),
        Field(name="size", description="How large.", kind=FieldKind.INTEGER),
        Field(name="labels", description="Labels.", kind=FieldKind.OBJECT),
        Field(name="zones", description="Where else.", kind=FieldKind.ARRAY, allowed=("a", "b")),
        Field(name="public", description="All see it.", kind=FieldKind.BOOLEAN, option="--public/--private"),
        Field(name="user", description="A name that the command has too."),
        Field(name="hidden", description="Only in a file.", option=""),
        Field(name="tenant", description="Whose.", is_of_account=True, metavar="ID", default_text="nobody's"),
        Field(name="region", description="Where.", is_required=True),
    )
    upload = remove = None

    def problems(self, targetdata):
        return ["tenant and api_key must both be there, or no size"] if "size" in targetdata else []

create = Cloud
"""


@pytest.fixture
def cloud(tmp_path, install_package):
    """Install a platform `optioncloud` with a field of each kind, as a package of another author would."""
    install_package("optioncloud", CLOUD, optioncloud="optioncloud:create")
    return tmp_path


def command(**attributes):
    @click.command("try", cls=TargetCommand, **attributes)
    @target_option
    @click.option("--user")
    @pass_session
    def try_command(_session, /, **_values):
        """Try options."""

    return try_command


def given(*words, **attributes):
    return command(**attributes).make_context("try", list(words), obj=Session()).params["given"]


@pytest.mark.usefixtures("cloud")
def test_option_is_made_of_each_field():
    words = "--target optioncloud --size 3 --label a=b=c --labels d= --zones a,b --zones a --private --tenant x"
    assert given(*words.replace("--label a", "--labels a").split()) == {
        "size": 3,
        "labels": {"a": "b=c", "d": ""},
        "zones": ["a", "b", "a"],
        "public": False,
        "tenant": "x",
    }
    assert given("--target=optioncloud", "--public") == {"public": True}
    assert given("--target=optioncloud") == {}


def test_options_of_ec2_are_those_that_its_users_know():
    found = {option.field.name: option.opts[0] for option in command().field_options("ec2")}
    assert found == EC2_OPTIONS


@pytest.mark.parametrize("data", [b"s3same", b"s3same\n", b"s3same\r\n"])
def test_secret_is_read_from_a_file_or_standard_input(cloud, monkeypatch, data):
    path = cloud / "key"
    path.write_bytes(data)
    assert given("--target", "optioncloud", "--api-key-file", str(path)) == {"api_key": "s3same"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert given("--target", "optioncloud", "--api-key-file", "-") == {"api_key": "s3same"}


@pytest.mark.usefixtures("cloud")
def test_secret_is_no_value_of_an_option(capsys):
    assert main.main(["upload", "--target", "optioncloud", "--api-key", "s3same", "a.raw"]) == 64
    err = capsys.readouterr().err
    assert "there is no option --api-key for the target optioncloud. Did you mean --api-key-file?" in err
    assert "s3same" not in err


@pytest.mark.usefixtures("cloud")
def test_file_of_a_secret_is_completed_as_a_file():
    secret, zones = (
        next(option for option in command().field_options("optioncloud") if option.field.name == name)
        for name in ("api_key", "zones")
    )
    context = command().make_context("try", ["--target", "optioncloud"], obj=Session())
    assert [item.type for item in secret.shell_complete(context, "k")] == ["file"]
    assert [item.value for item in zones.shell_complete(context, "")] == ["a", "b"]


def test_secret_that_can_not_be_read_is_one_line_without_it(cloud, capsys):
    (cloud / "key").write_bytes(b"s3same\xff")
    for path, code in ((cloud / "none", 66), (cloud, 74), (cloud / "key", 64)):
        words = ["upload", "--target", "optioncloud", "--region", "x", "--api-key-file", str(path), "a.raw"]
        assert main.main(words) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("clouduploader: --api-key-file: ")
        assert "s3same" not in line


@pytest.mark.usefixtures("cloud")
def test_help_shows_the_options_of_the_target_and_how_to_see_others(capsys):
    assert main.main(["upload", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\nOptions of the target ec2 (`--target T --help` shows those of T):\n  --region " in shown
    assert main.main(["upload", "--help", "--target", "optioncloud"]) == 0
    shown = capsys.readouterr().out
    assert "\nOptions of the target optioncloud (" in shown
    assert "--subnet" not in shown
    assert "--hidden" not in shown
    assert "Examples:" not in shown  # they have options of EC2
    assert shown.count("--user ") == 1  # the command's own
    for line in ("--region TEXT", "--zones [a|b]", "--labels NAME=VALUE", "--public / --private", "--size INTEGER"):
        assert f"\n  {line} " in shown
    assert "--tenant ID" in shown
    assert "Whose.  [nobody's]" in shown
    assert "The key: from FILE, or standard input for -; of at least 8 characters." in " ".join(shown.split())


@pytest.mark.usefixtures("cloud")
def test_command_takes_some_fields_and_several_values_of_one():
    attributes = {
        "takes": lambda _platform, field: field.is_of_account or field.name == REGION,
        "repeatable": (REGION,),
        "account_text": "the account's",
    }
    words = ["--target", "optioncloud", "--region", "a", "--region", "b", "--tenant", "c"]
    assert given(*words, **attributes) == {"region": ["a", "b"], "tenant": "c"}
    options = {option.field.name: option.help for option in command(**attributes).field_options("optioncloud")}
    assert options == {"region": "Where; may be repeated.", "tenant": "Whose.  [the account's]"}
    with pytest.raises(click.NoSuchOption):
        given("--target", "optioncloud", "--size", "3", **attributes)


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "ec3"], 69, "Did you mean ec2?"),
        (["--target", "optioncloud", "--size", "x"], 64, "--size: 'x' is not a valid integer"),
        (["--target", "optioncloud", "--labels", "alone"], 64, "--labels: 'alone' is not of the form NAME=VALUE"),
        (["--target", "optioncloud", "--region", "a", "--zones", "c"], 65, '--zones is "c", but must be a or b'),
        (["--target", "optioncloud"], 64, "--region is missing"),
        (["--target", "directory", "--share", "public"], 64, "there is no option --share for the target directory"),
    ],
)
def test_wrong_option_is_one_line(capsys, words, code, message):
    assert main.main(["upload", "a.raw", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.usefixtures("cloud")
def test_words_behind_two_dashes_name_no_target():
    context = command(params=[click.Argument(["rest"], nargs=-1)]).make_context("try", ["--", "--target", "x"])
    assert context.params["target"] == "ec2"


def test_list_loads_no_platform(tmp_path):
    code = "import sys; from clouduploader.cli import main; main.main(sys.argv[1:]); print(*sys.modules)"
    words = ["list", "--json", "--spool", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    answer, loaded = done.stdout.splitlines()
    assert json.loads(answer)["data"]["jobs"] == []
    assert not [name for name in loaded.split() if name.startswith("clouduploader.platforms.")]


@pytest.mark.usefixtures("cloud")
def test_problem_between_fields_has_the_names_of_all_their_options(tmp_path, capsys):
    image = tmp_path / "a.raw"
    image.write_bytes(b"x")
    words = ["upload", str(image), "--target", "optioncloud", "--region", "here", "--size", "3"]
    assert main.main(["--home", str(tmp_path), "--spool", str(tmp_path), *words]) == 65
    assert "clouduploader: --tenant and --api-key-file must both be there, or no size." in capsys.readouterr().err
