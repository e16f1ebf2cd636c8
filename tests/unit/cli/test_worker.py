"""What `clouduploader worker --cluster` refuses before it works."""

import datetime
import os
import sys

import pytest

import clouduploader.cluster.host
from clouduploader.cli import main
from clouduploader.store import tokens
from clouduploader.store.tokens import Role

BROKER, SERVER = "amqp://uploads@127.0.0.1:1//", "http://127.0.0.1:1"


@pytest.fixture
def run(home, tmp_path, capfd):
    """Return a function that runs `clouduploader worker`; gives the exit code and stderr."""

    def run(*words):
        code = main.main(["--home", str(home), "--spool", str(tmp_path / "spool"), "worker", *words])
        out, err = capfd.readouterr()
        assert out == ""
        return int(code), err

    return run


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--slots", "0"], 64, "--slots is for an upload host. Give --cluster too."),
        (["--slots", "2"], 64, "--slots is for an upload host. Give --cluster too."),
        (["--broker", BROKER], 64, "--broker is for an upload host. Give --cluster too."),
        (["--cluster", "--drain"], 64, "--drain is not for an upload host. "),
        (["--cluster", "--slots", "0"], 78, "slots in [cluster] is '0', not a number from 1 to 256"),
        (["--cluster", "--host", "a b"], 78, "'a b' in host of [cluster] is no name"),
        (["--cluster", "--server", SERVER], 78, "an upload host needs the URL of the broker. "),
        (["--cluster", "--broker", BROKER], 78, "an upload host needs the URL of the server. "),
        (["--cluster", "--broker", "redis://127.0.0.1", "--server", SERVER], 78, "Redis can't be the broker: "),
        (["--cluster", "--broker", BROKER, "--server", SERVER], 78, "an upload host needs a token of the role "),
        (["--cluster", "--broker", BROKER, "--server", "ftp://a"], 64, "'ftp://a' is not the URL of a server. "),
    ],
)
def test_upload_host_that_cannot_be_is_refused_in_one_line(run, words, code, message):
    found, err = run(*words)
    assert found == code
    assert err.startswith("clouduploader: ")
    assert message in err
    assert err.count("\n") == 1


def test_token_is_not_sent_where_others_could_read_it(run, home, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    _, text = tokens.TokenStore(tmp_path).create("host", Role.WORKER, note="", expires=now, now=now)
    path = home / "token"
    path.write_text(text)
    path.chmod(0o600)
    code, err = run("--cluster", "--broker", BROKER, "--server", "http://uploads.example.org")
    assert code == 77
    assert "the token is not sent" in err
    assert text not in err


def test_package_that_is_missing_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "celery", None)
    monkeypatch.delitem(sys.modules, "clouduploader.cluster.host.host", raising=False)
    monkeypatch.delattr(clouduploader.cluster.host, "host", raising=False)
    code, err = run("--cluster", "--broker", BROKER, "--server", SERVER)
    assert code == 69
    assert "the package celery is not installed. Install clouduploader with the extra `cluster`." in err


@pytest.mark.skipif(os.geteuid() != 0, reason="of root")
def test_spool_of_another_user_is_not_worked_in_as_root(run, tmp_path):
    (tmp_path / "spool").mkdir(exist_ok=True)
    os.chown(tmp_path / "spool", 65534, 65534)
    code, err = run("--cluster", "--broker", BROKER, "--server", SERVER)
    assert code == 77
    assert f"the spool {tmp_path / 'spool'} is another user's" in err
    assert "--user" in err


def test_password_that_goes_in_clear_to_another_machine_is_warned_of(run, monkeypatch):
    monkeypatch.setenv("CLOUDUPLOADER_BROKER_PASSWORD", "made-up-secret")
    _, err = run("--cluster", "--broker", "amqp://uploads@mq.example.org", "--server", SERVER)
    assert "event=warning" in err.splitlines()[0]
    assert "made-up-secret" not in err
