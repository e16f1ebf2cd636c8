"""The routes of a cluster's hosts, and what administrators see of them."""

import datetime
import json
import threading
import time

import hypothesis
import pytest
from fakes import cluster_site
from fakes.cluster_site import PASSWORD, claim_id
from hypothesis import strategies as st

from clouduploader.cluster import protocol
from clouduploader.model.job import JobState
from clouduploader.server.api import cluster as routes
from clouduploader.store.tokens import Role, TokenStore

GREETING = {"name": "h1", "protocol": 1, "version": "1", "slots": 2, "queues": ["uploads"], "clock": 0}
CLAIM = {"attempt": 1, "claim": claim_id(1), "host": "h1", "protocol": 1}
OWN = {"attempt": 1, "claim": claim_id(1)}
QUERY = f"attempt=1&claim={claim_id(1)}"
BYTES = "application/octet-stream"


class Client:
    """Clients of a server with a cluster; `site` is its side of it, `waiting` what the broker tells."""

    def __init__(self, site, serve, home, **section):
        self.site, self.waiting = site, {}
        self.server = serve(site.jobs, cluster=site.parts(lambda: self.waiting), **section)
        store, now = TokenStore(home), datetime.datetime.now(datetime.UTC)
        self.tokens = {
            role: store.create("tom", role, note="", expires=None, now=now)[1] for role in Role.__members__.values()
        }

    def ask(self, method, target, body=None, *, role=Role.WORKER, **headers):
        """Return status and what is in the answer."""
        kind = BYTES if isinstance(body, bytes) else "application/json"
        headers = {"Content-Type": kind, "Connection": "close", **headers}
        if role:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, lines, answer = self.server.ask(method, f"/api/v1/cluster{target}", data, **headers)
        is_json = any(line.startswith("Content-Type: application/") and "json" in line for line in lines)
        return int(status[:3]), json.loads(answer) if is_json else answer

    def claim(self, **changes):
        return self.ask("POST", "/jobs/7/claim", CLAIM | changes)


@pytest.fixture
def site(make_spool, make_job, home, install_package, monkeypatch):
    """The server's side of a cluster; see `cluster_site.Site`."""
    cluster_site.install_platform(install_package, monkeypatch)
    made = cluster_site.Site(make_spool(), home, make_job, beat_seconds=1)
    yield made
    made.leases.close()


@pytest.fixture
def client(site, serve, home):
    """See Client."""
    return Client(site, serve, home)


def test_host_claims_uploads_and_ends(client, site):
    site.publish(filename="a.raw.xz", size=8, arch="x86_64")
    status, found = client.claim()
    assert status == 200
    assert found["data"] == {"region": "here", "password": PASSWORD}
    assert found["secrets"] == [PASSWORD]
    assert (found["lease_seconds"], found["beat_seconds"], found["grace_seconds"]) == (30, 1, 900)
    assert found["image"] == {"size": 8, "sha256": cluster_site.SHA256}
    assert found["journal"]["files"] == {"journal": 0}
    assert found["job"] == {
        "user": "tom", "target": "made-up", "project": None, "repository": None, "package": None, "arch": "x86_64",
        "filename": "a.raw.xz", "size": 8, "created": 1795361942, "try": None,
    }  # fmt: skip
    assert client.ask("POST", f"/jobs/7/log?{QUERY}&offset=0", b"one\n") == (200, {"offset": 4})
    assert client.ask("POST", f"/jobs/7/log?{QUERY}&offset=9", b"x") == (200, {"offset": 4})
    entry = b'{"what": "begin", "job": "7"}\n'
    assert client.ask("POST", f"/jobs/7/journal?{QUERY}&file=platform/a&offset=0", b"abc") == (200, {"offset": 3})
    assert client.ask("POST", f"/jobs/7/journal?{QUERY}&file=platform/a&replace=true", b"xy") == (200, {"offset": 2})
    assert client.ask("POST", f"/jobs/7/journal?{QUERY}&file=platform/b&replace=true", b"z") == (200, {"offset": 1})
    assert client.ask("POST", f"/jobs/7/journal?{QUERY}&file=platform/b&remove=true", b"") == (200, {"offset": 0})
    assert client.ask("POST", f"/jobs/7/journal?{QUERY}&file=journal&offset=0", entry) == (200, {"offset": len(entry)})
    assert client.ask("GET", f"/jobs/7/journal?{QUERY}&file=journal&offset=2") == (200, entry[2:])
    assert client.ask("GET", f"/jobs/7/journal?{QUERY}&file=platform/a") == (200, b"xy")
    for target in ("file=platform/none", "file=journal&offset=999"):
        assert client.ask("GET", f"/jobs/7/journal?{QUERY}&{target}") == (200, b"")
    long = bytes(range(256)) * 4096 * 2 + b"end"
    for at in range(0, len(long), protocol.MAX_PIECE_BYTES):
        piece = long[at : at + protocol.MAX_PIECE_BYTES]
        client.ask("POST", f"/jobs/7/journal?{QUERY}&file=platform/long&offset={at}", piece)
    assert client.ask("GET", f"/jobs/7/journal?{QUERY}&file=platform/long") == (200, long)
    assert client.ask("POST", "/jobs/7/done", OWN | {"exit_code": 0, "result": "image-1"}) == (200, {})
    job, is_archived = site.jobs.read("7")
    assert (job.state, job.details, is_archived) == (JobState.SUCCEEDED, "image-1", True)
    status, problem = client.ask("POST", "/jobs/7/done", OWN | {"exit_code": 0, "result": "image-1"})
    assert (status, problem["code"]) == (409, "stale")
    log = client.server.log.getvalue()
    assert PASSWORD not in log
    assert claim_id(1) not in log
    assert "path=/api/v1/cluster/jobs/7/log" not in log  # nor any other that comes each second
    assert "path=/api/v1/cluster/jobs/7/claim" in log


