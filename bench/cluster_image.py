"""An image from the server to an upload host, beside nginx and curl with the same file, in turn.

.venv/bin/python bench/cluster_image.py [--rounds 5] [--mib 1024]

Needs nginx and curl. The file lies in /dev/shm, and so does what clients write. CPU time is that of the server, or of
the client, with all its processes. nginx has one process that works; TLS is 1.3 with the same cipher.
"""

import argparse
import contextlib
import datetime
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.authority import Authority

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.cluster.dispatch import leases
from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.cluster.dispatch.digests import ImageDigest
from clouduploader.cluster.dispatch.hosts import Hosts
from clouduploader.cluster.host import fetch
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.server import service
from clouduploader.server import settings as server_settings
from clouduploader.store import config, spool
from clouduploader.store.spool import leases as records
from clouduploader.store.tokens import Role, TokenStore
from clouduploader.util import cancel, service_log
from clouduploader.util.arrival import ArrivalWriter
from clouduploader.util.certificates import ClientTls
from clouduploader.worker.settings import WorkerSettings

CLAIM = "c" * 32
LEASE_SECONDS = 3600
NGINX = """
daemon off; user root; worker_processes 1; pid {place}/nginx.pid; error_log {place}/nginx.log;
events {{}}
http {{
  sendfile on; access_log off; client_body_temp_path {place}/1; proxy_temp_path {place}/2;
  fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
  ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3;
  server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl; root {place}/bs/cloudupload; }}
}}
"""
PORTS = {"nginx": (18480, 18481), "ours": (18482, 18483)}


def make_site(place, mib):
    """Make a spool with a job that is claimed; return what a server needs, and the token of a host."""
    jobs = spool.Spool(place / "bs" / "cloudupload")
    jobs.directory.mkdir(parents=True)
    loaded = config.load(home=place, spool=jobs.directory, environment={})
    with jobs.file_path("7").open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    job = Job(name="7", state=JobState.SCHEDULED, user="tom", target="directory", filename="a.raw")
    jobs.data_path("7").write_bytes(f'{{"path": "{place}"}}'.encode())
    jobs.job_path("7").write_bytes(job_xml.serialize(job))
    settings = ClusterSettings(host="server", lease_seconds=LEASE_SECONDS)
    held = leases.Leases(
        jobs,
        loaded,
        cluster=lambda: settings,
        worker=lambda: WorkerSettings(tries=3),
        on_event=lambda _event: None,
    )
    held.load()
    identity = records.identity_of(jobs.file_path("7").stat())
    held.publish("7", "uploads", ImageDigest(sha256_of(jobs.file_path("7")), identity))
    held.claim("7", leases.Claim(attempt=1, id=CLAIM, host="h", protocol=1))
    cluster = Cluster(
        leases=held,
        hosts=Hosts(jobs.directory, lease_seconds=lambda: LEASE_SECONDS),
        cluster_settings=lambda: settings,
        worker_settings=lambda: WorkerSettings(tries=3),
        lend_image=lambda _name: None,
        waiting=dict,
    )
    now = datetime.datetime.now(datetime.UTC)
    token = TokenStore(place).create("host", Role.WORKER, note="", expires=None, now=now)[1]
    return loaded, cluster, token


def sha256_of(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def forked(work):
    """Do work in a process of its own, which is ended with the block; gives its number."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def serve(place, loaded, cluster, port, pem):
    """Serve until SIGTERM."""
    asked = cancel.Cancel()
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.request(number))
    section = {"listen": f"127.0.0.1:{port}", **({"tls_cert": pem, "tls_key": pem} if pem else {})}
    source = server_settings.SettingsSource(lambda: server_settings.load(section, loaded.path))
    with (place / f"log-{port}").open("w") as log:
        service.run(
            loaded, source, cancel=asked, announce=lambda _url: None, log=service_log.ServiceLog(log), worker=None,
            cluster=cluster,
        )  # fmt: skip


def cpu_of(pid):
    """What a process and its children have used, in seconds."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    threads = [task for number in [pid, *children] for task in Path(f"/proc/{number}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in threads) / 1e9


