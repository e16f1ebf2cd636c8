"""Tokens by the API: shown once, of the own name and role, and worth no more than the one that makes them."""

import datetime
import json

import pytest

from clouduploader.server import state
from clouduploader.server.api import tokens


def test_token_is_shown_once_and_opens_the_server(ask_as):
    status, made = ask_as("tom", "POST", "/tokens", {"note": "laptop"})
    assert (status, made["user"], made["role"], made["note"], made["expires"]) == (201, "tom", "user", "laptop", None)
    me = ask_as.server.ask("GET", "/api/v1/me", Authorization=f"Bearer {made['token']}")[2]
    assert json.loads(me)["user"] == "tom"
    listed = ask_as("tom", "GET", "/tokens")[1]["tokens"]
    assert {one["user"] for one in listed} == {"tom"}
    assert {one["token"] for one in listed} == {None}
    assert made["token"][-20:] not in ask_as.server.log.getvalue()
    assert f"event=token_created user=tom role=user made={made['id']} by=tom" in ask_as.server.log.getvalue()


def test_user_makes_none_for_others_and_of_no_other_role(ask_as):
    for document in ({"user": "anna"}, {"role": "admin"}, {"role": "worker"}):
        assert ask_as("tom", "POST", "/tokens", document)[0] == 403
    assert {one.user for one in ask_as.store.tokens()} == {"tom"}


def test_administrator_makes_and_revokes_any(ask_as):
    status, made = ask_as("root", "POST", "/tokens", {"user": "anna", "role": "worker"})
    assert (status, made["user"], made["role"]) == (201, "anna", "worker")
    found = ask_as("root", "GET", "/tokens?user=anna")[1]["tokens"]
    assert [one["id"] for one in found] == [made["id"]]
    assert ask_as("root", "DELETE", f"/tokens/{made['id']}") == (204, None)
    assert ask_as("root", "DELETE", f"/tokens/{made['id']}")[0] == 404
    assert ask_as("root", "GET", "/tokens?user=anna")[1]["tokens"] == []


def test_token_lives_no_longer_than_the_one_that_makes_it(ask_as):
    soon = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(hours=1)
    wanted = f"{soon:%Y-%m-%dT%H:%M:%SZ}"
    for document in ({}, {"expires": "2999-01-01T00:00:00Z"}, {"expires": wanted}):
        status, made = ask_as("tom", "POST", "/tokens", document, expires=60)
        assert (status, datetime.datetime.fromisoformat(made["expires"]) < soon) == (201, True)
    status, made = ask_as("tom", "POST", "/tokens", {"expires": wanted}, expires=7200)
    assert (status, made["expires"]) == (201, wanted)
    for no_time in ("2001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"):
        assert ask_as("tom", "POST", "/tokens", {"expires": no_time})[0] == 422


@pytest.mark.parametrize("seconds", [0, 60])
def test_token_that_is_revoked_while_a_body_comes_makes_none(ask_as, monkeypatch, seconds):
    """A thief's last request, begun before; what it made would live on."""
    monkeypatch.setattr(state, "SURE_SECONDS", seconds)
    made = ask_as("tom", "POST", "/tokens", {})[1]
    with ask_as.server.connect() as client:
        client.sendall(
            b"POST /api/v1/tokens HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\nAuthorization: Bearer " + made["token"].encode() + b"\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert ask_as("tom", "DELETE", f"/tokens/{made['id']}")[0] == 204
        client.sendall(b"{}")
        assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
    assert not [one for one in ask_as.store.tokens() if one.note == ""]


def test_user_has_not_any_number(ask_as, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_TOKENS", 3)
    assert [ask_as("tom", "POST", "/tokens", {})[0] for _ in range(2)] == [201, 409]


def test_note_that_is_none_is_refused(ask_as):
    assert ask_as("tom", "POST", "/tokens", {"note": "x" * 256})[0] == 422
    assert ask_as("tom", "POST", "/tokens", {"note": "a\nb"})[0] == 422