def test_every_route_of_a_host_refuses_what_is_not_the_newest(client, site):
    site.publish()
    other = {"attempt": 1, "claim": claim_id(2)}
    query = f"attempt=1&claim={claim_id(2)}"
    for is_claimed in (False, True):
        if is_claimed:
            assert client.claim()[0] == 200
        for method, target, body in (
            ("POST", "claim", CLAIM | {"attempt": 2}),
            ("POST", "beat", other),
            ("POST", "beat", OWN | {"attempt": 2}),
            ("POST", f"log?{query}&offset=0", b"x"),
            ("POST", f"journal?{query}&file=journal", b"x"),
            ("GET", f"journal?{query}&file=journal", None),
            ("POST", "done", other | {"exit_code": 0}),
            ("POST", "release", other | {"reason": ""}),
        ):
            status, problem = client.ask(method, f"/jobs/7/{target}", body)
            assert (status, problem["code"]) == (409, "stale"), target
    assert client.claim() == client.claim()
    assert client.claim(claim=claim_id(2))[0] == 409
    assert site.jobs.log_path("7").read_bytes() == b""


def test_beat_waits_for_its_time_and_notes_the_progress(client, site):
    site.publish()
    client.claim()
    assert client.ask("POST", "/jobs/7/beat", OWN | {"progress": 42}) == (200, {"stop": False})
    assert client.ask("POST", "/jobs/7/beat", OWN) == (200, {"stop": False})
    assert site.jobs.read("7")[0].progress == 42


def test_beat_is_answered_while_a_piece_of_the_journal_takes_its_time(client, site):
    site.publish()
    client.claim()
    with site.leases.working("7", 1, OWN["claim"]):  # as long as the disk hangs
        assert client.ask("POST", "/jobs/7/beat", OWN | {"progress": 42}) == (200, {"stop": False})


def test_beat_is_answered_as_its_host_was_told_whatever_the_settings_say_now(client, site):
    site.cluster = cluster_site.settings(beat_seconds=0)
    site.publish()
    client.claim()
    site.cluster = cluster_site.settings(beat_seconds=600, lease_seconds=1800)
    assert client.claim()[1]["beat_seconds"] == 0
    assert client.ask("POST", "/jobs/7/beat", OWN) == (200, {"stop": False})


def test_kill_answers_a_waiting_beat_at_once(client, site):
    site.cluster = cluster_site.settings(beat_seconds=600, lease_seconds=1800)
    site.publish()
    client.claim()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.ask("POST", "/jobs/7/beat", OWN)))
    thread.start()
    while not site.leases._leases["7"].watchers:
        time.sleep(0.01)
    status, _, _ = client.server.ask("POST", "/cloudupload/7?cmd=kill", b"")
    assert status.startswith("200")
    site.leases.look({"7"})
    thread.join()
    assert answers == [(200, {"stop": True})]
    assert client.ask("POST", "/jobs/7/done", OWN | {"exit_code": 143}) == (200, {})
    assert not site.jobs.lease_path("7").exists()


def test_server_that_ends_answers_a_waiting_beat(client, site, serve):
    site.cluster = cluster_site.settings(beat_seconds=600, lease_seconds=1800)
    site.publish()
    client.claim()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.ask("POST", "/jobs/7/beat", OWN)))
    thread.start()
    while not site.leases._leases["7"].watchers:
        time.sleep(0.01)
    serve.stop()
    thread.join()
    assert answers == [(200, {"stop": False})]


