"""The keyring of the desktop, by a double of secret-tool that keeps what the real one would."""

import datetime
import os

import pytest

from clouduploader.errors import ConfigError
from clouduploader.store import secret_service
from clouduploader.store.tokens import Role, TokenStore
from clouduploader.util import masking

URL = "https://upload.example.org:5452"
SESSION = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}


@pytest.fixture
def token(tmp_path):
    now = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
    return TokenStore(tmp_path).create("tom", Role.USER, note="", expires=None, now=now)[1]


@pytest.fixture
def secret_tool(tmp_path, monkeypatch):
    """A factory of the program: what it says to which words, with which exit code."""

    def make(script):
        path = tmp_path / "bin" / "secret-tool"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")

    return make


@pytest.fixture
def asked(tmp_path):
    """Return the words that the program was started with, a line for each time."""
    return lambda: (tmp_path / "asked").read_text().splitlines() if (tmp_path / "asked").exists() else []


def test_token_is_looked_up_under_the_url_of_its_server(secret_tool, asked, token):
    secret_tool(f"printf %s {token}")
    assert secret_service.read(URL, SESSION) == token
    assert asked() == [f"lookup service clouduploader server {URL}"]
    assert masking.masked(f"a line with {token}") == "a line with ********"


@pytest.mark.parametrize("script", ["exit 1", "exit 0", "echo 'Cannot autolaunch D-Bus' >&2; exit 1"])
def test_keyring_without_the_token_gives_none(secret_tool, script, capfd):
    secret_tool(script)
    assert secret_service.read(URL, SESSION) is None
    assert capfd.readouterr() == ("", "")


def test_keyring_is_not_asked_without_a_session_or_the_program(secret_tool, asked, monkeypatch, tmp_path):
    secret_tool("exit 70")
    assert secret_service.read(URL, {}) is None
    assert secret_service.read(URL, {"XDG_RUNTIME_DIR": str(tmp_path)}) is None
    assert asked() == []
    (tmp_path / "bus").touch()
    assert secret_service.read(URL, {"XDG_RUNTIME_DIR": str(tmp_path)}) is None
    assert len(asked()) == 1
    monkeypatch.setenv("PATH", "/nowhere")
    assert secret_service.read(URL, SESSION) is None


def test_what_is_no_token_is_not_sent(secret_tool):
    secret_tool("echo s3cret")
    with pytest.raises(ConfigError, match="the keyring holds no token") as caught:
        secret_service.read(URL, SESSION)
    assert "s3cret" not in str(caught.value)


def test_keyring_that_waits_for_its_user_for_ever_is_told(secret_tool, monkeypatch):
    monkeypatch.setattr(secret_service, "ANSWER_SECONDS", 0.1)
    secret_tool("exec sleep 60")
    with pytest.raises(ConfigError, match="the keyring does not answer"):
        secret_service.read(URL, SESSION)


def test_program_that_can_not_be_started_is_told(secret_tool, tmp_path):
    secret_tool("")
    (tmp_path / "bin" / "secret-tool").write_text("#!/nowhere/sh\n")
    with pytest.raises(ConfigError, match=r"the keyring can't be asked by .*/secret-tool: No such file"):
        secret_service.read(URL, SESSION)
