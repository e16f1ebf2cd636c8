import contextlib
import json
import os
import stat
import subprocess
import sys

import pytest

from clouduploader.admin import keys
from clouduploader.errors import CannotCreateError
from clouduploader.plugin.fields import PGP_MARK

SECRET = "Tr0ub4dor&3"


@pytest.mark.parametrize("data", [SECRET.encode(), f"{SECRET}\n".encode(), f"{SECRET}\r\n".encode()])
@pytest.mark.parametrize("options", [(), ("-",)])
def test_encrypt_takes_a_value_from_stdin(run_in_home, keyring, data, options):
    run_in_home("keygen")
    code, out, err = run_in_home("encrypt", *options, data=data)
    assert (code, err) == (0, "")
    assert keyring.gpg.decrypt(out) == SECRET


def test_encrypt_rsa_gives_the_form_of_obs(run_in_home, keyring):
    run_in_home("keygen", "--rsa")
    _, out, _ = run_in_home("encrypt", "--rsa", data=SECRET.encode())
    assert [len(line) for line in out.splitlines()] == [60, 60, 60, 60, 60, 44]
    assert keyring.rsa.decrypt(out) == SECRET


@pytest.mark.parametrize("options", [(), ("--rsa",)])
def test_encrypt_changes_the_named_fields_only(run_in_home, keyring, tmp_path, options):
    run_in_home("keygen", *options)
    path = tmp_path / "data.json"
    document = {"b": SECRET, "a": [1, {"c": None}], "d": "ä"}
    path.write_text(json.dumps(document))
    code, out, _ = run_in_home("encrypt", "--field", "b", "--field", "d", *options, path)
    found = json.loads(out)
    decrypt = keyring.rsa.decrypt if options else keyring.gpg.decrypt
    assert code == 0
    assert list(found) == ["b", "a", "d"]
    assert (decrypt(found["b"]), decrypt(found["d"]), found["a"]) == (SECRET, "ä", document["a"])
    assert json.loads(path.read_text()) == document
    answer = json.loads(run_in_home("encrypt", "--json", "--field", "b", *options, path)[1])["data"]
    assert decrypt(answer["targetdata"]["b"]) == SECRET


def test_encrypt_writes_a_private_file_as_a_whole(run_in_home, keyring, tmp_path):
    run_in_home("keygen")
    path, out_path = tmp_path / "data.json", tmp_path / "out.json"
    path.write_text(json.dumps({"a": SECRET}))
    out_path.write_text("before")
    assert run_in_home("encrypt", "--field", "a", "-o", out_path, path) == (0, "", "")
    assert keyring.gpg.decrypt(json.loads(out_path.read_text())["a"]) == SECRET
    assert stat.S_IMODE(out_path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".gnupg", "data.json", "out.json"]
    answer = json.loads(run_in_home("encrypt", "--json", "-o", out_path, path)[1])["data"]
    assert answer == {"path": str(out_path)}
    assert keyring.gpg.decrypt(out_path.read_text()) == json.dumps({"a": SECRET})


def test_encrypt_that_cannot_write_leaves_nothing(run_in_home, tmp_path):
    run_in_home("keygen")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    assert run_in_home("encrypt", "-o", tmp_path / "nowhere" / "out", data=b"x")[0] == 73
    assert run_in_home("encrypt", "-o", tmp_path / "out", data=b"x")[0] in (64, 73)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".gnupg", "out"]


def test_output_that_cannot_take_its_place_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CannotCreateError, match="can't be written: Is a directory"):
        keys.write(tmp_path / "out", SECRET)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_output_does_not_take_the_place_of_a_device(tmp_path):
    path = tmp_path / "out"
    path.symlink_to("/dev/stdout")
    with pytest.raises(CannotCreateError, match="can't be written: what is there is not a regular file"):
        keys.write(path, SECRET)
    assert path.is_symlink()


@pytest.mark.parametrize(
    ("arguments", "data", "code", "words"),
    [
        (("encrypt",), b"", 65, "there is nothing to encrypt"),
        (("encrypt",), b"\n", 65, "there is nothing to encrypt"),
        (("encrypt",), SECRET.encode() + b"\xff", 65, "is not UTF-8"),
        (("encrypt", "/nowhere"), b"", 66, "there is no /nowhere"),
        (("encrypt", "/"), b"", 74, "/ can't be read: Is a directory"),
        (("encrypt", "--field", "a"), SECRET.encode(), 65, "the target data are not JSON"),
        (("encrypt", "--field", "a"), b'{"a": ["%s"]}' % SECRET.encode(), 65, "have no text called 'a'"),
        (("encrypt", "--field", "a"), b'{"b": "%s"}' % SECRET.encode(), 65, "have no text called 'a'"),
        (("encrypt", "--field", "a"), json.dumps({"a": PGP_MARK}).encode(), 65, "a is encrypted already"),
        (("encrypt", "--rsa"), b"x", 66, "there is no "),
    ],
)
def test_encrypt_that_fails_says_why_without_the_secret(run_in_home, arguments, data, code, words):
    run_in_home("keygen")
    for call in (arguments, (*arguments, "--json"), ("--verbose", *arguments)):
        found, out, err = run_in_home(*call, data=data)
        assert found == code
        assert words in out + err
        assert SECRET not in out + err


def test_encrypt_without_keys_says_how_to_get_them(run_in_home):
    code, _, err = run_in_home("encrypt", data=b"x")
    assert code == 66
    assert "`clouduploader keygen` makes one." in err


def test_encrypt_asks_on_a_terminal_without_an_echo(run_in_home, keyring, tmp_path):
    run_in_home("keygen")
    leader, follower = os.openpty()
    code = f"from clouduploader.cli import main; main.main(['encrypt', '-o', {str(tmp_path / 'out')!r}])"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # EIO is the end of a terminal that nobody has open
        while part := os.read(leader, 1000):
            if b"Value: " not in shown and b"Value: " in shown + part:
                os.write(leader, f"{SECRET}\n".encode())
            shown += part
    os.close(leader)
    assert child.wait() == 0
    assert shown.decode().strip() == "Value:"
    assert keyring.gpg.decrypt((tmp_path / "out").read_text()) == SECRET
