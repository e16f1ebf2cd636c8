"""The token that the commands send to a server, and that nothing else gets."""

import datetime
import json
import os

import pytest
from fakes.authority import Authority
from fakes.scripted_server import answer, ok, refusal

from clouduploader.cli import main
from clouduploader.cli.session import Session
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import accounts
from clouduploader.store.tokens import Role, TokenStore

NOW = datetime.datetime(2026, 11, 29, 9, 0, tzinfo=datetime.UTC)
RECORD = ok(job_xml.serialize(Job(name="7", state=JobState.FAILED, user="tom", size=5)))
ENTRY = ok(b'<directory><entry name="_log" size="0" mtime="0"/></directory>')
DONE = ok(b'<status code="ok" />\n')
EC2 = ("--region", "us-east-1", "--name", "image")


@pytest.fixture
def token(tmp_path_factory):
    store = TokenStore(tmp_path_factory.mktemp("server"))
    return store.create("tom", Role.USER, note="", expires=None, now=NOW)[1]


@pytest.fixture
def run(home, tmp_path, capfd, monkeypatch):
    """Return a function that runs the program with a token in the environment; gives exit code and all output."""
    (tmp_path / "a.raw").write_bytes(b"image")

    def run(*words, token=None):
        if token:
            monkeypatch.setenv("CLOUDUPLOADER_TOKEN", token)
        code = main.main(["--home", str(home), *map(str, words)])
        out, err = capfd.readouterr()
        return int(code), out + err

    return run


def test_every_command_sends_it_with_every_request(run, make_server, token, tmp_path):
    listed = ok(b"<clouduploadjoblist></clouduploadjoblist>")
    commands = {
        ("list",): [listed],
        ("inspect", "7"): [RECORD, ENTRY],
        ("log", "7"): [RECORD, ENTRY],
        ("kill", "--yes", "7"): [RECORD, DONE, RECORD],
        ("submit", tmp_path / "a.raw", "--target", "directory"): [RECORD, RECORD, refusal("400 x", "no"), DONE],
    }
    for (name, *words), answers in commands.items():
        server = make_server(*answers)
        _, said = run(name, "--verbose", "--server", server.url, *words, token=token)
        assert server.requests
        assert {request.headers.get("Authorization") for request in server.requests} == {f"Bearer {token}"}, name
        assert token[13:] not in said
        assert "CLOUDUPLOADER_TOKEN" not in os.environ


def test_token_of_the_home_is_sent_where_the_environment_has_none(run, make_server, home, token):
    (home / "token").write_text(f"{token}\n")
    (home / "token").chmod(0o600)
    server = make_server(RECORD, ENTRY)
    run("inspect", "7", "--server", server.url)
    assert server.requests[0].headers["Authorization"] == f"Bearer {token}"


def test_token_that_systemd_hands_over_goes_before_that_of_the_home(
    run, make_server, home, token, tmp_path, monkeypatch
):
    (home / "token").write_text("none of all")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "token").write_text(f"{token}\n")
    server = make_server(RECORD, ENTRY)
    run("inspect", "7", "--server", server.url)
    assert server.requests[0].headers["Authorization"] == f"Bearer {token}"
    (tmp_path / "token").write_text("s3cret")
    code, said = run("inspect", "7", "--server", server.url)
    assert (code, "token in CREDENTIALS_DIRECTORY holds no token" in said, "s3cret" in said) == (78, True, False)


