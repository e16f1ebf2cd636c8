"""A whole cluster on this machine: RabbitMQ, a server, and hosts with directories of their own, all in a sandbox.

Each host reaches server and broker by names that lead, for it alone, to an address where its own networks listen; so
it can be cut off from each of them.
"""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from fakes import rabbitmq
from fakes.blackhole import Blackhole
from samples.minimal_disk import as_disk

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.plugin.transfer.confirmed import ConfirmedChunks
from clouduploader.sandbox.aws.disks import BLOCK_BYTES
from clouduploader.store import journal, spool
from clouduploader.util import processes

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
LEASE_SECONDS, BEAT_SECONDS, PUBLISH_SECONDS = 8, 1, 3  # a machine under load needs some to start a server
PATIENCE_SECONDS = 60  # only a failing test waits that long
POLL_SECONDS = 0.05
BLOCK_SECONDS = 0.25  # so long takes each of an upload that is to take some seconds, one after the other
SETTINGS = f"""
[server]
keep_free = 1
[worker]
max_jobs_per_user = 100
pass_environment = AWS_ENDPOINT_URL AWS_ENDPOINT_URL_EBS
retry_seconds = 1
retry_max_seconds = 2
kill_grace_seconds = 30
[ec2]
method = ebs-direct
connections = 1
grace_seconds = 20
[cluster]
lease_seconds = {LEASE_SECONDS}
beat_seconds = {BEAT_SECONDS}
publish_seconds = {PUBLISH_SECONDS}
takeovers = 100
"""
"""Section [cluster] is the last, so that a machine can add to it."""


class Machine:
    """A process that serves, with its home and its spool.

    Attributes:
        place: Its directory; nothing else of the cluster is there.
        process: The running process; None if it does not run.
        command: What is started.
        within: What stands before it.
    """

    def __init__(self, cluster, name, settings):
        self.name = name
        self.place = cluster.place / name
        self.process = None
        self._cluster = cluster
        self.jobs = spool.Spool(self.place / "cloudupload")
        self.jobs.directory.mkdir(parents=True)
        self.home = self.place / "home"
        shutil.copytree(cluster.sandbox.home / ".aws", self.home / ".aws")
        (self.home / "clouduploader.conf").write_text(settings)
        (self.home / "broker-password").touch(0o600)
        (self.home / "broker-password").write_text(cluster.broker.password)
        self.command, self.within = [], []

    @property
    def log(self):
        """What it has said so far."""
        path = self.place / "log"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return "".join(line for line in lines if "path=/api/v1/cluster " not in line)

    def start(self):
        """Start it."""
        environment = self._cluster.sandbox.environment(
            CLOUDUPLOADER_HOME=str(self.home), CLOUDUPLOADER_SPOOL=str(self.jobs.directory)
        )
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._cluster.sandbox.enter, *self.within, *rabbitmq.DIES_WITH_US, *self.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.place,
                env=environment,
            )  # fmt: skip

    def kill(self):
        """End it by SIGKILL: the first process, not what that has started."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self.process = None

    def stop(self):
        """End it as its service would, and wait for that; return its exit status."""
        self.process.terminate()
        status = self.process.wait(PATIENCE_SECONDS)
        self.process = None
        return status

    def restart(self):
        """Stop and start it."""
        self.stop()
        self.start()

    def close(self):
        """End it and all that it has started."""
        if self.process is not None:
            for pid in self.pids():
                signal_to(pid, signal.SIGKILL)
            self.kill()

    def pids(self):
        """Return it and all that it has started, in whatever session."""
        found = processes.all_processes().values()
        members = {self.process.pid}
        while more := {it.pid for it in found if it.parent_pid in members and it.is_alive} - members:
            members |= more
        return members


class Host(Machine):
    """A host that uploads."""

    def __init__(self, cluster, name, address, slots, before):
        settings = f"{cluster.settings}\nhost = {name}\nslots = {slots}\n[clouduploader]\nsend_clear_tokens = yes\n"
        super().__init__(cluster, name, settings)
        names = self.place / "hosts"
        names.write_text(f"127.0.0.1 localhost\n{address} server.test broker.test\n")
        (self.home / "token").touch(0o600)
        (self.home / "token").write_text(cluster.token(name))
        script = f'mount --bind "{names}" /etc/hosts && exec "$@"'
        self.within = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
        options = ["--server", cluster.url, "--broker", cluster.broker_url]
        self.command = [*before, EXECUTABLE, "worker", "--cluster", *options]
        self.to_server, self.to_broker = (
            Blackhole(f"{address}:{port}", f"127.0.0.1:{port}", cluster.sandbox.enter)
            for port in (cluster.port, cluster.broker.port)
        )

    def pool(self):
        """Return the processes of Celery's pool."""
        return children_of(self.process.pid)

    def uploaders(self):
        """Return the uploaders, which are what the pool's processes start."""
        return [pid for parent in self.pool() for pid in children_of(parent)]

    def signal_all(self, number):
        """Send a signal to all of its processes: the host is lost by SIGSTOP, and comes back by SIGCONT."""
        for pid in self.pids():
            signal_to(pid, number)

    def lose(self):
        """End all of its processes at once, as a machine without power does."""
        self.signal_all(signal.SIGSTOP)
        self.close()

    def leftovers(self):
        """Return the names of what attempts have left in its spool."""
        attempts = self.jobs.directory / "attempts"
        return sorted(path.name for path in attempts.iterdir()) if attempts.exists() else []

    def close_networks(self):
        """End its networks."""
        self.to_server.close()
        self.to_broker.close()


