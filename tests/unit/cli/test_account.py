import contextlib
import datetime
import functools
import json
import os
import sqlite3

import pytest

from clouduploader.store import accounts
from clouduploader.store.keyring import Keyring

PASSWORD = "Tr0ub4dor&3"
ARN = "arn:aws:iam::123456789012:role/obs"


@pytest.fixture
def home_dir(file_cloud, monkeypatch):
    """The home that the program uses; `file-cloud` is one of its targets."""
    path = file_cloud.place / "home"
    monkeypatch.setenv("CLOUDUPLOADER_HOME", str(path))
    return path


@pytest.fixture
def run(run_in_home):
    """Return a function that runs `clouduploader account` and returns exit code, standard output and standard error."""
    return functools.partial(run_in_home, "account")


@pytest.fixture
def run_json(run):
    """Return a function that runs it with --json and returns exit code and the answer's data or error."""

    def call(*words, data=b""):
        code, out, err = run(*words, "--json", data=data)
        answer = json.loads(out)
        assert err == ""
        assert (answer["exit_code"], answer["command"]) == (code, f"account {words[0]}")
        return code, answer["data"] or answer["error"]

    return call


def test_account_is_made_once_and_shown_in_a_list(run, home_dir):
    code, out, err = run("create", "tom")
    assert (code, err) == (0, "")
    name, external_id = out.rstrip("\n").split("\t")
    assert name == "external_id"
    assert run("set", "tom", "arn", ARN) == (0, "", "")
    header, line = run("list")[1].splitlines()
    assert header == "user\ttarget\tcreated\tvalues"
    user, target, created, values = line.split("\t")
    assert (user, target, values) == ("tom", "ec2", f"external_id={external_id} arn={ARN}")
    assert datetime.datetime.fromisoformat(created).utcoffset() == datetime.timedelta()
    assert created.endswith("Z")
    code, out, err = run("create", "tom")
    assert (code, out) == (73, "")
    assert "tom has an account for ec2 already" in err
    assert accounts.AccountStore(home_dir).get("tom", "ec2") == {"external_id": external_id, "arn": ARN}


def test_answers_in_json_have_their_keys(run_json):
    code, made = run_json("create", "tom")
    assert code == 0
    assert made.keys() == {"user", "target", "created", "values", "encrypted"}
    assert made["values"].keys() == {"external_id"}
    assert run_json("set", "tom", "external_id", "4711") == (
        0,
        {"user": "tom", "target": "ec2", "field": "external_id"},
    )
    assert run_json("set", "tom", "arn", ARN)[1] == {"user": "tom", "target": "ec2", "field": "arn"}
    assert run_json("list")[1] == {"accounts": [{**made, "values": {"external_id": "4711", "arn": ARN}}]}
    assert run_json("list", "--target", "file-cloud")[1] == {"accounts": []}
    assert run_json("remove", "tom", "--yes") == (0, {"user": "tom", "target": "ec2"})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "tom", "--target", "directory"], 69, "the platform 'directory' has no accounts"),
        (["create", "tom", "--target", "nowhere"], 69, "no platform answers to the target 'nowhere'"),
        (["create", "tom "], 64, "'tom ' can't be the name of a user"),
        (["create", ""], 64, "'' can't be the name of a user"),
        (["create", "a\x1b[31m"], 64, r"'a\x1b[31m' can't be the name of a user"),
        (["show", "anna"], 66, "anna has no account for ec2"),
        (["verify", "anna"], 66, "anna has no account for ec2"),
        (["set", "anna", "arn", ARN], 66, "anna has no account for ec2"),
        (["remove", "anna", "--yes"], 66, "anna has no account for ec2"),
        (["remove", "tom"], 64, "Remove the account of tom for ec2?"),
        (["set", "tom", "region", "eu-west-1"], 64, "an account for ec2 has no field 'region'"),
        (["set", "tom", "arn"], 64, "a value for arn is missing"),
        (["set", "tom", "arn", ""], 65, 'arn is "", but must be a string'),
        (["set", "tom", "arn", "arn:aws:iam::1:user/x"], 65, "such as arn:aws:iam::123456789012:role/obs"),
        (["set", "tom", "external_id", "a b"], 65, 'external_id is "a b", but takes letters, digits and'),
        (["verify", "tom"], 65, "the account has no arn yet"),
        (["show", "tom", "--method", "magic"], 65, '--method is "magic", but must be ec2uploadimg, ebs-direct or auto'),
    ],
)
def test_wrong_words_end_in_one_line_and_change_nothing(run, home_dir, words, code, said):
    run("create", "tom")
    before = accounts.AccountStore(home_dir).accounts()
    status, out, err = run(*words)
    assert (status, out) == (code, "")
    assert err.startswith("clouduploader: ")
    assert err.count("\n") == 1
    assert said in err
    assert accounts.AccountStore(home_dir).accounts() == before


