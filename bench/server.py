"""Our server beside OBS's own, each on a spool of its own, asked in turn: requests, images, memory, start.

.venv/bin/python bench/server.py [--rounds 5] [--seconds 2] [--mib 512]

CPU time is that of the server with all its processes. The clients, four processes with plain sockets, share its cores.
"""

import argparse
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from e2e.obs import obs_supervisor
from e2e.obs.obs_backend import EXECUTABLE, Backend

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

CLIENTS = 4  # OBS's server has five processes by default
JOBS = 100  # in the archive, while requests are counted
MANY_JOBS, FOLLOWERS = 10_000, 1_000
TICKS = os.sysconf("SC_CLK_TCK")
BUFFER = os.urandom(1 << 20)
FIELDS = ("user", "target", "project", "repository", "package", "arch", "filename")
SKELETON = "".join(f"<{name}>x</{name}>" for name in FIELDS)


class Obs:
    """OBS's server; its worker runs too, and does nothing with what it gets."""

    name = "bs_clouduploadserver"

    def __init__(self, place):
        bin_dir = place / "bin"
        bin_dir.mkdir(parents=True)
        (bin_dir / "clouduploader").write_text("#!/bin/sh\n")
        (bin_dir / "clouduploader").chmod(0o755)
        self._backend = Backend(place / "bs", path_dirs=[bin_dir], environment={})
        began = time.monotonic()
        self._backend.start()
        self.start_seconds = time.monotonic() - began
        self.spool, self.port = self._backend.spool, self._backend._ports[self.name]
        self.close = self._backend.close

    def pids(self):
        found = obs_supervisor.descendants(self._backend._supervisor.pid)
        return [pid for pid in found if self.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Ours:
    """Our server, without a worker."""

    name = "clouduploader serve"

    def __init__(self, place):
        self.spool = place / "cloudupload"
        place.mkdir()
        began = time.monotonic()
        log_path = place / "log"  # of the service, as OBS's server has one
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [EXECUTABLE, "--home", place, "--spool", self.spool, "serve", "--no-worker", "--listen", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        while not (found := re.search(r"event=serving url=http://127\.0\.0\.1:(\d+)", log_path.read_text())):
            time.sleep(0.005)
        self.port = int(found[1])
        self.start_seconds = time.monotonic() - began

    def pids(self):
        return [self._process.pid]

    def close(self):
        self._process.terminate()
        self._process.wait()


def cpu_seconds(server):
    """What its processes, and those that have ended, have used."""
    for _ in range(2):  # OBS's server takes note of a process that has ended when the next client comes
        time.sleep(0.05)
        ask(server.port, b"GET / HTTP/1.1\r\nHost: obs\r\n\r\n")
    total = 0
    for pid in server.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def memory_mib(server, key="VmRSS"):
    found = [re.search(rf"{key}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in server.pids()]
    return sum(int(it[1]) for it in found) / 1024


def fill(spool, count):
    done = spool / "done"
    done.mkdir(exist_ok=True)
    for number in range(1, count + 1):
        job = Job(name=str(number), state=JobState.SUCCEEDED, details="ami-0123456789abcdef0", created=1_795_361_942,
                  user="tom", target="ec2", project="Base:System", repository="images", package="appliance",
                  arch="x86_64", filename="appliance-1.0.x86_64.raw.xz", size=700_000_000)  # fmt: skip
        (done / job.name).write_bytes(job_xml.serialize(job))


def ask(port, request):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def _client(port, target, seconds, counted):
    request = f"GET {target} HTTP/1.1\r\nHost: obs\r\n\r\n".encode()
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        assert ask(port, request).startswith(b"HTTP/1.1 200")
        count += 1
    counted.put(count)


def requests(server, target, seconds):
    """Requests a second, and CPU milliseconds of each."""
    counted = multiprocessing.Queue()
    arguments = (server.port, target, seconds, counted)
    clients = [multiprocessing.Process(target=_client, args=arguments) for _ in range(CLIENTS)]
    cpu = cpu_seconds(server)
    began = time.monotonic()
    for client in clients:
        client.start()
    count = sum(counted.get() for _ in clients)
    elapsed = time.monotonic() - began
    for client in clients:
        client.join()
    return count / elapsed, (cpu_seconds(server) - cpu) / count * 1000


def put(server, mib):
    """MiB a second, and CPU seconds of a GiB."""
    skeleton = f"<clouduploadjob>{SKELETON}<size>{mib << 20}</size></clouduploadjob>".encode()
    head = f"POST /cloudupload HTTP/1.1\r\nHost: obs\r\nContent-Length: {len(skeleton)}\r\n\r\n"
    answer = ask(server.port, head.encode() + skeleton)
    path = "/cloudupload/" + re.search(rb'name="(\d+)"', answer)[1].decode()
    found = send(server, mib, f"PUT {path} HTTP/1.1\r\nHost: obs\r\n")
    ask(server.port, f"POST {path}?cmd=kill HTTP/1.1\r\nHost: obs\r\nContent-Length: 0\r\n\r\n".encode())
    return found


def patch(server, mib):
    """The same by the API, in one piece."""
    tus = "Host: obs\r\nTus-Resumable: 1.0.0\r\n"
    head = f"POST /api/v1/images HTTP/1.1\r\n{tus}Upload-Length: {mib << 20}\r\nContent-Length: 0\r\n\r\n"
    path = re.search(rb"Location: (\S+)", ask(server.port, head.encode()))[1].decode()
    of_piece = "Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
    found = send(server, mib, f"PATCH {path} HTTP/1.1\r\n{tus}{of_piece}")
    ask(server.port, f"DELETE {path} HTTP/1.1\r\n{tus}\r\n".encode())
    return found


def send(server, mib, head):
    """Send an image by a request; see `put`."""
    cpu = cpu_seconds(server)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{head}Content-Length: {mib << 20}\r\n\r\n".encode())
        for _ in range(mib):
            client.sendall(BUFFER)
        assert client.recv(1000).startswith(b"HTTP/1.1 20")
    elapsed = time.monotonic() - began
    return mib / elapsed, (cpu_seconds(server) - cpu) / mib * 1024


def measure_memory(server):
    """MiB with many jobs listed once, and with many followers of a log besides."""
    fill(server.spool, MANY_JOBS)
    ask(server.port, b"GET /cloudupload HTTP/1.1\r\nHost: obs\r\n\r\n")
    listed = memory_mib(server)
    job = Job(name="999999", state=JobState.UPLOADING, pid=1)
    (server.spool / "999999.log").write_bytes(b"begun\n")
    (server.spool / "999999").write_bytes(job_xml.serialize(job))
    followers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(FOLLOWERS)]
    for client in followers:
        client.sendall(b"GET /cloudupload/999999/_log HTTP/1.1\r\nHost: obs\r\n\r\n")
    for client in followers:
        assert client.recv(1000)
    followed = memory_mib(server)
    for client in followers:
        client.close()
    (server.spool / "999999").unlink()
    return listed, followed


def main():
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--mib", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        servers = [Obs(Path(place) / "obs"), Ours(Path(place) / "ours")]
        try:
            rows = {}
            for server in servers:
                fill(server.spool, JOBS)
                rows["start, ms", server.name] = [(server.start_seconds * 1000,)]
            for _ in range(options.rounds):
                for server in servers:
                    for title, target in (("status", "/cloudupload/50"), (f"list of {JOBS}", "/cloudupload")):
                        rows.setdefault((f"{title}: requests/s, CPU ms", server.name), []).append(
                            requests(server, target, options.seconds)
                        )
                    rows.setdefault(("PUT: MiB/s, CPU s/GiB", server.name), []).append(put(server, options.mib))
                rows.setdefault(("PATCH: MiB/s, CPU s/GiB", Ours.name), []).append(patch(servers[-1], options.mib))
            for server in servers[1:]:
                rows["peak MiB after PUT", server.name] = [(memory_mib(server, "VmHWM"),)]
                rows[f"MiB, {MANY_JOBS} jobs, {FOLLOWERS} followers", server.name] = [measure_memory(server)]
            for (title, name), values in sorted(rows.items()):
                columns = [
                    f"{statistics.median(column):.2f} ({min(column):.2f}-{max(column):.2f})"
                    for column in zip(*values, strict=True)
                ]
                print(f"{title:40} {name:22} {'   '.join(columns)}")
        finally:
            for server in servers:
                server.close()


if __name__ == "__main__":
    main()