def test_host_gives_a_job_back(client, site):
    site.publish()
    client.claim()
    assert client.ask("POST", "/jobs/7/release", OWN | {"reason": "the disk is full"}) == (200, {})
    assert site.state() is JobState.SCHEDULED


@pytest.mark.parametrize("header", [{"X_Forwarded_For": "10.0.0.1"}, {"Via": "1.1 p", "X_Forwarded_For": "10.0.0.1"}])
def test_target_data_go_in_clear_to_no_other_machine(site, serve, home, header):
    client = Client(site, serve, home, proxies="127.0.0.1", clear_tokens="yes", clients="10.0.0.0/8 127.0.0.0/8")
    site.publish()
    assert client.ask("POST", "/hosts", GREETING, **header)[0] == 200
    status, problem = client.ask("POST", "/jobs/7/claim", CLAIM, **header)
    assert (status, problem["code"]) == (403, "forbidden")
    assert site.state() is JobState.SCHEDULED
    private = header | {"X_Forwarded_Proto": "https"}
    assert client.ask("POST", "/jobs/7/claim", CLAIM, **private)[0] == 200


@pytest.mark.parametrize("role", [Role.USER, Role.ADMIN, None])
def test_others_take_no_jobs(client, site, role):
    site.publish()
    for route in routes.ROUTES:
        if route.right is routes.Right.WORK:
            target = route.path.removeprefix("/api/v1/cluster").replace("$job", "7")
            for method in route.methods:
                body = None if method == "GET" else CLAIM
                assert client.ask(method, target, body, role=role)[0] == 403, target
    assert site.state() is JobState.SCHEDULED


def test_host_with_another_token_does_not_speak_for_one_that_is_there(client, site, home):
    assert client.ask("POST", "/hosts", GREETING)[0] == 200
    now = datetime.datetime.now(datetime.UTC)
    client.tokens[Role.WORKER] = TokenStore(home).create("tom", Role.WORKER, note="", expires=None, now=now)[1]
    status, problem = client.ask("POST", "/hosts", GREETING | {"queues": []})
    assert (status, problem["detail"]) == (422, "another host is called h1: it has another token")
    site.publish()
    assert client.claim()[0] == 409
    assert client.claim(host="h2")[0] == 200


def test_hosts_greet_and_are_shown_and_drained(client, site):
    expected = {"drain": False, "greet_seconds": 10}
    assert client.ask("POST", "/hosts", GREETING) == (200, expected)
    site.publish()
    site.publish("8")
    client.claim()
    client.waiting = {"uploads": 1, "big": 0}
    status, found = client.ask("GET", "", role=Role.ADMIN)
    assert status == 200
    (host,) = found["hosts"]
    assert host["skew_seconds"] < -1e9
    assert host | {"seen": None, "skew_seconds": 0} == {
        "name": "h1", "version": "1", "protocol": 1, "slots": 2, "busy": 1, "queues": ["uploads"], "seen": None,
        "skew_seconds": 0, "draining": False, "gone": False,
    }  # fmt: skip
    big, uploads = found["queues"]
    assert big == {"name": "big", "published": 0, "oldest": None, "waiting": 0}
    assert (uploads["name"], uploads["published"], uploads["waiting"]) == ("uploads", 1, 1)
    (lease,) = found["leases"]
    since, until = (datetime.datetime.fromisoformat(lease[name]) for name in ("since", "until"))
    assert 0 < (until - since).total_seconds() < 60
    assert lease | {"since": None, "until": None} == {
        "job": "7", "user": "tom", "host": "h1", "attempt": 1, "takeovers": 0, "since": None, "until": None,
        "queue": "uploads",
    }  # fmt: skip
    assert client.ask("POST", "/hosts/h1/drain", {"drain": True}, role=Role.ADMIN) == (200, {})
    assert client.ask("POST", "/hosts", GREETING)[1]["drain"]
    assert client.ask("GET", "", role=Role.ADMIN)[1]["hosts"][0]["draining"]
    assert client.ask("POST", "/hosts/h1/drain", {"drain": False}, role=Role.ADMIN) == (200, {})
    assert not client.ask("POST", "/hosts", GREETING)[1]["drain"]
    assert client.ask("POST", "/hosts/a%20b/drain", {"drain": True}, role=Role.ADMIN)[0] == 422
    for role in (Role.WORKER, Role.USER):
        assert client.ask("GET", "", role=role)[0] == 403


