"""Connections of upload hosts, which are kept for another request; those of all others are not."""

import contextlib
import datetime
import json
import ssl
import time

import pytest
from fakes import cluster_site
from fakes.authority import Authority
from fakes.cluster_site import claim_id
from fakes.running_server import PATIENCE_SECONDS
from fakes.waiting import wait_for

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.server import service
from clouduploader.store.tokens import Role, TokenStore

GREETING = {"name": "h1", "protocol": 1, "version": "1", "slots": 2, "queues": ["uploads"], "clock": 0}
OWN = {"attempt": 1, "claim": claim_id(1)}
GREET = ("POST", "/api/v1/cluster/hosts", GREETING)
LOG = f"/api/v1/cluster/jobs/7/log?attempt=1&claim={claim_id(1)}&offset=0"
OTHERS = ["/", "/cloudupload", "/api/v1/me", "/ui", "/metrics", "/nothing"]


class Host:
    """An upload host with one connection."""

    def __init__(self, server, token):
        self._token, self.sock = token, server.connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, method, target, document=None, **headers):
        """Send a request; bytes go as they are."""
        is_raw = isinstance(document, bytes)
        body = document if is_raw else b"" if document is None else json.dumps(document).encode()
        kind = "application/octet-stream" if is_raw else "application/json"
        headers = {"Host": "a", "Authorization": f"Bearer {self._token}", "Content-Type": kind, **headers}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.sock.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)

    def answer(self):
        """Read an answer; return its status, whether the connection is kept, and its body."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65_536)
            assert piece
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        length = next((int(line[16:]) for line in lines if line.startswith("Content-Length: ")), 0)
        while len(body) < length:
            body += self.sock.recv(65_536)
        return int(status.split()[1]), "Connection: close" not in lines, body

    def ask(self, *request, **headers):
        self.send(*request, **headers)
        return self.answer()[:2]

    def is_closed(self):
        """Wait until the server hangs up; whether it sent nothing before."""
        with contextlib.suppress(ConnectionError):
            return self.sock.recv(1) == b""
        return True


@pytest.fixture
def site(make_spool, make_job, home, install_package, monkeypatch):
    """The server's side of a cluster, with the job 7 of the host h1; see `cluster_site.Site`."""
    cluster_site.install_platform(install_package, monkeypatch)
    made = cluster_site.Site(make_spool(), home, make_job, beat_seconds=0)
    made.publish()
    made.claim()
    yield made
    made.leases.close()


@pytest.fixture
def tokens(home):
    """A token of each role, by role; `store` and `ids` let a test revoke them."""
    now, store = datetime.datetime.now(datetime.UTC), TokenStore(home)
    made = {role: store.create("tom", role, note="", expires=None, now=now) for role in Role}

    class Tokens(dict):
        pass

    tokens = Tokens({role: text for role, (_, text) in made.items()})
    tokens.store, tokens.ids = store, {role: token.id for role, (token, _) in made.items()}
    return tokens


@pytest.fixture
def start(site, serve):
    """Return a function that starts the server."""
    return lambda **section: serve(site.jobs, cluster=site.parts(), **section)


@pytest.fixture
def start_tls(start, tmp_path):
    """The same with TLS."""
    authority = Authority(tmp_path / "pki")

    def start_tls(**section):
        pair = str(authority.issue("server"))
        server = start(tls_cert=pair, tls_key=pair, **section)
        server.context = ssl.create_default_context(cafile=authority.path)
        return server

    return start_tls


@pytest.fixture(params=["http", "https", "unix"])
def server(request, start, start_tls, tmp_path):
    """A server by each way to it."""
    if request.param == "unix":
        return start(listen="none", socket=str(tmp_path / "socket"))
    return start() if request.param == "http" else start_tls()


def test_host_asks_often_on_one_connection(server, tokens, site):
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        for number in range(3):
            assert host.ask("POST", "/api/v1/cluster/jobs/7/beat", OWN | {"progress": number}) == (200, True)
        piece = b"line\n" * 100_000
        for _ in range(2):
            assert host.ask("POST", LOG, piece) == (200, True)
        assert host.ask(*GREET) == (200, True)
    assert site.jobs.log_path("7").read_bytes() == piece
    assert "event=info" not in server.log.getvalue()


def test_client_of_a_host_has_one_connection_and_copes_with_its_end(start, tokens, monkeypatch):
    accepted, begin = [], service.ClientConnection.connection_made

    def connection_made(connection, transport):
        accepted.append(connection)
        begin(connection, transport)

    monkeypatch.setattr(service.ClientConnection, "connection_made", connection_made)
    server = start()
    client, claim = (
        ClusterServer("http://{}:{}".format(*server.address), tokens[Role.WORKER]),
        Claim("7", 1, claim_id(1)),
    )
    with contextlib.closing(client):
        for progress in range(5):
            assert not client.beat(claim, progress=progress, seconds=PATIENCE_SECONDS)
        assert len(accepted) == 1
        accepted[0]._loop.call_soon_threadsafe(accepted[0].force_close)  # as if it was without a request for too long
        wait_for(lambda: accepted[0].transport is None)
        assert not client.beat(claim, progress=5, seconds=PATIENCE_SECONDS)
        assert len(accepted) == 2


def test_answer_with_target_data_is_the_last_of_its_connection(start, tokens, site):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        claim = OWN | {"host": "h1", "protocol": 1}
        assert host.ask("POST", "/api/v1/cluster/jobs/7/claim", claim) == (200, False)
        assert host.is_closed()


