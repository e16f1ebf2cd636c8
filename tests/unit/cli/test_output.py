import io
import json

import click
import pytest

import clouduploader
from clouduploader.cli import output
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode, NoSuchJobError, UsageError

HOSTILE = "[red]a\tb\x1b[31m\n[/etc]\u202e\udcff"
SHOWN = r"[red]a\tb\x1b[31m\n[/etc]\u202e\udcff"


def test_envelope_of_success_has_all_keys():
    session = Session()
    session.command = "list"
    document = json.loads(output.envelope(session, data={"jobs": []}, error=None, exit_code=0))
    assert document == {
        "version": clouduploader.__version__,
        "command": "list",
        "exit_code": 0,
        "data": {"jobs": []},
        "error": None,
    }


def test_envelope_of_failure_has_the_same_keys():
    error = NoSuchJobError("no job 7", hint="See `clouduploader list`.")
    document = json.loads(output.envelope(Session(), data=None, error=error, exit_code=66))
    assert document == {
        "version": clouduploader.__version__,
        "command": None,
        "exit_code": 66,
        "data": None,
        "error": {"kind": "NoSuchJobError", "message": "no job 7", "hint": "See `clouduploader list`."},
    }


def test_json_is_one_line_of_ascii(capsys):
    output.print_json(Session(), {"user": HOSTILE}, exit_code=ExitCode.DATA)
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["data"] == {"user": HOSTILE}
    assert json.loads(line)["exit_code"] == 65


def test_json_of_a_long_list_is_one_line(capsys):
    output.print_json_stream(Session(), {"total": 3}, key="jobs", items=({"job": str(job)} for job in (3, 2, 1)))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line)["data"] == {"total": 3, "jobs": [{"job": "3"}, {"job": "2"}, {"job": "1"}]}


def test_piped_fields_have_a_tab_between(capsys):
    output.print_fields([])
    output.print_fields([("user", HOSTILE), ("pid", None)])
    assert capsys.readouterr().out == f"user\t{SHOWN}\npid\t\n"


def test_fields_on_a_terminal_are_aligned(run_on_terminal):
    shown = run_on_terminal("output.print_fields([('user', 'joe'), ('state', 'a\\tb')])")
    assert shown == "user:  joe\nstate: a\\tb\n"


def test_warning_goes_to_stderr_unless_quiet(capsys):
    session = Session()
    output.warn(session, "secret.pem\x1b is world-readable")
    session.is_quiet = True
    output.warn(session, "unheard")
    captured = capsys.readouterr()
    assert captured.err == "clouduploader: warning: secret.pem\\x1b is world-readable\n"
    assert captured.out == ""


def test_confirm_needs_a_terminal_or_an_agreement(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match=r"Kill job 7\?"):
        output.confirm(Session(), "Kill job 7?", is_agreed=False)
    output.confirm(Session(), "Kill job 7?", is_agreed=True)


def test_confirm_asks_nobody_where_the_answer_is_json(monkeypatch):
    session = Session()
    session.is_json = True
    with pytest.raises(UsageError, match="there is no question"):
        output.confirm(session, "Kill job 7?", is_agreed=False)


@pytest.mark.parametrize(("answer", "is_agreed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_confirm_takes_the_answer_of_a_terminal(monkeypatch, capsys, answer, is_agreed):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if is_agreed:
        output.confirm(Session(), "Kill job 7?", is_agreed=False)
    else:
        with pytest.raises(click.Abort):
            output.confirm(Session(), "Kill job 7?", is_agreed=False)
    captured = capsys.readouterr()
    assert "Kill job 7?" in captured.err
    assert "Kill job 7?" not in captured.out
