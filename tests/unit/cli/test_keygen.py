import io
import json
import os
import sys

import pytest

from clouduploader.cli import main
from clouduploader.store.keyring import Keyring


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    """The keys of the home that the program uses."""
    monkeypatch.setenv("CLOUDUPLOADER_HOME", str(tmp_path))
    return Keyring(tmp_path, os.environ)


@pytest.fixture
def run(keyring, monkeypatch, capsys):
    """Return a function that runs the program and returns exit code, standard output and standard error."""

    def call(*arguments, data=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_keygen_makes_keys_once(run, keyring):
    code, out, err = run("keygen")
    assert (code, err) == (0, "")
    assert out.startswith(f"Made {keyring.gpg.path}, which belongs to ")
    code, out, err = run("keygen")
    assert (code, out) == (73, "")
    assert f"{keyring.gpg.path} is there already. Move it away first;" in err


def test_keygen_rsa_makes_the_files_of_obs(run, keyring):
    code, out, _ = run("keygen", "--rsa", "--json")
    paths = [str(keyring.rsa.secret_path), str(keyring.rsa.public_path)]
    assert json.loads(out)["data"]["paths"] == paths
    assert code == 0
    assert run("keygen", "--rsa")[0] == 73
