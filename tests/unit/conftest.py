"""Servers, packages and a cloud for the tests of several packages."""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fakes import forked, platforms
from fakes.scripted_server import ScriptedServer

from clouduploader.cli import main
from clouduploader.store import journal
from clouduploader.util import signals


@pytest.fixture
def make_server():
    """Return a function that starts a server with these answers; see ScriptedServer."""
    with contextlib.ExitStack() as stack:

        def make(*answers, context=None):
            server = ScriptedServer(answers, context)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def kept_signals():
    """Put this process's own signal handlers back afterwards."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def no_threads():
    """Let no thread be started, for none has room for its stack."""
    before = threading.stack_size(1 << 47)  # all that a process can address
    yield
    threading.stack_size(before)


@pytest.fixture
def install_package(tmp_path_factory, monkeypatch):
    """Return a function that installs a package that offers platforms; see fakes.platforms."""
    names, site = [], tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)

    def install(name, *arguments, **options):
        names.append(name)
        platforms.install_package(site, name, *arguments, **options)

    install.site = site
    yield install
    for name in names:
        sys.modules.pop(name, None)


class FileCloud:
    """The platform `file-cloud` of an installed package, and a spool and an image to try it with.

    Attributes:
        directory: Its cloud.
        place: Has `home`, `spool` and `a.raw`.
    """

    def __init__(self, place, site, run_here):
        self.place, self._site, self._run_here = place, site, run_here
        self.directory = place / "cloud"
        for path in (self.directory, place / "home", place / "spool"):
            path.mkdir()
        (place / "home" / "clouduploader.conf").write_text(f"[file-cloud]\npath = {self.directory}\n")
        (place / "a.raw").write_bytes(b"an image")

    def set(self, name, *words):
        """Write what it is to do; without words take that back."""
        path = self.directory / name
        path.write_text("\n".join(words)) if words else path.unlink(missing_ok=True)

    def things(self, region="here"):
        """What there is in a region: kinds by id."""
        directory = self.directory / region
        found = sorted(directory.iterdir()) if directory.is_dir() else []
        return {path.name: path.name.partition("-")[0] for path in found}

    def kinds(self, region="here"):
        return sorted(self.things(region).values())

    def start(self, *words):
        """Start `clouduploader` in a process of its own."""
        executable = Path(sys.executable).with_name("clouduploader")
        return subprocess.Popen(
            [executable, *self._words(words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.place, stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(self._site)},
        )  # fmt: skip

    def run(self, *words):
        """Run it to its end; in this process, which saves its start, or in a fork of it if it may kill itself."""
        if (self.directory / "crash").exists():
            return forked.run(lambda: main.main(self._words(words)), cwd=self.place)
        return self._run_here(*self._words(words), cwd=self.place)

    def _words(self, words):
        return [str(word) for word in ("--home", self.place / "home", "--spool", self.place / "spool", *words)]

    def start_upload(self, *words):
        return self.start("upload", self.place / "a.raw", "--target", "file-cloud", "--region", "here", *words)

    def upload(self, *words):
        return self.run("upload", self.place / "a.raw", "--target", "file-cloud", "--region", "here", *words)

    def cleanup(self, *words):
        return self.run("cleanup", "--target", "file-cloud", *words)

    def age(self, seconds):
        """Let the entries of all journals be older."""
        for path in (self.place / "spool" / "journal").glob("*/journal"):
            entries = [json.loads(line) for line in path.read_text().splitlines()]
            for entry in entries:
                moment = datetime.datetime.fromisoformat(entry["time"]) - datetime.timedelta(seconds=seconds)
                entry["time"] = moment.isoformat()
            path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))

    def journal(self):
        """The only journal there is."""
        (found,) = journal.read_all(self.place / "spool" / "journal")
        return found


@pytest.fixture
def run_here(capfd):
    """Return a function that runs the program in this process, which saves its start; gives a CompletedProcess."""

    def run(*words, cwd):
        capfd.readouterr()
        with contextlib.chdir(cwd):
            code = main.main([str(word) for word in words])
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run


@pytest.fixture
def file_cloud(tmp_path, install_package, run_here):
    """See FileCloud."""
    code = Path(platforms.__file__).with_name("file_cloud.py").read_text()
    install_package("file_cloud", code, **{"file-cloud": "file_cloud:create"})
    return FileCloud(tmp_path, install_package.site, run_here)
