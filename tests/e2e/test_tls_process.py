"""`clouduploader serve` with TLS as a process, and the client of another home: an image, and new certificates."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.authority import Authority

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "pki")


@pytest.fixture
def notified(tmp_path):
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE_SECONDS)
        yield listener


@pytest.fixture
def environment(tmp_path):
    for name in ("home", "other"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "home" / "clouduploader.conf").write_text("[server]\nallow = none\nclients = 127.0.0.0/8\n")
    (tmp_path / "a.raw").write_bytes(b"image")
    return {**os.environ, "CLOUDUPLOADER_HOME": str(tmp_path / "home"), "CLOUDUPLOADER_SPOOL": str(tmp_path / "spool")}


@pytest.fixture
def service(tmp_path, authority, environment, notified):
    """A server with TLS; its certificate is in `pair.pem`."""
    authority.issue("server").rename(tmp_path / "pair.pem")
    pair = ("--tls-cert", tmp_path / "pair.pem", "--tls-key", tmp_path / "pair.pem")
    with subprocess.Popen(
        [EXECUTABLE, "serve", "--no-worker", "--listen", "127.0.0.1:0", *pair],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "NOTIFY_SOCKET": notified.getsockname()},
    ) as process:
        yield process
        process.kill()


def next_line(process, mark):
    """The next line of its log that has the mark."""
    return next(line for line in process.stderr if mark in line)


def test_image_comes_by_tls_and_certificates_change(service, authority, environment, notified, tmp_path):
    url = re.search(r"url=(https://127\.0\.0\.1:\d+) ", next_line(service, "event=serving"))[1]
    assert notified.recv(1000).startswith(b"READY=1\nSTATUS=the spool ")
    token = subprocess.check_output(
        [EXECUTABLE, "token", "create", "--user", "tom"], env=environment, text=True
    ).strip()
    theirs = {**environment, "CLOUDUPLOADER_HOME": str(tmp_path / "other"), "CLOUDUPLOADER_TOKEN": token}

    def run(*words, ca=authority.path):
        words = [EXECUTABLE, *words, "--server", url, "--ca", ca, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, env=theirs, check=False, timeout=PATIENCE_SECONDS)
        answer = json.loads(done.stdout)
        return done.returncode, answer["data"] or answer["error"]["message"]

    def serial():
        context = ssl.create_default_context(cafile=authority.path)
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        sock = socket.create_connection(address, PATIENCE_SECONDS)
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as client:
            return client.getpeercert()["serialNumber"]

    code, job = run("submit", tmp_path / "a.raw", "--target", "directory")
    assert (code, job["server"]) == (0, url), job
    assert (tmp_path / "spool" / f"{job['job']}.file").read_bytes() == b"image"
    other = Authority(tmp_path / "elsewhere")
    assert run("list", ca=other.path) == (69, f"the certificate of {url} is of an authority that is not known here")

    first = serial()
    authority.issue("second").rename(tmp_path / "pair.pem")
    assert "the certificate was read again" in next_line(service, "event=settings")
    second = serial()
    assert second != first
    (tmp_path / "pair.pem").write_text("nonsense")
    assert "the old certificate stays: " in next_line(service, "event=settings")
    service.send_signal(signal.SIGHUP)
    assert "the old certificate stays: " in next_line(service, "old certificate")
    assert serial() == second
    assert len(run("list")[1]["jobs"]) == 1
    service.terminate()
    assert "event=stopped" in next_line(service, "event=stopped")
    assert service.wait(PATIENCE_SECONDS) == 0
