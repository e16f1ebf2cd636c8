"""`clouduploader serve` as systemd starts it: server and worker in one process, signals, what it tells."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long
SKELETON = (
    "<clouduploadjob><user>tom</user><target>ec2</target><project>p</project><repository>r</repository>"
    "<package>k</package><arch>x86_64</arch><filename>a.raw</filename><size>5</size><details>7b7d</details>"
    "</clouduploadjob>"
)


class Service:
    """A home whose uploader waits for a file and then fails, a spool, and what was started on them."""

    def __init__(self, place):
        self.place = place
        (place / "home").mkdir()
        (place / "bs").mkdir()
        (place / "uploader").write_text('#!/bin/sh\nwhile [ ! -e "${3%/*/*}/go" ]; do sleep 0.05; done\nexit 77\n')
        (place / "uploader").chmod(0o755)
        self.set(program=place / "uploader")
        self.log = place / "service.log"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(place / "notify"))
        self._notify.settimeout(PATIENCE_SECONDS)
        self._children = []
        self.url = None

    def set(self, **values):
        lines = [f"{name} = {value}" for name, value in values.items()]
        (self.place / "home/clouduploader.conf").write_text("\n".join(["[worker]", *lines]))

    def start(self, *options):
        """Start it, and wait until it tells systemd that it is ready."""
        child = self.popen(*options)
        told = self._notify.recv(4096).decode()
        self.url = re.fullmatch(r"READY=1\nSTATUS=the spool \S+ is served at (http://127\.0\.0\.1:\d+)", told)[1]
        return child

    def popen(self, *options):
        home, jobs = self.place / "home", self.place / "bs/cloudupload"
        with self.log.open("a") as log:
            child = subprocess.Popen(
                [PROGRAM, "--home", home, "--spool", jobs, "serve", "--listen", "127.0.0.1:0", *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                env={"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(self.place / "notify")},
            )  # fmt: skip
        self._children.append(child)
        return child

    def ask(self, path, *, method="GET", data=None):
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310 our own
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return answer.read()

    def submit(self):
        name = re.search(rb'name="(\d+)"', self.ask("/cloudupload", method="POST", data=SKELETON.encode()))[1].decode()
        self.ask(f"/cloudupload/{name}", method="PUT", data=b"image")
        return name

    def wait_for(self, pattern, *, after=0):
        """Wait for a line of the log, and return it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            text = self.log.read_text()[after:]
            found = re.search(rf"(?m)^.*{pattern}.*$", text)
            if found:
                return found[0]
            assert time.monotonic() < deadline, f"no line like {pattern} in {text}"
            time.sleep(0.05)

    def close(self):
        (self.place / "bs/go").touch()  # whatever still waits ends
        for child in self._children:
            child.kill()
            child.wait(PATIENCE_SECONDS)
        self._notify.close()


@pytest.fixture
def service(tmp_path):
    found = Service(tmp_path)
    yield found
    found.close()


def test_one_process_takes_a_job_and_uploads_it(service):
    service.set(program=service.place / "uploader", tries=1)
    child = service.start()
    name = service.submit()
    service.wait_for(rf"event=started job={name} ")
    assert json.loads(service.ask("/healthz")) == {
        "status": "ok", "checks": {"spool": "ok", "disk": "ok", "worker": "ok"},
    }  # fmt: skip
    (service.place / "bs/go").touch()
    line = service.wait_for(rf"event=failed job={name} ")
    assert re.search(r' text="exit status 77" exit_code=77 seconds=\d+\.\d{3}$', line)
    assert b'\nclouduploader_upload_failures_total{exit_code="77"} 1.0\n' in service.ask("/metrics")
    assert b'\nclouduploader_upload_seconds_count{outcome="failed"} 1.0\n' in service.ask("/metrics")
    child.terminate()
    assert child.wait(PATIENCE_SECONDS) == 0
    assert service.log.read_text().endswith(" event=stopped\n")
    assert all(re.match(r"time=\S+ event=[a-z]+( |$)", line) for line in service.log.read_text().splitlines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_upload_outlives_the_service_and_is_taken_over(service, number):
    child = service.start()
    name = service.submit()
    pid = re.search(r"process (\d+)", service.wait_for(rf"event=started job={name} "))[1]
    child.send_signal(number)
    child.wait(PATIENCE_SECONDS)
    service.start()
    assert f"process {pid}" in service.wait_for(rf"event=adopted job={name} ")
    (service.place / "bs/go").touch()
    assert "exit_code=" not in service.wait_for(rf"event=failed job={name} ")
    assert b'\nclouduploader_upload_failures_total{exit_code="unknown"} 1.0\n' in service.ask("/metrics")


def test_drain_serves_until_the_last_upload_has_ended(service):
    child = service.start("--drain")
    name, other = service.submit(), service.submit()
    service.wait_for(rf"event=started job={other} ")
    child.terminate()
    left = service.submit()
    assert b"<state>uploading</state>" in service.ask(f"/cloudupload/{name}")
    (service.place / "bs/go").touch()
    assert child.wait(PATIENCE_SECONDS) == 0
    assert f"event=started job={left} " not in service.log.read_text()


def test_second_signal_ends_a_drain(service):
    child = service.start("--drain")
    name = service.submit()
    service.wait_for(rf"event=started job={name} ")
    child.terminate()
    assert b"<state>uploading</state>" in service.ask(f"/cloudupload/{name}")
    child.terminate()
    assert child.wait(PATIENCE_SECONDS) == 0


def test_submitted_image_is_uploaded_and_waited_for(service):
    images = service.place / "images"
    images.mkdir()
    with (service.place / "home/clouduploader.conf").open("w") as settings:
        settings.write(f"[worker]\nprogram = {PROGRAM}\n[directory]\npath = {images}\n")
    (service.place / "a.raw").write_bytes(b"an image")
    service.start()
    words = [service.place / "a.raw", "--user", "tom", "--target", "directory", "--server", service.url, "--wait"]
    done = subprocess.run(
        [PROGRAM, "--home", service.place / "home", "submit", *words],
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"1\n{images}/a.raw\n"), done.stderr
    assert (images / "a.raw").read_bytes() == b"an image"


def test_sighup_reads_the_settings_of_the_worker_again(service):
    child = service.start()
    service.set(max_jobs="many")
    child.send_signal(signal.SIGHUP)
    assert "the old ones stay: " in service.wait_for("event=settings ")
    service.set(program=service.place / "uploader", max_jobs=1)
    after = service.log.stat().st_size
    child.send_signal(signal.SIGHUP)
    assert "were read again" in service.wait_for("event=settings ", after=after)
    assert child.poll() is None


def test_second_worker_ends_the_service_and_says_why(service):
    service.start()
    second = service.popen()
    assert second.wait(PATIENCE_SECONDS) == 75
    assert "clouduploader: another worker works on the spool" in service.log.read_text()


def test_worker_that_ends_takes_the_service_along(service):
    child = service.start()
    (service.place / "bs/cloudupload").rename(service.place / "bs/elsewhere")
    assert child.wait(PATIENCE_SECONDS) == 66


def test_without_worker_nothing_is_started(service):
    service.start("--no-worker")
    name = service.submit()
    with pytest.raises(urllib.error.HTTPError) as failure:
        service.ask("/healthz")
    assert failure.value.code == 503
    failure.value.close()
    assert f"event=scheduled job={name} " in service.log.read_text()
    assert "event=started" not in service.log.read_text()
