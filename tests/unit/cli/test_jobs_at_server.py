"""The commands that look after jobs, with --server: what they print is what they print of the spool."""

import pytest
from fakes.scripted_server import chunked, ok, refusal
from samples.json_answers import data_of

from clouduploader.cli import job_view, main
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

FIELD_KEYS = set(job_view.FIELDS) | {"job", "archived", "damage"}
DONE = ok(b'<status code="ok" />\n')
LOG = b"Phase: upload\nCreated instance i-1 in here.\nb\xff\x1b[31m\tend\n"
ENTRY = ok(b'<directory><entry name="_log" size="%d" mtime="0"/></directory>' % len(LOG))


def job(state=JobState.UPLOADING, **fields):
    return ok(job_xml.serialize(Job(name="7", state=state, user="tom", **fields)))


@pytest.fixture
def run(home, capfdbinary):
    """Return a function that runs the program on a server; gives the exit code, stdout and stderr."""

    def run(server, command, *words):
        code = main.main(["--home", str(home), command, "--server", server.url, *words])
        out, err = capfdbinary.readouterr()
        return int(code), out.decode("utf-8", "surrogateescape"), err.decode()

    return run


@pytest.fixture
def run_json(run):
    """As `run`, with --json; gives the exit code and the data, having checked the envelope."""

    def run_with(*arguments):
        code, out, _ = run(*arguments, "--json")
        return code, data_of(out, arguments[1], code)

    return run_with


def test_list_has_the_fields_of_a_spools(make_server, run, run_json):
    record = job_xml.serialize(Job(name="7", state=JobState.SUCCEEDED, details="ami-1", created=0))
    listed = ok(b"<clouduploadjoblist>" + record + b"</clouduploadjoblist>")
    server = make_server(listed, listed)
    code, data = run_json(server, "list")
    assert (code, data["total"], set(data["jobs"][0])) == (0, 1, FIELD_KEYS)
    assert (data["jobs"][0]["job"], data["jobs"][0]["archived"], data["jobs"][0]["details"]) == ("7", True, "ami-1")
    code, out, err = run(server, "list")
    assert (code, err) == (0, "")
    assert [line.split("\t")[:3] for line in out.splitlines()] == [
        ["job", "state", "created"], ["7", "succeeded", "1970-01-01T00:00:00Z"],
    ]  # fmt: skip


def test_inspect_has_the_keys_of_a_spools_and_null_for_what_a_server_does_not_tell(make_server, run_json):
    code, data = run_json(make_server(job(pid=5), ENTRY, chunked(LOG)), "inspect", "7")
    assert code == 0
    assert set(data) == FIELD_KEYS | {
        "ended", "image_bytes", "paths", "process", "pids", "phase", "objects", "log", "journal",
    }  # fmt: skip
    unknown = ("ended", "image_bytes", "paths", "process", "pids", "journal")
    assert {key: data[key] for key in unknown} == dict.fromkeys(unknown)
    assert (data["pid"], data["phase"]) == (5, "upload")
    assert data["objects"] == [{"kind": "instance", "id": "i-1", "region": "here"}]
    assert data["log"] == {
        "size_bytes": len(LOG), "changed": "1970-01-01T00:00:00Z", "held": None,
        "last_lines": ["Phase: upload", "Created instance i-1 in here.", "b\ufffd\x1b[31m\tend"],
    }  # fmt: skip


def test_inspect_leaves_out_what_a_server_does_not_tell(make_server, run):
    code, out, err = run(make_server(job(), ENTRY, chunked(LOG)), "inspect", "7", "-n", "1")
    assert (code, err) == (0, "")
    assert out.endswith("\n\nb\ufffd\\x1b[31m\\tend\n")
    names = [line.split("\t")[0] for line in out.split("\n\n")[0].splitlines()]
    assert names == ["job", "state", "user", "log bytes", "log changed", "phase", "object"]


@pytest.mark.parametrize(
    ("state", "expected"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 76), (JobState.UPLOADING, 0)]
)
def test_log_ends_with_the_outcome(make_server, run, run_json, state, expected):
    server = make_server(*[job(state, details="why"), ENTRY, ok(LOG)] * 2)
    assert run(server, "log", "7") == (expected, LOG.decode("utf-8", "surrogateescape"), "")
    assert run_json(server, "log", "7") == (
        expected, {"job": "7", "state": state, "details": "why", "log": LOG.decode("utf-8", "replace")},
    )  # fmt: skip


def test_followed_log_tells_the_outcome(make_server, run):
    server = make_server(job(), ENTRY, job(), ENTRY, chunked(LOG), job(JobState.FAILED, details="no"), ENTRY)
    assert run(server, "log", "-f", "7") == (76, LOG.decode("utf-8", "surrogateescape"), "job 7 failed: no\n")


def test_kill_has_the_keys_of_a_spools(make_server, run, run_json):
    killed = [job(), DONE, job(JobState.FAILED, details="killed")]
    server = make_server(*killed, *killed, job(JobState.SUCCEEDED))
    assert run(server, "kill", "-y", "7") == (0, "job 7: killed\n", "")
    assert run_json(server, "kill", "-y", "7") == (
        0,
        {
            "jobs": [
                {
                    "job": "7", "state": "failed", "exit_code": 0, "finished_before": False, "process": None,
                    "forced": False, "remaining_pids": None, "removed": None, "left": None, "error": None,
                }
            ]
        },
    )  # fmt: skip
    assert run(server, "kill", "-y", "7") == (0, "job 7: is over already: succeeded\n", "")


@pytest.mark.parametrize("option", ["--wait", "--force"])
def test_kill_that_needs_the_spool_asks_for_nothing(make_server, run, option):
    server = make_server()
    code, out, err = run(server, "kill", "-y", option, "7")
    assert (code, out, server.requests) == (64, "", [])
    assert "need the spool" in err


@pytest.mark.parametrize(
    ("command", "words"),
    [("list", []), ("inspect", ["7"]), ("log", ["7"]), ("log", ["-f", "7"]), ("kill", ["-y", "7"])],
)
@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (refusal("403 x", "not from there"), 77, "refused: not from there (HTTP 403)"),
        (refusal("500 x", "Too many open files"), 75, "refused: Too many open files (HTTP 500)"),
        (b"", 75, "hung up"),
        (b"220 smtp\r\n", 76, "is no HTTP server"),
    ],
)
def test_trouble_with_a_server_is_one_line(make_server, run, command, words, reply, code, message):
    found, out, err = run(make_server(reply), command, *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["inspect", "log", "kill"])
def test_unknown_job_of_a_server_is_no_input(make_server, run, command):
    server = make_server(refusal("404 no such job", "no such job"))
    code, _, err = run(server, command, *(["-y"] if command == "kill" else []), "7")
    assert code == 66
    assert f"there is no job 7 at {server.url}" in err


def test_server_of_the_environment_is_asked_unless_a_spool_is_named(make_server, make_spool, home, monkeypatch, capfd):
    server = make_server(ok(b"<clouduploadjoblist/>"))
    monkeypatch.setenv("CLOUDUPLOADER_SERVER", server.url)
    assert main.main(["--home", str(home), "--spool", str(make_spool().directory), "list"]) == 0
    assert server.requests == []
    assert main.main(["--home", str(home), "list"]) == 0
    assert len(server.requests) == 1
    assert main.main(["--home", str(home), "--spool", "x", "list", "--server", server.url]) == 64
    assert "two places" in capfd.readouterr().err
