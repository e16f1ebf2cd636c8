"""What all routes of the API have in common: their errors, methods, and what they tell of who asks."""

import json

import pytest


@pytest.fixture
def ask(serve, make_spool):
    """Return a function that asks a server, and returns status, headers and document."""
    server = serve(make_spool())

    def call(method, target, body=None, **headers):
        status, lines, data = server.ask(method, target, body, **headers)
        return status, lines, json.loads(data) if data else None

    return call


ERRORS = [
    ("GET", "/api/v1", 404, "not_found"),
    ("GET", "/api/v1/nothing", 404, "not_found"),
    ("GET", "/api/%761/nothing", 404, "not_found"),
    ("DELETE", "/api/v1/me", 405, "bad_method"),
    ("TRACE", "/api/v1/me", 405, "bad_method"),
    ("GET", "/api/v1/me?x=1", 400, "bad_request"),
    ("GET", "/api/v1/%ff", 400, "bad_request"),
    ("GET", "/api/v1/jobs/.x", 400, "bad_request"),
]


def test_every_error_is_a_problem(ask):
    for method, target, status, code in ERRORS:
        _, lines, problem = ask(method, target)
        assert "Content-Type: application/problem+json" in lines
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["detail"]


def test_wrong_method_is_told_the_right_ones(ask):
    assert "Allow: GET, HEAD" in ask("POST", "/api/v1/me", b"")[1]


def test_head_has_the_headers_of_get(ask):
    status, lines, document = ask("HEAD", "/api/v1/me")
    assert (status, document) == ("200 OK", None)
    assert "Content-Type: application/json" in lines
    assert "Cache-Control: no-store" in lines


def test_one_who_asks_is_told_the_own_rights(ask):
    found = ask("GET", "/api/v1/me")[2]
    assert (found["kind"], found["user"]) == ("backend", None)
    assert {"code": "see_jobs", "words": "see jobs and logs", "reach": "all"} in found["rights"]