def test_host_that_is_drained_gets_no_job_and_keeps_those_that_it_has(client, site):
    site.publish()
    site.publish("8", filename="another.raw")
    assert client.claim()[0] == 200
    client.ask("POST", "/hosts/h1/drain", {"drain": True}, role=Role.ADMIN)
    assert client.claim()[0] == 200
    status, problem = client.ask("POST", "/jobs/8/claim", CLAIM)
    assert (status, problem["detail"]) == (409, "the host h1 is to take no more jobs")
    assert site.state("8") is JobState.SCHEDULED
    site.leases.publish("8", "uploads")
    assert client.ask("POST", "/jobs/8/claim", CLAIM | {"attempt": 2, "host": "h2"})[0] == 200


def test_server_without_a_cluster_says_so(make_spool, serve, home):
    server = serve(make_spool())
    token = TokenStore(home).create("tom", Role.WORKER, note="", expires=None, now=datetime.datetime.now(datetime.UTC))[
        1
    ]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    status, _, body = server.ask("POST", "/api/v1/cluster/hosts", json.dumps(GREETING).encode(), **headers)
    assert status.startswith("409")
    assert json.loads(body)["detail"] == "this server has no cluster"


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("claim", CLAIM | {"claim": "x" * 32}, 422),
        ("claim", CLAIM | {"claim": "0" * 31}, 422),
        ("claim", CLAIM | {"attempt": 0}, 422),
        ("claim", CLAIM | {"attempt": "1"}, 422),
        ("claim", CLAIM | {"host": "../x"}, 422),
        ("claim", CLAIM | {"host": "h\n"}, 422),
        ("claim", CLAIM | {"more": 1}, 422),
        ("claim", [], 422),
        ("claim", b"{}", 415),
        ("beat", OWN | {"progress": 101}, 422),
        ("done", OWN | {"exit_code": 256}, 422),
        ("done", OWN, 422),
        (f"log?{QUERY}&offset=-1", b"x", 422),
        (f"log?{QUERY}", b"x", 422),
        (f"log?{QUERY}&offset=0", {}, 415),
        (f"log?{QUERY}&offset=0", b"x" * (protocol.MAX_PIECE_BYTES + 1), 413),
        (f"journal?{QUERY}&file=targetdata", b"x", 422),
        (f"journal?{QUERY}&file=../journal", b"x", 422),
        (f"journal?{QUERY}&file=platform/../../x", b"x", 422),
        (f"journal?{QUERY}&file=platform/.x&replace=true", b"x", 422),
        (f"journal?{QUERY}&file=platform/x%00&remove=true", b"", 422),
        (f"journal?{QUERY}&file=journal&replace=true", b"x", 422),
        (f"journal?{QUERY}&file=journal&remove=true", b"", 422),
        (f"journal?{QUERY}&file=journal&offset=99999999999999999999", b"x", 422),
    ],
)
def test_what_no_host_sends_is_refused(client, site, target, body, status):
    site.publish()
    client.claim()
    before = {path: path.read_bytes() for path in site.jobs.directory.rglob("*") if path.is_file()}
    assert client.ask("POST", f"/jobs/7/{target}", body)[0] == status
    assert {path: path.read_bytes() for path in site.jobs.directory.rglob("*") if path.is_file()} == before


@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(
    st.sampled_from(["7", "8", "x", "..", "7\n", "\N{ARABIC-INDIC DIGIT SEVEN}"]),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.integers(0, 2**53 - 1),
    st.binary(max_size=50),
)
def test_hostile_pieces_change_nothing_but_the_upload_of_their_own(client, site, job, file, offset, data):
    if not site.jobs.job_path("7").exists():
        site.publish()
        client.claim()
    inside = {site.jobs.directory / "journal", site.jobs.log_path("7")}
    before = {path for path in site.jobs.directory.iterdir() if path not in inside}
    quoted = "".join(f"%{byte:02x}" for byte in file.encode())
    name = "".join(f"%{byte:02x}" for byte in job.encode())
    for method, target in (
        ("POST", f"log?{QUERY}&offset={offset}"),
        ("POST", f"journal?{QUERY}&file={quoted}&offset={offset}"),
        ("POST", f"journal?{QUERY}&file=platform%2f{quoted}&replace=true"),
        ("GET", f"journal?{QUERY}&file={quoted}&offset={offset}"),
    ):
        status, _ = client.ask(method, f"/jobs/{name}/{target}", data if method == "POST" else None)
        assert status in (200, 400, 404, 409, 422), (target, status)
    assert {path for path in site.jobs.directory.iterdir() if path not in inside} == before