@pytest.mark.parametrize(
    ("request_", "status"),
    [(("POST", "/api/v1/cluster/jobs/7/beat", OWN | {"attempt": 2}), 409), (("POST", LOG, {}), 415),
     (("POST", "/api/v1/cluster/hosts", {}), 422), (("GET", "/api/v1/cluster"), 403)],
)  # fmt: skip
def test_refusal_ends_the_connection_of_a_host(start, tokens, request_, status):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        assert host.ask(*request_) == (status, False)
        assert host.is_closed()


def test_token_is_looked_at_with_each_request(start, tokens):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        tokens.store.remove(tokens.ids[Role.WORKER])
        assert host.ask(*GREET) == (401, False)
        assert host.is_closed()


@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize("role", [Role.WORKER, Role.ADMIN])
def test_other_routes_end_the_connection_as_ever(start, tokens, target, role):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        host._token = tokens[role]
        assert host.ask("GET", target)[1] is False
        assert host.is_closed()


@pytest.mark.parametrize("rest", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HT", b"\0" * 100_000, b"\r\n"])
def test_what_comes_behind_a_request_that_waits_ends_the_connection(start, tokens, site, rest):
    site.cluster = cluster_site.settings(beat_seconds=600, lease_seconds=1800)
    site.leases.release("7", *OWN.values(), "")  # it was told to beat faster
    site.publish("8")
    site.claim("8")
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        host.send("POST", "/api/v1/cluster/jobs/8/beat", OWN)
        wait_for(lambda: site.leases._leases["8"].watchers)
        host.sock.sendall(rest)
        time.sleep(0.05)  # it may come at any time before the answer
        site.kill("8")
        site.leases.look({"8"})
        status, _, body = host.answer()
        assert (status, json.loads(body)) == (200, {"stop": True})
        assert host.is_closed()
    assert "event=error" not in server.log.getvalue()
    assert server.log.getvalue().count("path=/ ") == 0


def test_requests_that_come_at_once_get_one_answer(start, tokens):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host, Host(server, tokens[Role.WORKER]) as other:
        body = json.dumps(GREETING).encode()
        head = f"POST {GREET[1]} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tokens[Role.WORKER]}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        host.sock.sendall((head.encode() + body) * 50)
        assert host.answer()[:2] == (200, False)
        assert host.is_closed()
        assert other.ask(*GREET) == (200, True)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_client_that_wants_no_more_is_hung_up_on(start, tokens, version):
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        body = json.dumps(GREETING).encode()
        head = f"POST {GREET[1]} HTTP/{version}\r\nHost: a\r\nAuthorization: Bearer {tokens[Role.WORKER]}\r\n"
        head += "Connection: close\r\n" if version == "1.1" else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        host.sock.sendall(head.encode() + body)
        assert host.answer()[0] == 200
        assert host.is_closed()


def test_kept_connections_hold_up_no_end(start_tls, serve, tokens):
    server = start_tls()
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Host(server, tokens[Role.WORKER])) for _ in range(20)]
        for host in hosts:
            assert host.ask(*GREET) == (200, True)
        began = time.monotonic()
        serve.stop()
        assert time.monotonic() - began < PATIENCE_SECONDS / 2  # of what would wait for them
        assert all(host.is_closed() for host in hosts)


def test_new_settings_and_certificates_end_kept_connections_with_their_next_answer(start_tls, tokens):
    server = start_tls()
    with Host(server, tokens[Role.WORKER]) as host:
        for _ in range(2):
            assert host.ask(*GREET) == (200, True)
        server.source.request_reload()
        wait_for(lambda: "event=settings" in server.log.getvalue())
        assert host.ask(*GREET) == (200, False)
        assert host.is_closed()
    with Host(server, tokens[Role.WORKER]) as host:
        wait_for(lambda: server.log.getvalue().count("event=settings") == 2)


def test_kept_connections_are_closed_for_others(start_tls, tokens, monkeypatch):
    """By TLS each takes memory, with or without a request."""
    monkeypatch.setattr(service, "TLS_CONNECTION_BYTES", 1 << 20)
    server = start_tls(max_memory="16M")
    with contextlib.ExitStack() as stack:
        hosts = []
        for _ in range(18):
            hosts.append(stack.enter_context(Host(server, tokens[Role.WORKER])))
            assert hosts[-1].ask(*GREET) == (200, True)
        assert hosts[0].is_closed()
        assert hosts[-1].ask(*GREET) == (200, True)
    assert "it asked for nothing, and there are too many" in server.log.getvalue()


def test_memory_of_requests_on_a_kept_connection_is_given_back(start, tokens, site):
    server = start(max_memory="16M")
    with Host(server, tokens[Role.WORKER]) as host:
        for number in range(20):
            target = LOG.replace("offset=0", f"offset={number << 20}")
            assert host.ask("POST", target, b"x" * (1 << 20)) == (200, True)
    assert "was closed" not in server.log.getvalue()
    assert site.jobs.log_path("7").stat().st_size == 20 << 20


def test_client_that_sends_half_of_its_second_request_is_hung_up_on(start, tokens, monkeypatch):
    monkeypatch.setattr(service, "HEADER_SECONDS", 3.0)
    server = start()
    with Host(server, tokens[Role.WORKER]) as host:
        assert host.ask(*GREET) == (200, True)
        with contextlib.suppress(ConnectionError):
            host.sock.sendall(b"POST /api/v1/cluster/hosts HTTP/1.1\r\nX: ")
        assert host.is_closed()
