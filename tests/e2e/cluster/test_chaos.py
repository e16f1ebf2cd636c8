"""Random events of all kinds under load; then the account in the cloud is the judge.

Run by packaging/storm. EVENTS and JOBS in the environment make a shorter run of it; SEED repeats one, as far as time
can be repeated.
"""

import contextlib
import heapq
import http.client
import os
import random
import signal
import time
from http import HTTPStatus

import pytest
from e2e.cluster.machines import LEASE_SECONDS, signal_to

from clouduploader.model.job import Details

pytestmark = [pytest.mark.sandbox, pytest.mark.storm]

EVENTS = int(os.environ.get("EVENTS", "200"))
JOBS = int(os.environ.get("JOBS", "100"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
HOSTS = ("ada", "bob", "eve", "joe")
MAX_PAUSE_SECONDS = 1.0  # between two events
MAX_AWAY_SECONDS = 1.6 * LEASE_SECONDS  # of a host or a network: half of them cost no lease
MAX_BLOCKS = 6
BLOCK_SECONDS = 0.1


class Storm:
    """Random events, each of which has an end.

    Attributes:
        story: What happened, a line for each event.
        killed: The jobs that were killed; those that had ended before count too.
    """

    def __init__(self, cluster, chance):
        self._cluster, self._chance = cluster, chance
        self._ends = []
        self._busy = set()
        self._began = time.monotonic()
        self.killed = set()
        self.story = [f"SEED={SEED} EVENTS={EVENTS} JOBS={JOBS}"]
        self._events = {
            self.main_process_dies: 8,
            self.machine_is_lost: 6,
            self.pool_process_dies: 8,
            self.uploader_dies: 8,
            self.machine_hangs: 10,
            self.pool_process_hangs: 6,
            self.uploader_hangs: 6,
            self.server_dies: 6,
            self.server_is_restarted: 4,
            self.broker_dies: 1,
            self.broker_is_restarted: 1,
            self.broker_hangs: 3,
            self.connections_are_closed: 6,
            self.network_to_server_swallows: 8,
            self.network_to_server_is_cut: 6,
            self.network_to_server_is_slow: 4,
            self.network_to_broker_swallows: 6,
            self.network_to_broker_is_cut: 5,
            self.job_is_killed: 5,
        }

    def strike(self):
        """Let one event happen; return whether one could."""
        events = list(self._events)
        (event,) = self._chance.choices(events, self._events.values())
        what = event()
        if what:
            self.note(f"{event.__name__}: {what}")
        return bool(what)

    def note(self, line):
        """Add a line to the story."""
        self.story.append(f"{time.monotonic() - self._began:7.2f} {line}")

    def wait(self, seconds):
        """Let time pass, and end what has to end in it."""
        until = time.monotonic() + seconds
        while self._ends and self._ends[0][0] <= until:
            due, _, end, what = heapq.heappop(self._ends)
            time.sleep(max(0, due - time.monotonic()))
            end()
            self.note(f"over: {what}")
        time.sleep(max(0, until - time.monotonic()))

    def rest(self):
        """Wait until all events are over."""
        while self._ends:
            self.wait(max(0, self._ends[0][0] - time.monotonic()))

    def _lasts(self, key, what, end, max_seconds=MAX_AWAY_SECONDS):
        """Note how an event ends that hits something which no other is to hit meanwhile."""
        self._busy.add(key)

        def ends():
            self._busy.discard(key)
            end()

        seconds = self._chance.uniform(0, max_seconds)
        heapq.heappush(self._ends, (time.monotonic() + seconds, len(self.story), ends, what))
        return f"{what} for {seconds:.1f} s"

    def _host(self, *kinds):
        """Choose a host that nothing of these kinds happens to."""
        free = [it for it in self._cluster.hosts.values() if not self._busy & {(it.name, kind) for kind in kinds}]
        return self._chance.choice(free) if free else None

    def main_process_dies(self):
        if host := self._host("process"):
            host.kill()
            return self._lasts((host.name, "process"), host.name, host.start, 2)

    def machine_is_lost(self):
        if host := self._host("process"):
            host.lose()
            return self._lasts((host.name, "process"), host.name, host.start, 2)

    def machine_hangs(self):
        if host := self._host("process"):
            host.signal_all(signal.SIGSTOP)
            return self._lasts((host.name, "process"), host.name, lambda: host.signal_all(signal.SIGCONT))

    def _one_of(self, kind):
        if host := self._host("process"):
            found = getattr(host, kind)()
            return (host, self._chance.choice(found)) if found else (None, None)
        return None, None

    def pool_process_dies(self):
        host, pid = self._one_of("pool")
        if host:
            signal_to(pid, signal.SIGKILL)
            return f"{host.name} {pid}"

    def uploader_dies(self):
        host, pid = self._one_of("uploaders")
        if host:
            signal_to(pid, signal.SIGKILL)
            return f"{host.name} {pid}"

    def _hangs(self, host, pid):
        if host:
            signal_to(pid, signal.SIGSTOP)
            return self._lasts((host.name, pid), f"{host.name} {pid}", lambda: signal_to(pid, signal.SIGCONT))

    def pool_process_hangs(self):
        return self._hangs(*self._one_of("pool"))

    def uploader_hangs(self):
        return self._hangs(*self._one_of("uploaders"))

    def server_dies(self):
        if "server" not in self._busy:
            self._cluster.server.kill()
            return self._lasts("server", "server", self._cluster.server.start, 2)

    def server_is_restarted(self):
        if "server" not in self._busy:
            self._cluster.server.restart()
            return "server"

    def broker_dies(self):
        if "broker" not in self._busy:
            self._cluster.broker.kill()
            self._cluster.broker.start()
            return "broker"

    def broker_is_restarted(self):
        if "broker" not in self._busy:
            self._cluster.broker.restart()
            return "broker"

    def broker_hangs(self):
        if "broker" not in self._busy:
            self._cluster.broker.freeze()
            return self._lasts("broker", "broker", self._cluster.broker.thaw)

    def connections_are_closed(self):
        if "broker" not in self._busy:
            self._cluster.broker.close_all_connections()
            return "all"

    def _network(self, which, what):
        if host := self._host(which):
            network = getattr(host, which)
            if what == "cut":
                network.cut()
                return host.name
            if what == "slow":
                network.delay(0.1)
                return self._lasts((host.name, which), host.name, lambda: network.delay(0))
            network.swallow()
            return self._lasts((host.name, which), host.name, network.heal)

    def network_to_server_swallows(self):
        return self._network("to_server", "swallow")

    def network_to_server_is_cut(self):
        return self._network("to_server", "cut")

    def network_to_server_is_slow(self):
        return self._network("to_server", "slow")

    def network_to_broker_swallows(self):
        return self._network("to_broker", "swallow")

    def network_to_broker_is_cut(self):
        return self._network("to_broker", "cut")

    def job_is_killed(self):
        running = self._cluster.jobs.running_names()
        if running and "server" not in self._busy:
            job = self._chance.choice(running)
            with contextlib.suppress(OSError, http.client.HTTPException):  # the server begins
                status, _ = self._cluster.ask("POST", f"/api/v1/jobs/{job}/kill")
                if status == HTTPStatus.OK:
                    self.killed.add(job)
                    return job


@pytest.fixture
def chance():
    return random.Random(SEED)  # noqa: S311 no secret


def test_cluster_makes_each_image_once_whatever_happens(cluster, chance):
    for name in set(HOSTS) - set(cluster.hosts):
        cluster.add_host(name)
    cluster.wait_until_ready()
    cluster.sandbox.fault("PutSnapshotBlock", delay_seconds=BLOCK_SECONDS)
    storm = Storm(cluster, chance)
    jobs, count = [], 0
    try:
        while count < EVENTS:
            while len(jobs) < JOBS * (count + 1) / EVENTS:
                jobs.append(cluster.submit(blocks=chance.randint(1, MAX_BLOCKS), user=chance.choice(HOSTS)))
            storm.wait(chance.uniform(0, MAX_PAUSE_SECONDS))
            count += storm.strike()
        storm.rest()
        cluster.recover()
        storm.note("all over")
        for job in cluster.wait_for_end(*jobs):
            if job.name in storm.killed and job.details == Details.KILLED:
                del cluster.images[f"image-{job.name}"]
            else:
                assert job.state == "succeeded", (job, cluster.log(job.name))
        cluster.check_account()
        cluster.wait_for(lambda: not any(it.leftovers() for it in cluster.hosts.values()))
    except BaseException as exc:
        exc.add_note("\n".join(storm.story))
        raise