class Cluster:
    """A cluster; all of it ends with `close`.

    Args:
        sandbox: Where.
        broker: Of this cluster alone.
        place: An empty directory.
        settings: Of server and hosts; section [cluster] is the last.

    Attributes:
        server: The machine with the spool.
        hosts: Those that upload, by name.
        images: What has to be in each image, by its name in the cloud.
    """

    def __init__(self, sandbox, broker, place, settings=SETTINGS):
        self.sandbox, self.broker, self.place, self.settings = sandbox, broker, place, settings
        (self.port,) = rabbitmq.free_ports(1)
        self.url = f"http://server.test:{self.port}"
        self.broker_url = broker.url.replace("127.0.0.1", "broker.test")
        self.server = Machine(self, "server", settings)
        self.server.command = [
            EXECUTABLE, "serve", "--listen", f"127.0.0.1:{self.port}", "--socket", place / "socket",
            "--broker", broker.url, "--server", self.url,
        ]  # fmt: skip
        self.jobs = self.server.jobs
        self.hosts, self.images = {}, {}

    def token(self, name):
        """Make a token for a host."""
        argv = [EXECUTABLE, "--home", self.server.home, "token", "create", "--user", name, "--role", "worker"]
        return self.sandbox.run(argv).stdout.strip()

    def add_host(self, name, *, slots=2, before=()):
        """Start a host, by a command that has this before it."""
        host = self.hosts[name] = Host(self, name, f"127.0.{len(self.hosts) + 1}.1", slots, before)
        host.start()
        return host

    def remove_host(self, name):
        """End a host for good."""
        host = self.hosts.pop(name)
        host.close()
        host.close_networks()

    def close(self):
        """End all."""
        for machine in (*self.hosts.values(), self.server):
            machine.close()
        for host in self.hosts.values():
            host.close_networks()

    # --- jobs

    def submit(self, *, blocks=1, user="tom", target="ec2", **targetdata):
        """Give it a job, in OBS's order: data, image, record by a rename; return its name."""
        name = self.jobs.allocate()
        raw = make_image(blocks, int(name))
        data = self.sandbox.targetdata(**{"user_id": None, "ami_name": f"image-{name}"} | targetdata)
        self.images[f"image-{name}"] = raw
        self.jobs.data_path(name).write_text(json.dumps(data))
        self.jobs.file_path(name).write_bytes(raw)
        job = Job(
            name=name, state=JobState.SCHEDULED, user=user, target=target, size=len(raw), filename=f"disk{name}.raw",
            created=int(time.time()), project="Cloud:Images", repository="images", package="disk", arch="x86_64",
        )  # fmt: skip
        path = self.jobs.directory / f".{name}.test"
        path.write_bytes(job_xml.serialize(job))
        path.replace(self.jobs.job_path(name))
        return name

    def begin(self, blocks):
        """Begin an upload that takes some seconds until the sandbox has no faults; return its job and snapshot."""
        before = set(self.puts())
        self.sandbox.fault("PutSnapshotBlock", delay_seconds=BLOCK_SECONDS)
        job = self.submit(blocks=blocks)
        self.wait_for(lambda: any(count > 3 for it, count in self.puts().items() if it not in before))
        (snapshot,) = set(self.puts()) - before
        return job, snapshot

    def job(self, name):
        """Return a job."""
        return self.jobs.read(name)[0]

    def log(self, name):
        """Return the log of a job."""
        for path in (self.jobs.log_path(name), self.jobs.done_log_path(name)):
            with contextlib.suppress(FileNotFoundError):
                return path.read_text()
        return ""

    def wait_for_end(self, *names):
        """Wait until jobs are over and their files gone, as long as another one ends now and then; return them."""
        left = set(names)

        def has_ended():
            ended = {it for it in left if self.jobs.done_path(it).exists() and not self.files_of(it)}
            left.difference_update(ended)
            return ended or not left

        while left:
            self.wait_for(has_ended)
        return [self.job(it) for it in names]

    def files_of(self, name):
        """Return what the spool has of a job that is not archived yet."""
        found = (path.name for path in self.jobs.directory.iterdir())
        return sorted(it for it in found if re.fullmatch(rf"\.?{name}(\..*)?", it))

    def lease(self, name):
        """Return who has a job, as the API tells; None for no host."""
        return next((it for it in self.status()["leases"] if it["job"] == name), None)

    def attempts(self, name):
        """Return the attempts of a job that hosts have claimed, as the server tells of them."""
        lines = re.findall(rf"event=started job={name} .*", self.server.log)
        return [int(re.search(r"attempt (\d+)", line)[1]) for line in lines]

    def drain(self, host, *, is_draining=True):
        """Let a host take no more jobs, or some again."""
        status, text = self.ask("POST", f"/api/v1/cluster/hosts/{host}/drain", {"drain": is_draining})
        assert status == 200, text

    def wait_for_host(self, name, *, other_than=None):
        """Wait until a host has a job; return the host."""

        def found():
            lease = self.lease(name)
            return lease and lease["host"] != other_than and self.hosts[lease["host"]]

        return self.wait_for(found)

    def confirmed(self, name, snapshot):
        """Return the blocks of a snapshot that the server's journal of a job tells to be there."""
        key = json.loads((self.jobs.directory / f".{name}.lease").read_text())["journal"]
        path = self.jobs.directory / "journal" / key / journal.PLATFORM_NAME / f"{snapshot}.confirmed"
        if not path.exists():
            return frozenset()
        copy = self.place / path.name
        shutil.copyfile(path, copy)  # to open it cuts off what a crash has torn
        blocks = self.sandbox.control("GET", "blocks", {"snapshot_id": snapshot})
        with ConfirmedChunks(copy, BLOCK_BYTES) as opened:
            return frozenset(index for index in blocks if opened.confirmed(index) is not None)

    def puts(self):
        """Return how many blocks were sent into each snapshot."""
        return {it: found["puts"] for it, found in self.sandbox.ebs()["snapshots"].items()}

    # --- what it says

    def ask(self, method, path, body=None):
        """Ask the server, as one who may do all."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.place / "socket"))
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, text

    def status(self):
        """Return what `cluster status` is made of."""
        status, text = self.ask("GET", "/api/v1/cluster")
        assert status == 200, text
        return json.loads(text)

    def wait_for(self, is_true):
        """Wait until a function returns something true, and return that; while the server is away it is not."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if found := is_true():
                    return found
            assert time.monotonic() < deadline, self.story()
            time.sleep(POLL_SECONDS)

    def wait_until_ready(self):
        """Wait until the server knows that all hosts that run take jobs."""
        running = {name for name, host in self.hosts.items() if host.process}

        def working():
            return {it["name"] for it in self.status()["hosts"] if it["queues"] and not it["gone"]}

        self.wait_for(lambda: running <= working())

    def story(self):
        """Return what all have said, without our own questions."""
        logs = "".join(f"--- {it.name}\n{it.log}\n" for it in (self.server, *self.hosts.values()))
        files = sorted(path.name for path in self.jobs.directory.iterdir())
        jobs = "".join(f"--- log of {name}\n{self.log(name)}\n" for name in self.jobs.running_names())
        return f"{logs}{jobs}{files}"

    def recover(self):
        """Let all be as at the start: each machine and network works, and no job is left."""
        self.sandbox.faults()
        self.broker.thaw()
        for host in self.hosts.values():
            host.to_server.heal()
            host.to_broker.heal()
            if host.process is not None:
                host.signal_all(signal.SIGCONT)
        for machine in (self.server, *self.hosts.values()):
            if machine.process is None or machine.process.poll() is not None:
                machine.start()
        self.wait_until_ready()
        for name in self.hosts:
            self.drain(name, is_draining=False)
        self.wait_for_end(*self.jobs.running_names())

    # --- the judge

    def check_account(self, names=None):
        """Check that the cloud has each image once, with what has to be in it, and nothing else.

        Args:
            names: Of the jobs; None for all.
        """
        wanted = set(self.images) if names is None else {f"image-{name}" for name in names}
        account = self.sandbox.account()
        images = [it for it in account["images"] if names is None or it["name"] in wanted]
        assert sorted(it["name"] for it in images) == sorted(wanted), self.story()
        for image in images:
            raw = self.images[image["name"]]
            assert self.sandbox.image_bytes(image["id"], len(raw)) == raw, image["name"]
        if names is None:
            used = [it["block_device_mappings"][0]["Ebs"]["SnapshotId"] for it in images]
            assert sorted(it["id"] for it in account["snapshots"]) == sorted(used), self.story()
            others = {kind for kind, found in account.items() if found} - {"images", "snapshots"}
            assert not others, account


def make_image(blocks, seed):
    """Return an image of so many blocks, none of them zeros."""
    source = random.Random(seed)  # noqa: S311 no secret
    return as_disk(b"".join(source.randbytes(16) * (BLOCK_BYTES // 16) for _ in range(blocks)))


def children_of(parent):
    """Return the living children of a process."""
    return sorted(it.pid for it in processes.all_processes().values() if it.parent_pid == parent and it.is_alive)


def signal_to(pid, number):
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
