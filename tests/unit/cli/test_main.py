import importlib
import inspect
import json
import signal
import subprocess
import sys

import click
import pytest
from samples import finished_job

from clouduploader import errors
from clouduploader.cli import main, output, program
from clouduploader.cli.options import json_option, pass_session
from clouduploader.errors import ClouduploaderError, StoppedError

ACCOUNT_COMMANDS = ("create", "show", "set", "list", "remove", "verify")
ERRORS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, ClouduploaderError) and value is not StoppedError
]
"""All of them; which code each has stands in tests/contract/test_exit_codes.py."""


@pytest.fixture
def run(add_command, capsys):
    """A factory: run the program with a made-up subcommand `fail` that raises an exception."""

    def run(exception, *arguments):
        @click.command()
        @json_option
        def fail_command():
            raise exception

        add_command("fail", fail_command)
        code = main.main([*arguments[:1], "fail", *arguments[1:]] if arguments else ["fail"])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("kind", ERRORS)
def test_error_ends_with_its_code_and_one_line(run, kind):
    error = kind("it broke.", hint="Mend it.")
    assert run(error) == (kind.exit_code, "", "clouduploader: it broke. Mend it.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_ends_with_128_and_the_signal(run, number):
    code, _, err = run(StoppedError(number))
    assert code == 128 + number
    assert err == f"clouduploader: stopped by {number.name}.\n"


def test_error_without_hint_is_one_clean_line(run):
    assert run(errors.DataError("bad\nuser \x1b[31m")) == (65, "", "clouduploader: bad\\nuser \\x1b[31m.\n")


def test_bug_is_one_line_without_traceback(run):
    code, out, err = run(ZeroDivisionError("secret in here"))
    assert code == 70
    assert out == ""
    assert err == (
        "clouduploader: this is a bug in clouduploader: ZeroDivisionError. "
        "Run it again with --verbose, and report what it says.\n"
    )


def test_bug_shows_its_traceback_if_verbose(run):
    code, out, err = run(ZeroDivisionError("by \x1b zero"), "-v")
    assert code == 70
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: by \\x1b zero\n" in err


def test_expected_error_shows_no_traceback_even_if_verbose(run):
    assert run(errors.ConfigError("no region"), "-v") == (78, "", "clouduploader: no region.\n")


def test_failed_system_call_is_an_io_error(run):
    code, _, err = run(OSError(28, "No space left on device", b"/srv/\xff"))
    assert code == 74
    assert err == "clouduploader: reading or writing failed: /srv/\\udcff: No space left on device.\n"


def test_interrupt_ends_with_130(run):
    code, out, err = run(KeyboardInterrupt())
    assert (code, out) == (130, "")
    assert err.strip() == "clouduploader: stopped"


@pytest.mark.parametrize(
    ("exception", "code", "kind"),
    [
        (errors.NoSuchJobError("no job 7", hint="Look."), 66, "NoSuchJobError"),
        (ZeroDivisionError(), 70, "ClouduploaderError"),
        (FileNotFoundError(2, "No such file", "/x"), 74, "LocalIOError"),
    ],
)
def test_failure_with_json_is_the_envelope(run, exception, code, kind):
    exit_code, out, err = run(exception, "--quiet", "--json")
    document = json.loads(out)
    assert (exit_code, err) == (code, "")
    assert set(document) == {"version", "command", "exit_code", "data", "error"}
    assert document["command"] == "fail"
    assert document["exit_code"] == code
    assert document["data"] is None
    assert document["error"]["kind"] == kind
    assert set(document["error"]) == {"kind", "message", "hint"}


def test_wrong_option_with_json_is_the_envelope(run):
    code, out, err = run(ZeroDivisionError(), "-q", "--json", "--colour")
    assert (code, err) == (64, "")
    assert json.loads(out)["error"] == {
        "kind": "UsageError",
        "message": "there is no option --colour",
        "hint": "See `clouduploader fail --help`.",
    }


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--json", "list"], "clouduploader"), (["account", "--json", "list"], "clouduploader account")],
)
def test_json_before_the_command_is_told_to_go_behind_it(capsys, arguments, shown):
    assert main.main(arguments) == 64
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "--json stands before the command that it is for"
    assert error["hint"] == f"Put it behind. See `{shown} --help`."


@pytest.mark.parametrize(
    ("arguments", "found", "hint"),
    [
        (["lsit"], "there is no command lsit. Did you mean list?", "See `clouduploader --help`."),
        (["zzzz"], "there is no command zzzz.", "See `clouduploader --help`."),
        (
            ["account", "shwo"],
            "there is no command account shwo. Did you mean show?",
            "`clouduploader account --help`.",
        ),
        (["--hmoe", "x"], "there is no option --hmoe. Did you mean --home?", "See `clouduploader --help`."),
        (["list", "--stat", "x"], "there is no option --stat. Did you mean --state?", "`clouduploader list --help`."),
        (
            ["list", "--state", "fialed"],
            "--state is 'fialed', but must be one of created,",
            "`clouduploader list --help`.",
        ),
        (["list", "--state", "fialed"], "Did you mean failed?", "`clouduploader list --help`."),
        (["list", "--limit", "-3"], "--limit is '-3', but must be a whole number of at least 0.", "list --help`."),
        (["kill", "--timeout", "x", "1"], "--timeout is 'x', but must be a number of at least 0.", "kill --help`."),
        (["sandbox", "--wait-factor", "2"], "but must be a number greater than 0 and at most 1.", "sandbox --help`."),
        (["list", "--running=3"], "--running takes no value", ""),
        (["list", "--user"], "--user needs a value", ""),
        (["kill"], "JOB... is missing.", "See `clouduploader kill --help`."),
        (["fail", "x\ny"], "unexpected argument: x y", "See `clouduploader fail --help`."),
    ],
)
def test_wrong_arguments_end_with_64_and_one_line(add_command, capsys, arguments, found, hint):
    add_command("fail", click.Command("fail"))
    assert main.main(arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("clouduploader: ")
    assert found in line
    assert line.rstrip(".").endswith(hint.rstrip("."))


def test_no_arguments_show_the_help_on_stderr(capsys):
    assert main.main([]) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: clouduploader [OPTIONS] COMMAND [ARGS]...\n")


def test_success_returns_what_the_command_returned(add_command, capsys):
    @click.command()
    @click.argument("code", type=int)
    @json_option
    @pass_session
    def give_command(session, code):
        output.print_json(session, {"given": code}, exit_code=code)
        return code or None

    add_command("give", give_command)
    assert [main.main(["give", "0", "--json"]), main.main(["give", "65", "--json"])] == [0, 65]
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["exit_code"] for document in documents] == [0, 65]
    assert [document["command"] for document in documents] == ["give", "give"]