def cpu_of_child(command):
    """Run a client; return the seconds of CPU that it used, and those that it took."""
    began, pid = time.monotonic(), os.fork()
    if not pid:
        if callable(command):
            command()
            os._exit(0)
        os.execvp(command[0], command)
    _, status, used = os.wait4(pid, 0)
    assert status == 0, command
    return used.ru_utime + used.ru_stime, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        compare(place, options)
    finally:
        shutil.rmtree(place)


def compare(place, options):
    loaded, cluster, token = make_site(place, options.mib)
    authority = Authority(place / "pki")
    pem, image = str(authority.issue()), place / "bs" / "cloudupload" / "7.file"
    (place / "nginx.conf").write_text(
        NGINX.format(place=place, pem=pem, port=PORTS["nginx"][0], tls_port=PORTS["nginx"][1])
    )
    digest = sha256_of(image)

    def curl(url, *options):
        return [
            "curl",
            "-sf",
            "--tlsv1.3",
            "--cacert",
            str(authority.path),
            "-H",
            f"Authorization: Bearer {token}",
            url,
            *options,
        ]

    def fetched(has_tls):
        def work():
            url = f"{'https' if has_tls else 'http'}://127.0.0.1:{PORTS['ours'][has_tls]}"
            server = ClusterServer(url, token, tls=ClientTls(ca=authority.path))
            claim = Claim("7", 1, CLAIM)
            size = image.stat().st_size
            with ArrivalWriter() as arrival:
                fetch.fetch(
                    server, claim, place / "fetched", size=size, sha256=digest, cancel=cancel.Cancel(), arrival=arrival
                )

        return work

    with contextlib.ExitStack() as stack:
        nginx = subprocess.Popen(["nginx", "-c", str(place / "nginx.conf"), "-e", str(place / "nginx.log")])
        stack.callback(nginx.wait)
        stack.callback(nginx.terminate)
        pids = {"nginx": [nginx.pid] * 2, "ours": []}
        for has_tls in (False, True):
            port = PORTS["ours"][has_tls]
            work = lambda: serve(place, loaded, cluster, port, pem if has_tls else None)  # noqa: B023, E731
            pids["ours"].append(stack.enter_context(forked(work)))
        time.sleep(3)
        target = f"/api/v1/cluster/jobs/7/image?attempt=1&claim={CLAIM}"
        found = {}
        for _ in range(options.rounds):
            for has_tls in (False, True):
                scheme = "https" if has_tls else "http"
                for name, path in (("nginx", "/7.file"), ("ours", target)):
                    url, pid = f"{scheme}://127.0.0.1:{PORTS[name][has_tls]}{path}", pids[name][has_tls]
                    before = cpu_of(pid)
                    used, took = cpu_of_child(curl(url, "-o", "/dev/null"))
                    note(found, f"{scheme}: {name}, to curl", cpu_of(pid) - before, took)
                    if name == "nginx":
                        note(found, f"{scheme}: curl -o /dev/null", used, took)
                url = f"{scheme}://127.0.0.1:{PORTS['nginx'][has_tls]}/7.file"
                note(found, f"{scheme}: curl -o FILE", *cpu_of_child(curl(url, "-o", str(place / "taken"))))
                note(found, f"{scheme}: the host's fetch", *cpu_of_child(fetched(has_tls)))
            note(found, "sha256sum FILE", *cpu_of_child(["sh", "-c", f"sha256sum {image} >/dev/null"]))
    gib = options.mib / 1024
    for what, values in found.items():
        cpu, wall = ([value[index] / gib for value in values] for index in (0, 1))
        print(f"{what:32} CPU s/GiB {statistics.median(cpu):5.2f} ({min(cpu):.2f}-{max(cpu):.2f})  "
              f"MiB/s {1024 / statistics.median(wall):6.0f}")  # fmt: skip
    for scheme in ("http", "https"):
        ratios = [
            a[0] / b[0]
            for a, b in zip(found[f"{scheme}: ours, to curl"], found[f"{scheme}: nginx, to curl"], strict=True)
        ]
        print(f"{scheme}: server, CPU to nginx: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def note(found, what, cpu, wall):
    found.setdefault(what, []).append((cpu, wall))


if __name__ == "__main__":
    main()
