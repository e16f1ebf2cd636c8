import contextlib
import os
import pty
import subprocess
import sys
import termios
import types

import pytest

from clouduploader.cli import program


@pytest.fixture
def add_command(monkeypatch):
    """A factory: put a made-up subcommand under a name; as the real ones, it is found by its module."""

    def add(name, command):
        module = types.ModuleType(f"clouduploader.cli.made_up_{name}")
        setattr(module, f"{name}_command", command)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(program.COMMANDS, name, f"made_up_{name}")

    return add


@pytest.fixture
def run_on_terminal():
    """A factory: run Python code on a terminal of its own, and return what it shows there."""

    def run(code, *, columns=80, typed=b"", **environment):
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, columns))
        os.write(leader, typed)
        subprocess.run(
            [sys.executable, "-c", f"from clouduploader.cli import output\n{code}"],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=os.environ | {"TERM": "xterm"} | environment,
            check=True,
        )
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is the end of a terminal that nobody has open
            while part := os.read(leader, 65536):
                shown += part
        os.close(leader)
        return shown.decode().replace("\r\n", "\n")

    return run
