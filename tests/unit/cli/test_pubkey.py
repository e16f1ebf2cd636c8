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


@pytest.mark.parametrize("options", [(), ("--rsa",)])
def test_pubkey_prints_the_key_as_it_is(run, options):
    assert run("pubkey", *options)[0] == 66
    run("keygen", *options)
    code, out, err = run("pubkey", *options)
    assert (code, err) == (0, "")
    assert out.startswith("-----BEGIN P")
    assert out.endswith("-----\n")
    assert json.loads(run("pubkey", "--json", *options)[1])["data"] == {"public_key": out}
