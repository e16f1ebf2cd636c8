"""`clouduploader cluster` against answers of a server."""

import datetime
import json

import pytest
from fakes.scripted_server import answer
from samples.json_answers import data_of

from clouduploader.cli import main

SEEN = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
TIME = SEEN.strftime("%Y-%m-%dT%H:%M:%SZ")
HOST = {"name": "a", "version": "1.0", "protocol": 1, "slots": 2, "busy": 1, "queues": ["uploads", "large"],
        "seen": TIME, "skew_seconds": -0.25, "draining": False, "gone": False}  # fmt: skip
QUEUE = {"name": "uploads", "published": 3, "oldest": TIME, "waiting": 4}
LEASE = {"job": "7", "user": "tom", "host": "a", "attempt": 2, "takeovers": 1, "since": TIME, "until": TIME,
         "queue": "uploads"}  # fmt: skip
STATUS = {"hosts": [HOST], "queues": [QUEUE], "leases": [LEASE]}


def document(found, status="200 OK"):
    return answer(status, json.dumps(found).encode(), "Content-Type: application/json")


def problem(status, detail):
    return document({"detail": detail}, status)


ME = document({"kind": "admin"})


@pytest.fixture
def run(home, capfd):
    """Return a function that runs `clouduploader cluster`; gives the exit code, stdout and stderr."""

    def run(*words):
        code = main.main(["--home", str(home), "cluster", *words])
        return int(code), *capfd.readouterr()

    return run


@pytest.fixture
def serve(make_server):
    """Return a function that starts a server with the API and these answers."""

    def start(*answers):
        server = make_server(ME, *answers)
        server.is_obs = False
        return server

    return start


def test_status_has_a_table_of_each(run, serve):
    changes = [{}, {"name": "b", "draining": True}, {"name": "c", "draining": True, "gone": True}]
    hosts = [HOST | change for change in [*changes, {"name": "d", "queues": []}]]
    queues = [STATUS["queues"][0], STATUS["queues"][0] | {"waiting": None}]
    code, out, err = run("status", "--server", serve(document(STATUS | {"hosts": hosts, "queues": queues})).url)
    assert (code, err) == (0, "")
    tables = [[line.split("\t") for line in text.splitlines()] for text in out.split("\n\n")]
    assert [row[:4] for row in tables[0][1:]] == [
        ["a", "ready", "1", "2"], ["b", "draining", "1", "2"], ["c", "gone", "1", "2"],
        ["d", "not ready", "1", "2"],
    ]  # fmt: skip
    assert tables[0][1][5:] == ["1.0", "1", "-0.2s", "uploads large"]
    assert [[*row[:2], row[3]] for row in tables[1][1:]] == [["uploads", "3", "4"], ["uploads", "3", "?"]]
    assert tables[2][1][:2] + tables[2][1][3:5] == ["7", "a", "2", "1"]


def test_status_as_json_is_what_the_server_tells(run, serve):
    code, out, _ = run("status", "--server", serve(document(STATUS)).url, "--json")
    assert data_of(out, "cluster status", code) == STATUS


def test_host_is_drained(run, serve):
    server = serve(document({}), document(STATUS))
    assert run("drain", "a", "--server", server.url) == (0, "host a: takes no more jobs, and works on job 7\n", "")
    sent = server.requests[1]
    assert (sent.line, json.loads(sent.body)) == ("POST /api/v1/cluster/hosts/a/drain", {"drain": True})


def test_host_that_the_server_has_not_heard_of_is_drained_with_a_warning(run, serve):
    code, out, err = run("drain", "c", "--server", serve(document({}), document(STATUS)).url)
    assert (code, out) == (0, "host c: takes no more jobs, and works on no job\n")
    assert err == "clouduploader: warning: the server has not heard of a host c yet\n"


def test_drained_host_takes_jobs_again(run, serve):
    server = serve(document({}), document(STATUS | {"leases": []}))
    code, out, _ = run("undrain", "a", "--server", server.url, "--json")
    assert data_of(out, "cluster undrain", code) == {"host": "a", "draining": False, "jobs": []}
    assert json.loads(server.requests[1].body) == {"drain": False}


@pytest.mark.parametrize(
    ("answers", "words", "code", "said"),
    [([problem("409 Conflict", "this server has no cluster")], ["status"], 69, "this server has no cluster"),
     ([problem("403 Forbidden", "access denied for tom")], ["status"], 77, "access denied for tom"),
     ([document({"hosts": 5})], ["status"], 76, "a cluster that makes no sense")],
)  # fmt: skip
def test_refusal_is_one_line(run, serve, answers, words, code, said):
    server = serve(*answers)
    found, out, err = run(*words, "--server", server.url)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert said in err


def test_obs_server_has_no_cluster(run, make_server):
    code, _, err = run("status", "--server", make_server().url)
    assert (code, "has no cluster" in err) == (69, True)


def test_server_is_that_of_the_settings(run, serve, home):
    code, _, err = run("status")
    assert (code, "no server is named" in err) == (64, True)
    server = serve(document(STATUS))
    (home / "clouduploader.conf").write_text(f"[cluster]\nserver = {server.url}\n")
    assert run("status")[0] == 0
    (home / "clouduploader.conf").write_text(f"[cluster]\nserver = {server.url}\n[server]\nsocket = /nowhere/socket\n")
    code, _, err = run("status")
    assert (code, "unix:/nowhere/socket can't be reached" in err) == (75, True)
