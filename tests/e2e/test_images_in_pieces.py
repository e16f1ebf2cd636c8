"""An image that is submitted goes on after its client was killed, and after its server was."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long
SIZE = 640 << 20
MARK = 64 << 20  # how far apart the server notes what it has


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the program."""
    (tmp_path / "home").mkdir()
    with contextlib.ExitStack() as stack:

        def call(*words):
            process = stack.enter_context(
                subprocess.Popen(
                    [EXECUTABLE, "--home", tmp_path / "home", *words],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    env={**os.environ, "CLOUDUPLOADER_SPOOL": str(tmp_path / "spool")},
                )
            )  # fmt: skip
            stack.callback(process.kill)
            return process

        yield call


def url_of(server):
    return next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))


def wait_for_offset(directory, offset):
    """Wait until the server has so much of the image safely."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < deadline
        for path in directory.glob("*.json"):
            if not path.name.startswith(".") and (found := json.loads(path.read_bytes())["offset"]) >= offset:
                return found
        time.sleep(0.002)


def test_image_goes_on_after_client_and_server_were_killed(start, tmp_path):
    image, spool = tmp_path / "image.raw", tmp_path / "spool"
    with image.open("wb") as file:
        for number in range(0, SIZE, MARK):  # different everywhere, and quickly made
            file.write(number.to_bytes(8, "big") * (MARK // 8))
    server = start("serve", "--no-worker", "--listen", "127.0.0.1:0")
    url = url_of(server)
    words = ("submit", "--server", url, "--user", "tom", "--target", "directory", image)

    client = start(*words)
    first = wait_for_offset(spool / ".images", MARK)
    client.send_signal(signal.SIGKILL)
    assert client.wait() == -signal.SIGKILL
    client = start(*words)
    second = wait_for_offset(spool / ".images", first + MARK)
    assert second < SIZE
    server.send_signal(signal.SIGKILL)
    server.wait()
    server = start("serve", "--no-worker", "--listen", url.removeprefix("http://"))

    out, err = client.communicate(timeout=PATIENCE_SECONDS)
    assert (client.returncode, out) == (0, "1\n"), err
    assert err.count("trying again for 5 minutes") == 1, err
    assert subprocess.run(["cmp", image, spool / "1.file"]).returncode == 0
    assert [path.suffix for path in (spool / ".images").iterdir()] == [".json"]
