"""`clouduploader serve` as a process: out of descriptors, on a full disk, and killed."""

import contextlib
import errno
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long
FIELDS = ("user", "target", "project", "repository", "package", "arch", "filename")


class Service:
    """A running server.

    Attributes:
        process: It, or what it runs in.
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, process):
        self.process = process
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("".join(said))

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def ask(self, method, target, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)) as client:
            client.request(method, target, body)
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    def create(self, size):
        inner = "".join(f"<{name}>x</{name}>" for name in FIELDS)
        status, answer = self.ask(
            "POST", "/cloudupload", f"<clouduploadjob>{inner}<size>{size}</size></clouduploadjob>"
        )
        assert status == 200, answer
        return re.search('name="([0-9]+)"', answer)[1]

    def begin(self, name, size, first):
        """Send an image's beginning; return the connection."""
        client = self.connect()
        client.sendall(
            f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + first
        )
        return client

    def wait_for(self, name, text):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in (found := self.ask("GET", f"/cloudupload/{name}")[1]):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts a server on a spool in `tmp_path`, if wanted by another command."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/clouduploader.conf").write_text("[server]\nkeep_free = 1\nlisten = 127.0.0.1:0\n")
    (tmp_path / "disk").mkdir()
    with contextlib.ExitStack() as stack:

        def start(*around):
            process = subprocess.Popen(
                [*around, EXECUTABLE, "--spool", tmp_path / "disk/cloudupload", "serve", "--no-worker"],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "CLOUDUPLOADER_HOME": str(tmp_path / "home")},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Service(process)

        yield start


def _has_room(file):
    try:
        file.write(bytes(4096))
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return False
    return True


def fill(path):
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        while _has_room(file):
            pass


def test_full_disk_fails_the_image_that_does_not_fit_and_nothing_else(serve, tmp_path):
    disk = tmp_path / "disk"
    script = f"mount -t tmpfs -o size=8m none '{disk}' && exec \"$@\""
    service = serve("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    inside = Path(f"/proc/{service.process.pid}/root{disk}")  # nobody else sees what is mounted there
    assert service.ask("POST", f"/cloudupload?{'&'.join(f'{it}=x' for it in FIELDS)}&size=9000000", "{}")[0] == 500
    name, small = service.create(6_000_000), service.create(1_000)
    with service.begin(name, 6_000_000, bytes(3_000_000)) as client:
        service.wait_for(name, "<state>receiving</state>")
        fill(inside / "filler")
        client.sendall(bytes(3_000_000))
        # the next bytes don't fit, or the server has seen before that there is no room
        assert re.match(rb"HTTP/1.1 500 [^\r]*No space left on device", client.recv(1000))
    service.wait_for(name, "No space left on device")
    assert service.ask("GET", "/")[0] == 200
    assert {path.name for path in (inside / "cloudupload").iterdir()} == {"next", "done", small, f"{small}.data"}
    (inside / "filler").unlink()
    assert service.ask("PUT", f"/cloudupload/{small}", bytes(1_000))[0] == 200
    assert (inside / f"cloudupload/{small}.file").read_bytes() == bytes(1_000)


def test_server_out_of_descriptors_goes_on_answering(serve):
    service = serve("prlimit", "--nofile=120:120")
    name, other = service.create(10), service.create(10)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(service.begin(name, 10, b"01234"))
        service.wait_for(name, "<state>receiving</state>")
        followers = [stack.enter_context(service.connect()) for _ in range(100)]
        for client in followers:
            client.sendall(f"GET /cloudupload/{other}/_log HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        silent = [stack.enter_context(service.connect()) for _ in range(200)]
        image.sendall(b"56789")
        assert image.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        refused = [client for client in followers if _is_refused(client)]
        assert 0 < len(refused) < 100
        for client in (*followers, *silent):
            client.close()
        service.wait_for(name, "<state>scheduled</state>")
    assert service.ask("PUT", f"/cloudupload/{other}", bytes(10))[0] == 200


def _is_refused(client):
    """Whether it was told that there are too many, or had to make place before it had said anything."""
    client.settimeout(0.01)
    try:
        answer = client.recv(1000)
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return not answer or b"503 too many requests at once" in answer


def test_hangup_has_the_settings_read_again(serve, tmp_path):
    service = serve()
    path = tmp_path / "home/clouduploader.conf"
    path.write_text(path.read_text() + "allow = 192.0.2.0/24\n")
    assert service.ask("GET", "/")[0] == 200
    service.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while service.ask("GET", "/")[0] != 403:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_server_leaves_no_job_behind(serve, tmp_path):
    """What was being received is told to have failed by the next one; what waits goes on waiting."""
    service = serve()
    name, waiting, scheduled = service.create(4_000_000), service.create(10), service.create(10)
    assert service.ask("PUT", f"/cloudupload/{scheduled}", bytes(10))[0] == 200
    with service.begin(name, 4_000_000, bytes(3_000_000)):
        service.wait_for(name, "<state>receiving</state>")
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
    service = serve()
    service.wait_for(name, "<details>the server died while it received the image</details>")
    names = {path.name for path in (tmp_path / "disk/cloudupload").iterdir()}
    assert names == {"next", "done", waiting, f"{waiting}.data", *(scheduled + end for end in ("", ".data", ".file"))}
    assert service.ask("PUT", f"/cloudupload/{waiting}", bytes(10))[0] == 200
    assert service.create(1) == "4"
    service.process.terminate()
    assert service.process.wait() in (0, 128 + signal.SIGTERM)
