import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios
import types

import pytest
from samples.json_answers import data_of

from clouduploader.cli import main, program
from clouduploader.store.keyring import Keyring


@pytest.fixture
def add_command(monkeypatch):
    """A factory: put a made-up subcommand under a name; as the real ones, it is found by its module."""

    def add(name, command):
        module = types.ModuleType(f"clouduploader.cli.{name}")
        setattr(module, f"{name}_command", command)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(program, "COMMANDS", (*program.COMMANDS, name))

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


@pytest.fixture
def keyring(tmp_path, monkeypatch):
    """The keys of the home that the program uses."""
    monkeypatch.setenv("CLOUDUPLOADER_HOME", str(tmp_path))
    return Keyring(tmp_path, os.environ)


@pytest.fixture
def run_in_home(keyring, monkeypatch, capfd):
    """Return a function that runs the program in that home; gives exit code, standard output and standard error."""

    def call(*arguments, data=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def run(jobs, home, capfdbinary):
    """Return a function that runs the program on the spool; gives the exit code, stdout and stderr."""

    def run(*arguments):
        code = main.main(["--home", str(home), "--spool", str(jobs.directory), *arguments])
        out, err = capfdbinary.readouterr()
        return int(code), out.decode("utf-8", "surrogateescape"), err.decode()

    return run


@pytest.fixture
def run_json(run):
    """As `run`, with --json; gives the exit code and the data, having checked the envelope."""

    def run_with(*arguments):
        code, out, _ = run(*arguments, "--json")
        return code, data_of(out, arguments[0], code)

    return run_with


@pytest.fixture
def dead(file_cloud):
    """A factory of an upload that killed itself at a point."""

    def make(point, *words):
        file_cloud.set("crash", point)
        assert file_cloud.upload(*words).returncode == -9
        file_cloud.set("crash")
        return file_cloud

    return make


@pytest.fixture
def show(jobs, home, run_on_terminal):
    """Return a function that runs the program on a terminal and gives what is seen there."""

    def show(*arguments, columns=80, typed=b""):
        words = ["--home", str(home), "--spool", str(jobs.directory), *arguments]
        code = f"from clouduploader.cli import main; main.main({words!r})"
        shown = run_on_terminal(code, columns=columns, typed=typed)
        return re.sub(r"\x1b\[[0-9;]*m", "", shown)

    return show