def test_book_of_a_newer_schema_is_refused_in_one_line(run, home_dir):
    run("create", "tom")
    with contextlib.closing(sqlite3.connect(home_dir / accounts.FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 9")
    for words in (["list"], ["create", "anna"], ["show", "tom"], ["remove", "tom", "--yes"]):
        code, out, err = run(*words)
        assert (code, out) == (65, "")
        assert err.count("\n") == 1
        assert "was written by a newer clouduploader: its schema is 9, this one knows 2. Update clouduploader." in err


# --- what is secret


@pytest.fixture
def keyring(home_dir):
    return Keyring(home_dir, os.environ)


def files(directory):
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["rsa", "gpg"])
def test_secret_is_kept_encrypted_and_never_shown(run, run_json, home_dir, keyring, file_cloud, kind):
    getattr(keyring, kind).generate()
    run("create", "tom", "--target", "file-cloud")
    words = ("set", "tom", "password", "--target", "file-cloud")
    assert run(*words, data=f"{PASSWORD}\n".encode()) == (0, "", "")
    kept = accounts.AccountStore(home_dir).get("tom", "file-cloud")["password"]
    assert getattr(keyring, kind).decrypt(kept) == PASSWORD
    assert PASSWORD.encode() not in files(home_dir)

    tenant = accounts.AccountStore(home_dir).get("tom", "file-cloud")["tenant"]
    shown = run("list")[1] + run("show", "tom", "--target", "file-cloud")[1] + str(run_json("list"))
    assert f"tenant={tenant} password=(encrypted)" in shown
    assert PASSWORD not in shown
    assert kept.split()[0] not in shown
    assert run_json("list")[1]["accounts"][0]["encrypted"] == ["password"]

    file_cloud.set("password", PASSWORD)  # what is tried is the very one, and a log of it is masked
    code, out, err = run("verify", "tom", "--target", "file-cloud", "--verbose")
    assert (code, out) == (0, "ok      account: tried\n")
    assert PASSWORD not in err


def test_secret_without_a_key_is_refused_and_not_kept(run, home_dir):
    run("create", "tom", "--target", "file-cloud")
    code, out, err = run("set", "tom", "password", "--target", "file-cloud", data=PASSWORD.encode())
    assert (code, out) == (66, "")
    assert "`clouduploader keygen` makes one." in err
    assert "password" not in accounts.AccountStore(home_dir).get("tom", "file-cloud")
    assert PASSWORD.encode() not in files(home_dir)


@pytest.mark.parametrize(
    ("words", "data", "code", "said"),
    [
        ([PASSWORD], b"", 64, "password is secret: give it on standard input"),
        ([], b"\xff" + PASSWORD.encode(), 64, "the value for password is not UTF-8"),
        ([], b"", 65, "password is a string of 0 characters, but must be"),
        ([], b"1234567", 65, "password is a string of 7 characters, but must have 8 to 20"),
        ([], PASSWORD.encode() * 9, 65, "password is a string of 99 characters, but must have 8 to 20"),
    ],
)
def test_wrong_secret_is_refused_and_not_shown(run, keyring, words, data, code, said):
    keyring.rsa.generate()
    run("create", "tom", "--target", "file-cloud")
    status, out, err = run("set", "tom", "password", *words, "--target", "file-cloud", data=data)
    assert (status, out) == (code, "")
    assert said in err
    assert PASSWORD not in err


def test_secret_that_cannot_be_decrypted_is_named(run, keyring, home_dir):
    keyring.rsa.generate()
    run("create", "tom", "--target", "file-cloud")
    run("set", "tom", "password", "--target", "file-cloud", data=PASSWORD.encode())
    keyring.rsa.secret_path.unlink()
    code, _, err = run("verify", "tom", "--target", "file-cloud")
    assert code == 65
    assert "password of tom's account can't be used: it is encrypted, but there is no" in err


# --- show and verify


def test_show_gives_each_form(run, run_json):
    run("create", "tom", "--target", "file-cloud")
    words = ("show", "tom", "--target", "file-cloud")
    data = run_json(*words)[1]
    assert data.keys() == {"user", "target", "created", "values", "encrypted", "facts", "policies", "scripts"}
    tenant = data["values"]["tenant"]
    assert (data["facts"], data["policies"]) == ({"tenant": tenant}, {"rule": {"a": [1]}})
    assert data["scripts"] == {"shell": "do it"}
    text = '{\n  "a": [\n    1\n  ]\n}'
    assert run(*words) == (0, f"tenant\t{tenant}\n\nPolicy 'rule':\n{text}\n", "")
    assert json.loads(run(*words, "--form", "json")[1]) == data["policies"]
    assert run(*words, "--form", "shell") == (0, "do it\n", "")
    code, _, err = run(*words, "--form", "poem")
    assert code == 64
    assert "there is no form 'poem' of what file-cloud asks for. There are: text, json, shell." in err


def test_show_knows_the_permissions_of_its_target(run):
    run("create", "tom", "--target", "file-cloud")
    words = ("show", "tom", "--target", "file-cloud", "--form", "json", "--with")
    assert json.loads(run(*words, "fire")[1]) == {"rule": {"a": [1]}, "fire": {"a": [2]}}
    code, out, err = run(*words, "copies")
    assert (code, out) == (64, "")
    assert "there are no permissions called 'copies'. There are: fire." in err


def test_help_of_show_lists_words_of_the_target_alone(run):
    shown = " ".join(run("show", "--target", "file-cloud", "--help")[1].split())
    assert "--with [fire] Permissions for this too; repeatable: fire: setting it on fire." in shown
    assert "--form [text|json|shell]" in shown
    assert "copies" not in shown
    shown = run("show", "--target", "directory", "--help")[1]
    assert "--with" not in shown
    assert "copies" in run("show", "--help")[1]


@pytest.mark.parametrize(
    ("password", "is_open", "code"), [(PASSWORD, False, 0), ("", False, 77), (PASSWORD, True, 79), ("", True, 79)]
)
def test_verify_ends_with_what_it_found(run, run_json, keyring, file_cloud, password, is_open, code):
    keyring.rsa.generate()
    run("create", "tom", "--target", "file-cloud")
    run("set", "tom", "password", "--target", "file-cloud", data=PASSWORD.encode())
    file_cloud.set("password", password)
    file_cloud.set("open", *(["yes"] if is_open else []))
    status, data = run_json("verify", "tom", "--target", "file-cloud")
    assert status == code
    assert (data["is_usable"], data["is_open"]) == (bool(password), is_open)
    (finding,) = data["findings"]
    assert finding == {
        "level": "failure" if code else "ok", "subject": "account", "message": "tried", "hint": None
    }  # fmt: skip
    status, out, _ = run("verify", "tom", "--target", "file-cloud")
    assert (status, out) == (code, f"{finding['level']:8}account: tried\n")


def test_accounts_of_a_target_that_there_is_not_are_no_empty_list(run):
    code, out, err = run("list", "--target", "file-clod")
    assert (code, out) == (69, "")
    assert "no platform answers to the target 'file-clod'" in err


def test_list_never_cuts_an_id_on_a_terminal(home_dir, run_on_terminal):
    role = "arn:aws:iam::123456789012:role/service-roles/images/a-role-with-a-rather-long-name-for-uploads"
    now = datetime.datetime.now(datetime.UTC)
    accounts.AccountStore(home_dir).create("tom", "ec2", {"arn": role, "external_id": "x" * 30}, now=now)
    words = ["--home", str(home_dir), "account", "list"]
    shown = run_on_terminal(f"from clouduploader.cli import main; main.main({words!r})", columns=80)
    assert f"tom   arn={role} external_id={'x' * 30}" in shown
    assert "created" not in shown  # other columns go first
