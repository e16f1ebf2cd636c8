import os
import shutil
import subprocess
import tempfile
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from samples.keys import SECRET

from clouduploader.store.keyring import Keyring

GPG = shutil.which("gpg")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The only place for temporary files; short enough for the sockets of gpg-agent."""
    path = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)  # agents that end remove their sockets meanwhile


@pytest.fixture
def make_keyring(tmp_path, scratch):
    """Return a function that gives a keyring for a home, with programs that take precedence."""

    def make(name="home", *, programs=None, **environment):
        home = tmp_path / name
        home.mkdir(parents=True, exist_ok=True)
        search = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
        return Keyring(home, {"PATH": search, **environment})

    return make


@pytest.fixture
def make_program(tmp_path):
    """Return a function that writes a shell script called `gpg` and returns its directory."""

    def make(script):
        directory = tmp_path / "programs"
        directory.mkdir()
        (directory / "gpg").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "gpg").chmod(0o755)
        return directory

    return make


@pytest.fixture
def gpg(scratch):
    """Return a function that runs gpg for a user of his own, who knows nobody."""
    home = scratch / "user"
    home.mkdir(mode=0o700)

    def run(*arguments, data):
        command = [GPG, "--homedir", home, "--batch", "--quiet", "--trust-model", "always", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)


@pytest.fixture
def no_secret():
    """Return a function that looks for the secret in an exception and all that it came from."""

    def check(exc):
        shown = ""
        while exc is not None:
            shown += "".join(traceback.format_exception(exc, chain=False)) + f"{exc!r}{exc.args!r}{vars(exc)!r}"
            exc = exc.__cause__ or exc.__context__
        assert SECRET not in shown
        assert SECRET.split()[0] not in shown

    return check


@pytest.fixture(scope="session")
def rsa_keys():
    """Two keys; making one takes a tenth of a second."""
    return [rsa.generate_private_key(65537, 2048) for _ in range(2)]
