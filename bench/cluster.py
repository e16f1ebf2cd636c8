"""Many upload hosts: how soon, how many, and what the server can stand.

.venv/bin/python bench/cluster.py [--only start takeover cancel throughput swarm] [--rounds 10] [--jobs 1000]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import amqp
from e2e.cluster import machines
from e2e.cluster.machines import Cluster
from fakes import rabbitmq

import clouduploader
from clouduploader.cluster import broker as cluster_broker
from clouduploader.cluster import protocol

UPLOADER = """#!/bin/bash
# Notes when it starts and is asked to stop, and ends when it may.
job=${3##*/} job=PLACE/${job%.file}
echo "start $EPOCHREALTIME $PPID" >> "$job"
trap 'echo "term $EPOCHREALTIME" >> "$job"; exit 143' TERM
until [ -e "$job.go" ]; do read -t 0.002 <> <(:); done
echo -n made > "$6"
"""
SETTINGS = """
[server]
keep_free = 1
[worker]
max_jobs = 8
max_jobs_per_user = 1000
{program}
[directory]
path = {place}/images
[cluster]
{cluster}
"""
QUEUE = cluster_broker.queue_name("uploads")


class Bare:
    """This machine in the place of a sandbox."""

    enter = ()

    def __init__(self, place):
        self.home = place / "sandbox"
        (self.home / ".aws").mkdir(parents=True)

    def environment(self, **changes):
        return dict(os.environ) | changes

    def run(self, argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True)

    def targetdata(self, **_):
        return {}


class Site:
    """A cluster, or a server with the embedded worker, and what its uploaders write.

    Args:
        place: An empty directory.
        broker: Of a cluster; None for the embedded worker.
        hosts: How many.
        slots: Of each host.
        is_real: Whether the uploads are real ones, into a directory, not a script that waits.
        cluster: Settings of section [cluster].
    """

    def __init__(self, place, broker, *, hosts=0, slots=2, is_real=False, cluster=""):
        (place / "images").mkdir(parents=True)
        self._place = place
        program = place / "uploader"
        program.write_text(UPLOADER.replace("PLACE", str(place / "images")))
        program.chmod(0o755)
        settings = SETTINGS.format(program="" if is_real else f"program = {program}", place=place, cluster=cluster)
        self.cluster = Cluster(Bare(place), broker, place, settings)
        if not hosts:
            del self.cluster.server.command[-4:]
        self.cluster.server.start()
        for number in range(hosts):
            self.cluster.add_host(f"host{number}", slots=slots)
        if hosts:
            self.cluster.wait_until_ready()
        else:
            self.cluster.wait_for(lambda: self.cluster.ask("GET", "/")[0] == 200)

    def submit(self):
        return self.cluster.submit(target="directory")

    def stamps(self, kind, job, count=1):
        """Wait until the uploaders of a job have written so many lines of a kind; return when."""
        path = self._place / "images" / job

        def found():
            lines = path.read_text().splitlines() if path.exists() else []
            times = [float(line.split()[1]) for line in lines if line.startswith(kind)]
            return times if len(times) >= count else None

        return self.cluster.wait_for(found)

    def release(self, job):
        (self._place / "images" / f"{job}.go").touch()

    def close(self):
        self.cluster.close()


@contextlib.contextmanager
def sites(**kinds):
    """Give sites by name; each has its own broker."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, options in kinds.items():
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            broker = stack.enter_context(rabbitmq.running())
            found[name] = Site(place / "site", broker, **options)
            stack.callback(found[name].close)
        yield found


def show(title, name, values, unit="ms", factor=1000):
    texts = [f"{factor * it:10.0f}" for it in (statistics.median(values), min(values), max(values))]
    print(f"{title:36} {name:18}" + "".join(texts) + f" {unit}", flush=True)


def start(options):
    """From the record that says `scheduled` to the uploader's first line."""
    with sites(embedded={}, cluster={"hosts": 2}) as found:
        values = {name: [] for name in found}
        for _ in range(options.rounds):
            for name, site in found.items():
                job = site.submit()
                scheduled = time.time()
                values[name].append(site.stamps("start", job)[0] - scheduled)
                site.release(job)
                site.cluster.wait_for_end(job)
                time.sleep(0.2)
        for name, those in values.items():
            show("scheduled to exec", name, those)
        more = statistics.median(values["cluster"]) - statistics.median(values["embedded"])
        print(f"cluster takes {1000 * more:.0f} ms more (goal 150)")


def takeover(options):
    """From the loss of a host to the next exec of its upload."""
    lease = f"lease_seconds = {options.lease}\nbeat_seconds = {max(1, options.lease // 6)}"
    with sites(cluster={"hosts": 2, "cluster": lease}) as found:
        site, cluster = found["cluster"], found["cluster"].cluster
        for title in ("kill -9 of the main process", "machine hangs"):
            job = site.submit()
            site.stamps("start", job)
            host = cluster.wait_for_host(job)
            lost = time.time()
            if title == "machine hangs":
                host.signal_all(signal.SIGSTOP)
            else:
                host.kill()
            seconds = site.stamps("start", job, 2)[1] - lost
            print(f"{title:36} lease {options.lease:3} s     {seconds:10.1f} s (goal {options.lease + 5})", flush=True)
            site.release(job)
            if title == "machine hangs":
                host.signal_all(signal.SIGCONT)
            else:
                host.start()
            cluster.wait_for_end(job)
            cluster.wait_until_ready()


def cancel(options):
    """From the request that kills a job to its uploader's SIGTERM."""
    with sites(embedded={}, cluster={"hosts": 2}) as found:
        for name, site in found.items():
            values = []
            for _ in range(options.rounds):
                job = site.submit()
                site.stamps("start", job)
                time.sleep(random.random())
                asked = time.time()
                status, text = site.cluster.ask("POST", f"/api/v1/jobs/{job}/kill")
                assert status == 200, text
                values.append(site.stamps("term", job)[0] - asked)
            show("cancel to SIGTERM (goal 2000)", name, values)


def throughput(options):
    """Small jobs, really uploaded into a directory; all in the spool at once."""
    kinds = {
        "embedded, 8 slots": {"hosts": 0},
        "1 host, 8 slots": {"hosts": 1, "slots": 8},
        "4 hosts, 2 slots": {"hosts": 4, "slots": 2},
    }
    base = None
    for name, how in kinds.items():
        with sites(one={"is_real": True, **how}) as found:
            cluster = found["one"].cluster
            began = time.monotonic()
            jobs = [found["one"].submit() for _ in range(options.jobs)]
            machines.PATIENCE_SECONDS = 3600
            done = cluster.wait_for_end(*jobs)
            seconds = (time.monotonic() - began) / len(jobs)
            assert {job.state for job in done} == {"succeeded"}, cluster.story()
            base = base or seconds
            print(f"{name:36} {1000 * seconds:10.0f} ms a job, {seconds / base:.2f} of embedded", flush=True)


class Swarm:
    """Hosts that upload nothing: one of them beats for each job of `still`, and all claim what comes and end it."""

    def __init__(self, cluster, hosts):
        self.claims, self.beats, self.failures = [], [], []
        self._cluster, self._hosts = cluster, [f"sim{number}" for number in range(hosts)]
        self._headers = {"Authorization": f"Bearer {cluster.token('swarm')}"}
        self._session = None
        self._still = set()

    async def ask(self, path, body):
        url = f"http://127.0.0.1:{self._cluster.port}/api/v1/cluster/{path}"
        began = time.monotonic()
        async with self._session.post(url, json=body, headers=self._headers) as answer:
            found = await answer.json()
            if answer.status != 200:
                self.failures.append((path, answer.status, found))
            return time.monotonic() - began, found

    async def greet(self):
        for host in self._hosts:
            body = {
                "name": host, "protocol": protocol.VERSION, "version": clouduploader.__version__, "slots": 50,
                "queues": ["uploads"], "clock": time.time(),
            }  # fmt: skip
            await self.ask("hosts", body)

    async def work(self, job, attempt, host):
        """Claim a job, and end it, or beat for ever."""
        claim = random.randbytes(16).hex()
        mine = {"attempt": attempt, "claim": claim}
        body = mine | {"host": host, "protocol": protocol.VERSION}
        seconds, found = await self.ask(f"jobs/{job}/claim", body)
        if "beat_seconds" not in found:
            return  # published anew meanwhile: another one claims that
        self.claims.append(seconds)
        while job in self._still:
            seconds, answer = await self.ask(f"jobs/{job}/beat", mine | {"progress": 50})
            self.beats.append(seconds - found["beat_seconds"])
            if "stop" not in answer:
                return
        await self.ask(f"jobs/{job}/done", mine | {"exit_code": 0, "result": "made"})

    async def run(self, rate, seconds):
        """Let all beat for some seconds, and then claim besides; return the CPU that the server took a second, both."""
        messages = asyncio.Queue()
        loop = asyncio.get_running_loop()
        end = threading.Event()
        threading.Thread(target=self._read, args=(loop, messages, end), daemon=True).start()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as self._session:
            await self.greet()
            tasks = [loop.create_task(self._greet_on()), loop.create_task(self._take(messages))]
            for _ in self._hosts:
                self._still.add(await self._submit())
            while len(self.claims) < len(self._hosts):
                await asyncio.sleep(0.1)
            await asyncio.sleep(5)
            self.claims.clear()
            self.beats.clear()
            beating = await self._cpu(asyncio.sleep(seconds))
            working = await self._cpu(self._submit_on(rate, seconds))
            for task in tasks:
                task.cancel()
        end.set()
        return beating, working

    async def _cpu(self, what):
        cpu, began = cpu_of(self._cluster.server.process.pid), time.monotonic()
        await what
        return (cpu_of(self._cluster.server.process.pid) - cpu) / (time.monotonic() - began)

    async def _submit(self):
        return await asyncio.to_thread(self._cluster.submit, blocks=0, target="directory")

    async def _submit_on(self, rate, seconds):
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
            await self._submit()

    async def _greet_on(self):
        while True:
            await asyncio.sleep(5)
            await self.greet()

    async def _take(self, messages):
        async with asyncio.TaskGroup() as group:
            number = 0
            while True:
                job, attempt, _ = await messages.get()
                group.create_task(self.work(job, attempt, self._hosts[number % len(self._hosts)]))
                number += 1

    def _read(self, loop, messages, end):
        broker = self._cluster.broker

        with amqp.Connection(f"127.0.0.1:{broker.port}", userid=rabbitmq.USER, password=broker.password) as connection:
            channel = connection.channel()
            while not end.is_set():
                try:
                    message = channel.basic_get(QUEUE, no_ack=True)
                except amqp.exceptions.NotFound:
                    channel, message = connection.channel(), None
                if message is None:
                    time.sleep(0.005)
                else:
                    loop.call_soon_threadsafe(messages.put_nowait, json.loads(message.body)[0])


def cpu_of(pid):
    """Return the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def swarm(options):
    """Simulated hosts: the beats of each, and claims besides."""
    with sites(one={"hosts": 1}) as found:
        cluster = found["one"].cluster
        for host in cluster.hosts.values():
            host.close()
        simulated = Swarm(cluster, options.hosts)
        beating, working = asyncio.run(simulated.run(options.rate, options.seconds))
        print(f"{options.hosts} hosts with a job each: {100 * beating:.0f} % of a core")
        print(f"and {options.rate} claims a second: {100 * working:.0f} %, of {len(simulated.claims)} claims")
        for name, values in (("claim", simulated.claims), ("beat, beyond its 5 s", simulated.beats)):
            values = sorted(values) or [0.0]
            print(f"{name}: {len(values)}, median {1000 * values[len(values) // 2]:.0f} ms, "
                  f"p99 {1000 * values[len(values) * 99 // 100]:.0f} ms")  # fmt: skip
        print(f"failures: {len(simulated.failures)} {simulated.failures[:3]}")


PARTS = {it.__name__: it for it in (start, takeover, cancel, throughput, swarm)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lease", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    for name in options.only:
        print(f"--- {name}, load {os.getloadavg()[0]:.1f}", flush=True)
        PARTS[name](options)


if __name__ == "__main__":
    main()
