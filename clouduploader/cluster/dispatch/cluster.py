"""What a server has of its cluster: the leases, the hosts, and what waits at the broker."""

from collections.abc import Callable, Mapping

from clouduploader.cluster.dispatch.hosts import Hosts
from clouduploader.cluster.dispatch.leases import Leases
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.util.frozen import frozen
from clouduploader.worker.settings import WorkerSettings


@frozen(kw_only=True)
class Cluster:
    """A cluster, as the server's routes need it.

    Attributes:
        leases: Which host has which job.
        hosts: Those that have greeted.
        cluster_settings: Returns the settings of the cluster, as they are now.
        worker_settings: Returns those of the worker.
        waiting: Asks the broker how many messages wait in each queue; empty if it can't be asked. Blocks.
    """

    leases: Leases
    hosts: Hosts
    cluster_settings: Callable[[], ClusterSettings]
    worker_settings: Callable[[], WorkerSettings]
    waiting: Callable[[], Mapping[str, int]]
