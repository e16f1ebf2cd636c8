"""What a server has of its cluster: the leases, the hosts, and what waits at the broker."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping

from clouduploader.cluster.dispatch.hosts import Host, Hosts
from clouduploader.cluster.dispatch.leases import Leases
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.store.spool.leases import LeaseState
from clouduploader.util import processes
from clouduploader.util.frozen import frozen
from clouduploader.worker.settings import WorkerSettings


@frozen(kw_only=True)
class ClusterCount:
    """What is in a cluster now.

    Attributes:
        hosts: How many there are, by what they do: "working", "draining", "unready" or "gone".
        slots: How many jobs those that work can do at once.
        leases: How many jobs are "published" for any host, and how many are "claimed" by one.
        messages: How many the broker has, by queue; empty if it can't be asked.
    """

    hosts: Mapping[str, int]
    slots: int
    leases: Mapping[str, int]
    messages: Mapping[str, int]


@frozen(kw_only=True)
class Cluster:
    """A cluster, as the server's routes need it.

    Attributes:
        leases: Which host has which job.
        hosts: Those that have greeted.
        cluster_settings: Returns the settings of the cluster, as they are now.
        worker_settings: Returns those of the worker.
        lend_image: Returns a URL by which the image of a job can be read from an object store, a secret; None if it is
            in none. Blocks, and may raise a ClouduploaderError.
        waiting: Returns how many messages wait at the broker in each queue; empty if it can't be asked.
        broker_fault: Returns why the broker can't be reached; None if it could when it was asked last.
        began: When the server did, by the clock of leases.
    """

    leases: Leases
    hosts: Hosts
    cluster_settings: Callable[[], ClusterSettings]
    worker_settings: Callable[[], WorkerSettings]
    lend_image: Callable[[str], str | None]
    waiting: Callable[[], Mapping[str, int]]
    broker_fault: Callable[[], str | None] = lambda: None
    began: float = dataclasses.field(default_factory=processes.seconds_since_boot)

    def count(self) -> ClusterCount:
        """Count what is in the cluster."""
        hosts = self.hosts.hosts()
        states = Counter({"working": 0, "draining": 0, "unready": 0, "gone": 0})
        for host in hosts:
            states[_state_of(host)] += 1
        jobs = Counter(lease.state for lease in self.leases.held())
        return ClusterCount(
            hosts=states,
            slots=sum(host.greeting.slots for host in hosts if host.is_usable),
            leases={state: jobs[state] for state in (LeaseState.PUBLISHED, LeaseState.CLAIMED)},
            messages=self.waiting(),
        )

    def faults(self) -> dict[str, str | None]:
        """Return what keeps the cluster from working, by its part; None for a part that works."""
        has_hosts = any(host.is_usable for host in self.hosts.hosts())
        age_seconds = processes.seconds_since_boot() - self.began
        is_young = age_seconds < self.cluster_settings().lease_seconds  # hosts greet from time to time
        return {"broker": self.broker_fault(), "hosts": None if has_hosts or is_young else "no host takes jobs"}


def _state_of(host: Host) -> str:
    if host.is_gone:
        return "gone"
    if host.is_usable:
        return "working"
    return "draining" if host.greeting.queues else "unready"
