"""The server's side of a cluster: its leases, on a spool with jobs for a platform that is none."""

import hashlib
import json
import sys
import types

from fakes.platforms import FakePlatform

from clouduploader.cluster import settings as cluster_settings
from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.cluster.dispatch.digests import ImageDigest
from clouduploader.cluster.dispatch.hosts import Hosts
from clouduploader.cluster.dispatch.leases import Claim, Leases
from clouduploader.model.job import JobState
from clouduploader.plugin import Field
from clouduploader.store import config
from clouduploader.store.spool import leases as lease_files
from clouduploader.worker.settings import WorkerSettings

LEASE_SECONDS, PUBLISH_SECONDS, TAKEOVERS = 30, 15, 2
PASSWORD = "open-sesame"
IMAGE = b"an image"
SHA256 = hashlib.sha256(IMAGE).hexdigest()


class Clock:
    """Seconds that only grow; `now` is moved by the test."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Site:
    """A server's side of a cluster.

    Attributes:
        jobs: The spool.
        clock: See Clock.
        leases: Those of the server that runs; `restart` replaces them.
        hosts: Those that have greeted.
        events: What they told.
        when_told: Called with each event, in the thread that tells it.
    """

    def __init__(self, jobs, home, make_job, **cluster):
        self.jobs, self.clock, self.events, self.when_told = jobs, Clock(), [], lambda _event: None
        self._make_job = make_job
        self.config = config.load(home=home, spool=jobs.directory, environment={})
        self.cluster = settings(**cluster)
        self.worker = WorkerSettings(tries=3)
        self.hosts = Hosts(jobs.directory, lease_seconds=lambda: LEASE_SECONDS, clock=self.clock)
        self.leases = None
        self.restart()

    def _note(self, event):
        self.events.append(event)
        self.when_told(event)

    def restart(self):
        """Kill the server, and start the next one: what the dead one had locked is free."""
        if self.leases:
            for lease in self.leases._leases.values():
                if lease.intake:
                    lease.intake.close()
        self.leases = Leases(
            self.jobs,
            self.config,
            cluster=lambda: self.cluster,
            worker=lambda: self.worker,
            on_event=self._note,
            clock=self.clock,
        )
        self.leases.load()

    def parts(self, waiting=lambda: {}, lend_image=lambda _name: None):
        """What the server's routes get."""
        return Cluster(
            leases=self.leases,
            hosts=self.hosts,
            cluster_settings=lambda: self.cluster,
            worker_settings=lambda: self.worker,
            lend_image=lend_image,
            waiting=waiting,
        )

    def make(self, name="7", *, state=JobState.SCHEDULED, data=None, **fields):
        """Make a job."""
        data = {"region": "here", "password": PASSWORD} if data is None else data
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self._make_job(self.jobs, name, state=state, target="made-up", data=data, image=IMAGE, **fields)
        return name

    def publish(self, name="7", **fields):
        """Make a job, and publish it; return its number."""
        self.make(name, **fields)
        self.publish_known(SHA256, name)
        return name

    def publish_known(self, sha256, name="7"):
        """Publish a job whose image has this digest."""
        identity = lease_files.identity_of(self.jobs.file_path(name).stat())
        return self.leases.publish(name, "uploads", ImageDigest(sha256, identity))

    def claim(self, name="7", attempt=1, number=1, host="h1", **changes):
        """Claim an attempt; `number` tells claims apart."""
        fields = {"protocol": 1} | changes
        return self.leases.claim(name, Claim(attempt=attempt, id=claim_id(number), host=host, **fields))

    def beat(self, name="7", attempt=1, number=1):
        """Give a sign of life; return whether the host is to stop."""
        with self.leases.beating(name, attempt, claim_id(number), lambda: None) as beating:
            return beating.is_stopping()

    def done(self, code=0, result="image-1", *, attempt=1, number=1):
        self.leases.done("7", attempt, claim_id(number), code, result)

    def state(self, name="7"):
        return self.jobs.read(name)[0].state

    def kinds(self):
        return [str(event.kind) for event in self.events]

    def kill(self, name="7"):
        """Archive a job as `kill` does."""
        with self.jobs.lock(name) as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))

    def left(self):
        """What is in the spool besides journals: names."""
        return sorted(path.name for path in self.jobs.directory.iterdir() if path.name not in ("done", "journal"))


def settings(**changes):
    """Return the settings of a cluster."""
    fields = {"lease_seconds": LEASE_SECONDS, "publish_seconds": PUBLISH_SECONDS, "takeovers": TAKEOVERS} | changes
    return cluster_settings.ClusterSettings(host="server", **fields)


def claim_id(number):
    return f"{number:032x}"


def install_platform(install_package, monkeypatch):
    """Install the platform `made-up`."""
    install_package("made_up_platform", **{"made-up": "made_up_platform:create"})
    made = FakePlatform(
        Field(name="region", description="Where."),
        Field(name="password", description="A secret.", is_secret=True),
    )
    module = types.ModuleType("made_up_platform")
    module.create = lambda _context: made
    monkeypatch.setitem(sys.modules, "made_up_platform", module)
