"""Clients behind a proxy: what is believed of it, counted and logged."""

import re

import pytest

from clouduploader.server import replies
from clouduploader.server.obs import routes

PROXY = {"proxies": "127.0.0.2", "allow": "127.0.0.1", "clients": "127.0.0.3 192.0.2.0/24"}
OURS = (
    "/ui",
    "/api/v1/jobs",
    "/ui/ui.js",
    "/ui/nonsense",
    "/api/v1/jobs/4711",
    "/metrics",
    "/healthz",
    "/openapi.json",
    "/api/v1/jobs",
    "/api/v1/no",
)


@pytest.fixture
def server(serve, make_spool):
    """A server behind a proxy, which its clients are."""
    made = serve(make_spool(), **PROXY)
    made.source_address = ("127.0.0.2", 0)
    return made


def clients(server):
    return re.findall(r"event=request.* client=(\S+) role=(\S+)", server.log.getvalue())


def test_log_names_the_client_behind_a_trusted_proxy_alone(server):
    for source in ("127.0.0.2", "127.0.0.3"):
        server.source_address = (source, 0)
        server.ask("GET", "/serverstatus", X_Forwarded_For="127.0.0.1, 192.0.2.7")
    assert clients(server) == [("192.0.2.7", "stranger"), ("127.0.0.3", "stranger")]


def test_list_of_requests_names_the_client_behind_a_proxy(server):
    body = server.ask("GET", "/serverstatus", X_Forwarded_For="127.0.0.1")[2]
    assert b"GET (127.0.0.1)" in body


def test_answers_in_pieces_and_images_come_by_a_proxy(server, monkeypatch):
    monkeypatch.setattr(routes, "MAX_WHOLE_BYTES", 1)
    name, header = create(server), {"X_Forwarded_For": "127.0.0.1"}
    _, headers, body = server.ask("GET", "/cloudupload", **header)
    assert "Transfer-Encoding: chunked" in headers
    assert f'name="{name}"'.encode() in body
    assert server.ask("PUT", f"/cloudupload/{name}", b"abc", **header)[0] == "200 OK"


def create(server):
    server.source_address = None
    name = server.create(size=3)
    server.source_address = ("127.0.0.2", 0)
    return name


def test_all_answers_but_those_of_obs_have_the_headers_for_browsers(server):
    for source, path in (("127.0.0.1", path) for path in OURS):
        server.source_address = (source, 0)
        _, headers, _ = server.ask("GET", path)
        for name, value in replies.HARDENING.items():
            given = [line.partition(": ")[2] for line in headers if line.startswith(f"{name}: ")]
            assert given == [value] or (name, given) == ("Cache-Control", ["no-store"]), (path, name, headers)
        assert "frame-ancestors 'none'" in replies.POLICY
        assert not [line for line in headers if line.startswith("Strict-Transport-Security")]
    for path in ("/", "/cloudupload", "/cloudupload/1", "/serverstatus", "/nonsense"):
        names = {line.partition(":")[0] for line in server.ask("GET", path)[1]}
        assert names <= {"Content-Type", "Cache-Control", "Connection", "Content-Length", "Transfer-Encoding"}


def test_browser_is_told_to_come_by_tls_alone_where_it_has_come_by_tls(server):
    wanted = f"Strict-Transport-Security: {replies.TLS_ONLY}"
    tls = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "127.0.0.1"}
    assert wanted in server.ask("GET", "/ui", **tls)[1]
    server.source_address = None
    assert wanted not in server.ask("GET", "/ui", **tls)[1]
