"""All that the service makes in a spool, by any way that a job comes and ends, is kept from other users."""

import contextlib
import os
import re
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long
FOREIGN = stat.S_IRWXO | stat.S_IWGRP
UPLOADER = '#!/bin/sh\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexec {program} "$@"\n'


class Place:
    """A home, a spool, and the program, which is started without any mask of modes."""

    def __init__(self, directory):
        self.directory = directory
        self.spool = directory / "bs" / "spool"
        (directory / "home").mkdir()
        (directory / "bs").mkdir()
        (directory / "out").mkdir()
        (directory / "a.raw").write_bytes(b"image")
        uploader = directory / "uploader"
        uploader.write_text(UPLOADER.format(go=directory / "go", program=EXECUTABLE))
        uploader.chmod(0o755)
        settings = f"[server]\nlisten = 127.0.0.1:0\n[worker]\nprogram = {uploader}\n"
        (directory / "home" / "clouduploader.conf").write_text(settings + f"[directory]\npath = {directory / 'out'}\n")
        self.environment = {
            **os.environ, "CLOUDUPLOADER_HOME": str(directory / "home"), "CLOUDUPLOADER_SPOOL": str(self.spool)
        }  # fmt: skip
        self.modes = {}

    def run(self, *words, **options):
        return subprocess.run(
            [EXECUTABLE, *words], env=self.environment, umask=0, check=True, capture_output=True, text=True, **options
        ).stdout

    def look(self):
        """Note all modes that there are; what is gone by then was seen before, or will be."""
        for directory, _, names in os.walk(self.spool):
            for path in (Path(directory), *(Path(directory, name) for name in names)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if not stat.S_ISLNK(status.st_mode):
                        self.modes[str(path.relative_to(self.spool))] = stat.S_IMODE(status.st_mode)

    def wait_for(self, has_come):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not has_come():
            assert time.monotonic() < deadline
            self.look()
            time.sleep(0.02)
        self.look()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def url(place):
    """Where a server with a worker is."""
    with subprocess.Popen(
        [EXECUTABLE, "serve"], env=place.environment, umask=0, stderr=subprocess.PIPE, text=True
    ) as process:
        line = next(line for line in process.stderr if "event=serving" in line)
        yield re.search(r"url=(\S+)", line)[1]
        process.terminate()


def send_like_obs(url):
    """Make a job and send its image by OBS's routes; return the job."""
    fields = {"user": "tom", "target": "directory", "project": "p", "repository": "r", "package": "k",
              "arch": "x86_64", "filename": "a.raw", "size": "5", "details": "7b7d"}  # fmt: skip
    skeleton = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())

    def ask(method, path, body):
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{url}/cloudupload{path}", body, headers, method=method)  # noqa: S310 our own
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return answer.read().decode()

    name = re.search(r'name="(\d+)"', ask("POST", "", f"<clouduploadjob>{skeleton}</clouduploadjob>".encode()))[1]
    ask("PUT", f"/{name}", b"image")
    return name


def test_nothing_in_a_spool_is_for_other_users(place, url, tmp_path):
    def submit(*words):
        return place.run("submit", tmp_path / "a.raw", "--target", "directory", *words).strip()

    by_server, by_spool, by_obs = submit("--server", url), submit(), send_like_obs(url)
    jobs = (by_server, by_spool, by_obs)
    for name in jobs[:2]:  # two at once
        place.wait_for(lambda name=name: "<state>uploading" in (place.spool / name).read_text())
    killed = submit("--server", url)
    place.look()
    place.run("kill", "--yes", killed)
    (tmp_path / "go").touch()
    place.run("upload", "--target", "directory", tmp_path / "a.raw")
    for name in jobs:
        place.wait_for(lambda name=name: (place.spool / "done" / name).exists() and not (place.spool / name).exists())

    assert {str(name) for name in place.modes} >= {
        ".", "next", "done", "journal", ".worker.lock", by_server, f"{by_server}.file", f"{by_server}.data",
        f"{by_server}.log", f"{by_server}.dir", f"done/{by_server}", f"done/{by_server}.log", f"done/{killed}",
        *jobs, *[f"{name}.file" for name in jobs],
    }  # fmt: skip
    assert {name: oct(mode) for name, mode in place.modes.items() if mode & FOREIGN} == {}
    assert {place.modes[f"{name}.file"] for name in jobs} <= {0o600, 0o640}