def test_token_of_the_keyring_is_the_last_that_is_looked_for(run, make_server, home, token, tmp_path, monkeypatch):
    (tmp_path / "secret-tool").write_text(f'#!/bin/sh\necho "$5" >> {tmp_path}/asked\nprintf %s {token}\n')
    (tmp_path / "secret-tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    server = make_server(RECORD, ENTRY)
    run("inspect", "7", "--server", f"{server.url}/")
    assert server.requests[0].headers["Authorization"] == f"Bearer {token}"
    assert (tmp_path / "asked").read_text() == f"{server.url}\n"
    (home / "token").write_text(token)
    (home / "token").chmod(0o600)
    run("inspect", "7", "--server", make_server(RECORD, ENTRY).url)
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_without_a_token_no_header_is_sent(run, make_server):
    server = make_server(RECORD, ENTRY)
    run("inspect", "7", "--server", server.url)
    assert "Authorization" not in server.requests[0].headers


def test_token_that_cannot_be_used_is_not_sent(run, make_server, home, token):
    server = make_server()
    code, said = run("list", "--server", server.url, token="s3cret")
    assert (code, "CLOUDUPLOADER_TOKEN holds no token" in said, "s3cret" in said) == (78, True, False)
    (home / "token").write_text(token)
    (home / "token").chmod(0o644)
    code, said = run("list", "--server", server.url)
    assert (code, "other users can get at the token" in said, token in said) == (78, True, False)
    assert server.requests == []


def test_token_is_not_sent_by_http_to_another_machine(run, token, home):
    code, said = run("list", "--server", "http://obs.example.org", token=token)
    assert code == 77
    assert "the token is not sent to http://obs.example.org: by http others could read it on its way" in said
    (home / "clouduploader.conf").write_text("[clouduploader]\nsend_clear_tokens = maybe\n")
    assert run("list", "--server", "http://obs.example.org", token=token)[0] == 78


@pytest.mark.parametrize(("url", "setting"), [("https://obs.example.org", "no"), ("http://obs.example.org", "yes")])
def test_token_is_sent_where_it_may_be(home, monkeypatch, token, url, setting):
    (home / "clouduploader.conf").write_text(f"[clouduploader]\nsend_clear_tokens = {setting}\n")
    monkeypatch.setenv("CLOUDUPLOADER_TOKEN", token)
    session = Session()
    session.home, session.server_url = home, url
    with pytest.raises(pytest.fail.Exception, match=r"loopback only, not 'obs\.example\.org'"):
        session.server  # noqa: B018 it is asked


def test_token_does_not_follow_a_redirect(run, make_server, token):
    other = make_server()
    server = make_server(answer("302 Found", b"", f"Location: {other.url}/cloudupload"))
    code, said = run("list", "--server", server.url, token=token)
    assert code == 69
    assert "redirects to" in said
    assert other.requests == []


def test_server_that_wants_a_token_says_how_to_give_one(run, make_server, token):
    refused = refusal("401 a token is needed", "a token is needed")
    code, said = run("list", "--server", make_server(refused).url)
    assert code == 77
    assert (
        "a token is needed (HTTP 401). CLOUDUPLOADER_TOKEN, the file `token` in the home, or the keyring says who asks."
        in said
    )
    code, said = run("list", "--server", make_server(refused).url, token=token)
    assert (code, "says who asks" in said) == (77, False)


def test_submit_is_told_that_it_needs_a_token_and_not_that_there_is_no_account(run, serve, make_spool, tmp_path, token):
    url = "http://{}:{}".format(*serve(make_spool(), allow="none", clients="127.0.0.0/8").address)
    code, said = run("submit", tmp_path / "a.raw", "--server", url, *EC2)
    assert (code, "a token is needed. CLOUDUPLOADER_TOKEN" in said, "account" in said) == (77, True, False)
    code, said = run("submit", tmp_path / "a.raw", "--server", url, *EC2, token=token)
    assert (code, "the token is wrong, was revoked or has expired (HTTP 401)" in said) == (77, True)


def test_submit_leaves_the_account_to_a_server_that_knows_the_user(run, serve, make_spool, tmp_path):
    jobs = make_spool()
    server = serve(jobs, allow="none", clients="127.0.0.0/8")
    server_home = tmp_path / "etc" / "cloudupload"
    token = TokenStore(server_home).create("tom", Role.USER, note="", expires=None, now=NOW)[1]
    account = {"arn": "arn:aws:iam::123456789012:role/tom", "external_id": "4711"}
    accounts.AccountStore(server_home).create("tom", "ec2", account, now=NOW)
    url = "http://{}:{}".format(*server.address)

    code, said = run("submit", tmp_path / "a.raw", "--server", url, "--user", "anna", *EC2, token=token)
    assert code == 0
    assert "warning: job 1 is a job of tom: to the server that is who asks\n" in said
    assert jobs.read("1")[0].user == "tom"
    assert json.loads(jobs.data_path("1").read_bytes()).items() > account.items()
    assert jobs.file_path("1").read_bytes() == b"image"

    code, said = run("submit", tmp_path / "a.raw", "--server", url, *EC2, "--arn", f"{account['arn']}2", token=token)
    assert code == 76
    assert "the target data may not have arn: that is taken from the account of tom" in said
    code, said = run("list", "--server", url, token=token)
    assert (code, said.count("ec2")) == (0, 1)
    assert run("list", "--server", url)[0] == 77


def test_server_is_trusted_by_the_authority_that_is_named(run, serve, make_spool, tmp_path, home, monkeypatch):
    """--ca goes before the environment, and that before the settings."""
    authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "other")
    pair = str(authority.issue())
    host, port = serve(make_spool(), tls_cert=pair, tls_key=pair).address
    words = ("list", "--server", f"https://{host}:{port}")

    code, said = run(*words)
    assert (code, "of an authority that is not known here" in said) == (69, True)
    (home / "clouduploader.conf").write_text(f"[clouduploader]\nca = {authority.path}\n")
    assert run(*words)[0] == 0
    monkeypatch.setenv("CLOUDUPLOADER_CA", str(other.path))
    assert run(*words)[0] == 69
    assert run(*words, "--ca", authority.path)[0] == 0
    assert run(*words, "--ca", tmp_path / "no")[0] == 78


def test_certificate_of_the_nearest_place_is_shown(run, serve, make_spool, tmp_path, home, monkeypatch):
    """A worker's token needs one; a key belongs to the certificate that is named in the same place."""
    authority, workers = Authority(tmp_path / "pki"), Authority(tmp_path / "workers")
    pair = str(authority.issue())
    host, port = serve(make_spool(), tls_cert=pair, tls_key=pair, tls_client_ca=str(workers.path)).address
    token = TokenStore(tmp_path / "etc" / "cloudupload").create("w", Role.WORKER, note="", expires=None, now=NOW)[1]
    monkeypatch.setenv("CLOUDUPLOADER_CA", str(authority.path))
    good, other = workers.issue("worker"), workers.issue("other")
    words = ("log", "1", "--server", f"https://{host}:{port}")

    assert "a worker's token needs a client certificate" in run(*words, token=token)[1]
    (home / "clouduploader.conf").write_text(f"[clouduploader]\ncert = {good}\nkey = {good}\n")
    assert "there is no job 1" in run(*words)[1]
    monkeypatch.setenv("CLOUDUPLOADER_CERT", str(tmp_path / "no"))
    assert "no can't be read" in run(*words)[1]
    assert "there is no job 1" in run(*words, "--cert", other)[1]
    assert "don't belong together" in run(*words, "--cert", other, "--key", good)[1]
    assert run(*words, "--key", good)[0] == 64