def test_global_options_reach_the_session(add_command, tmp_path):
    seen = []
    add_command("look", click.Command("look", callback=pass_session(seen.append)))
    assert main.main(["-v", "--home", str(tmp_path), "--spool=/x", "look"]) == 0
    (session,) = seen
    assert (session.is_verbose, session.is_quiet, session.is_json) == (True, False, False)
    assert session.config.home.value == tmp_path
    assert str(session.config.spool.value) == "/x"


def test_global_options_may_stand_behind_the_command(add_command, tmp_path):
    seen = []
    add_command("look", click.Command("look", callback=pass_session(seen.append)))
    assert main.main(["--spool=/y", "look", "-qv", "--home", str(tmp_path), "--spool", "/x"]) == 0
    (session,) = seen
    assert (session.is_verbose, session.is_quiet) == (True, True)
    assert (session.config.home.value, str(session.config.spool.value)) == (tmp_path, "/x")


@pytest.mark.parametrize("name", [*sorted(program.COMMANDS), *(f"account {name}" for name in ACCOUNT_COMMANDS)])
def test_every_command_takes_the_global_options(name, tmp_path, capsys):
    assert main.main([*name.split(), "-q", "-v", f"--home={tmp_path}", f"--spool={tmp_path}", "--help"]) == 0
    assert "--spool DIR" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(program.COMMANDS))
def test_every_command_has_help_and_an_own_module(name):
    context = click.Context(program.clouduploader_command)
    command = program.clouduploader_command.get_command(context, name)
    assert command.name == name
    assert command.help
    assert importlib.import_module(f"clouduploader.cli.{name}")
    unexplained = [p.name for p in command.get_params(context) if isinstance(p, click.Option) and not p.help]
    assert unexplained == []


def test_help_names_every_command(capsys):
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in program.COMMANDS if f"\n  {name} " not in shown] == []


def test_help_loads_nothing_heavy():
    code = "from clouduploader.cli import main; main.main(['--help']); import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sdks = {"azure", "boto3", "botocore", "google", "keystoneauth1", "openstack", "requests"}
    heavy = sdks | {"rich", "moto", "asyncssh", "cryptography", "gnupg", "aiohttp", "http.client"}
    assert heavy & set(done.stderr.split()) == set()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A spool with a job that has a log, and an image `a.raw` beside it."""
    place = tmp_path_factory.mktemp("place")
    finished_job.lay_out(place)
    return place


ODD_PATHS = {
    "ENAMETOOLONG": "n" * 300,
    "ENAMETOOLONG of all": "d/" * 2600 + "x",
    "ELOOP": "loop",
    "ELOOP on the way": "loop/x",
    "ENOTDIR": "a.raw/x",
    "EISDIR": "spool",
    "ENOENT": "nothing",
    "not UTF-8": "\udcff\n",
    "empty": "",
}
PATH_USERS = {
    "--home": ["--home", "{}", "account", "list"],
    "--spool": ["--spool", "{}", "list"],
    "--spool of a job": ["--spool", "{}", "inspect", "1"],
    "--spool to make a job in": ["--spool", "{}", "submit", "--target", "directory", "a.raw"],
    "image": ["image", "{}"],
    "submit": ["--spool", "spool", "submit", "--target", "directory", "{}"],
    "upload": ["--spool", "spool", "upload", "--dry-run", "--target", "directory", "{}"],
    "upload --data": ["--spool", "spool", "upload", "--dry-run", "--target", "directory", "--data", "{}", "a.raw"],
    "upload --events": ["--spool", "spool", "upload", "--dry-run", "--target", "directory", "--events", "{}", "a.raw"],
    "check --data": ["check", "--data", "{}"],
    "cleanup --data": ["cleanup", "--data", "{}"],
    "encrypt": ["encrypt", "{}"],
    "encrypt --output": ["encrypt", "--output", "{}", "a.raw"],
}


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("kind", ODD_PATHS)
@pytest.mark.parametrize("user", PATH_USERS)
def test_path_that_the_system_refuses_is_one_line(user, kind, place, capfd, monkeypatch):
    monkeypatch.chdir(place)
    if not (place / "loop").is_symlink():
        (place / "loop").symlink_to("loop")
    words = [word.format(ODD_PATHS[kind]) for word in PATH_USERS[user]]
    code = main.main(words if "--home" in words else ["--home", "home", *words])
    shown = capfd.readouterr()
    assert code in (0, 64, 65, 66, 69, 73, 74, 78)
    assert "bug" not in shown.err + shown.out
    assert "Traceback" not in shown.err + shown.out
    assert len([line for line in shown.err.splitlines() if line.startswith("clouduploader: ")]) == bool(
        code and not shown.out
    )
