"""Metrics for Prometheus: what is in the spool, and what this process has done since it began."""

import dataclasses
import time
from collections.abc import Callable, Iterable

import prometheus_client
from prometheus_client import Metric, exposition, metrics_core, registry

import clouduploader
from clouduploader.cluster.dispatch.cluster import ClusterCount
from clouduploader.server.job_counter import JobCounter
from clouduploader.server.routing import METHODS
from clouduploader.worker.events import WorkerEvent, WorkerEventKind

CONTENT_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4
SUCCEEDED = "succeeded"
UNKNOWN = "unknown"
"""The exit code of an upload that an earlier worker has started: only a parent process gets it."""
UPLOAD_BUCKETS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
"""Seconds: 2 GiB take 11 by the fastest method, 195 by the slowest (bench/README.rst), hours on a slow line."""
REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)  # seconds; OBS's source server gives up after 600


class Metrics:
    """All metrics. The `count_` methods may be called in any thread.

    Args:
        job_counter: Counts what is in the spool.
        transfers: Returns how many images are being received.
        free_bytes: Returns how much is free on the file system of the spool.
        cluster: Counts what is in the cluster; None without one.
    """

    def __init__(
        self,
        job_counter: JobCounter,
        *,
        transfers: Callable[[], int],
        free_bytes: Callable[[], int],
        cluster: Callable[[], ClusterCount] | None = None,
    ) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(_Spool(job_counter))
        for name, text, value in (
            ("transfers", "Images that are on their way in.", transfers),
            ("spool_free_bytes", "What is free on the file system of the spool.", free_bytes),
        ):
            prometheus_client.Gauge(f"clouduploader_{name}", text, registry=self._registry).set_function(value)
        self._received = _Received()
        self._registry.register(self._received)
        prometheus_client.Info("clouduploader", "What runs.", registry=self._registry).info(
            {"version": clouduploader.__version__}
        )
        self._requests = prometheus_client.Histogram(
            "clouduploader_request_seconds",
            "How long requests took; one that follows a log takes as long as the upload.",
            ("method", "status"),
            buckets=REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._uploads = prometheus_client.Histogram(
            "clouduploader_upload_seconds",
            "How long uploads took that have ended; each try is one.",
            ("outcome",),
            buckets=UPLOAD_BUCKETS,
            registry=self._registry,
        )
        self._failures = prometheus_client.Counter(
            "clouduploader_upload_failures",
            "Uploads that failed, by exit code; 128 and its number for a signal, unknown if no worker saw the end.",
            ("exit_code",),
            registry=self._registry,
        )

        self._cluster_events: dict[str, prometheus_client.Counter] = {}
        if cluster:
            self._registry.register(_Cluster(cluster))
            self._cluster_events = {
                kind: prometheus_client.Counter(f"clouduploader_cluster_{name}", text, registry=self._registry)
                for kind, name, text in (
                    (WorkerEventKind.PUBLISHED, "published", "Messages for hosts; a job has one for each attempt."),
                    (WorkerEventKind.LOST, "takeovers", "Hosts that were lost with a job, which then goes to another."),
                )
            }

    def count_request(self, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(method if method in METHODS else "other", status).observe(seconds)

    def count_event(self, event: WorkerEvent) -> None:
        """Count an event of the worker, if it is one of those that are."""
        if event.end:
            self.count_upload(event.kind, **dataclasses.asdict(event.end))
        if counter := self._cluster_events.get(event.kind):
            counter.inc()

    def count_upload(self, outcome: str, *, exit_code: int | None, seconds: float | None) -> None:
        """Count an upload that has ended.

        Args:
            outcome: "succeeded", "failed", "killed", or "waiting" for another try.
            exit_code: Of the uploader; 128 and the signal's number if a signal ended it. None if it is not known.
            seconds: How long it took; None if it is not known.
        """
        if seconds is not None:
            self._uploads.labels(outcome).observe(seconds)
        if outcome != SUCCEEDED:
            self._failures.labels(UNKNOWN if exit_code is None else exit_code).inc()

    def render(self, *, received_bytes: int) -> bytes:
        """Return all metrics in the text format 0.0.4. Reads the spool, and blocks; one thread at a time.

        Args:
            received_bytes: How many bytes of images have been received so far; never less than before.

        Raises:
            LocalIOError: The spool can't be read.
            MissingFileError: There is none.
        """
        self._received.total = received_bytes
        return exposition.generate_latest(self._registry)


class _Spool(registry.Collector):
    """What is in the spool."""

    def __init__(self, job_counter: JobCounter) -> None:
        self._job_counter = job_counter

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry would collect for that, before the first request."""
        return ()

    def collect(self) -> Iterable[Metric]:
        count = self._job_counter.count()
        jobs = metrics_core.GaugeMetricFamily("clouduploader_jobs", "Jobs, archived ones too.", labels=["state"])
        for state, number in count.states.items():
            jobs.add_metric([state], number)
        yield jobs
        yield metrics_core.GaugeMetricFamily("clouduploader_jobs_damaged", "Records that can't be read.", count.damaged)
        yield metrics_core.GaugeMetricFamily(
            "clouduploader_queue_age_seconds",
            "How long the job has waited that has done so longest, to be started or tried again; 0 if none does.",
            max(0.0, time.time() - count.queued_since) if count.queued_since else 0,
        )


class _Cluster(registry.Collector):
    """What is in a cluster."""

    def __init__(self, count: Callable[[], ClusterCount]) -> None:
        self._count = count

    def collect(self) -> Iterable[Metric]:
        count = self._count()
        for name, text, label, values in (
            (
                "hosts",
                "Hosts that were seen in the last day: working, draining, unready or gone.",
                "state",
                count.hosts,
            ),
            ("leases", "Jobs that are published for any host, or claimed by one.", "state", count.leases),
            (
                "messages",
                "Messages at the broker that no host has; none are shown without it.",
                "queue",
                count.messages,
            ),
        ):
            metric = metrics_core.GaugeMetricFamily(f"clouduploader_cluster_{name}", text, labels=[label])
            for value, number in values.items():
                metric.add_metric([value], number)
            yield metric
        yield metrics_core.GaugeMetricFamily(
            "clouduploader_cluster_slots", "How many jobs the hosts can do at once that work.", count.slots
        )


class _Received(registry.Collector):
    """A counter whose value is set.

    Attributes:
        total: Its value.
    """

    def __init__(self) -> None:
        self.total = 0

    def collect(self) -> Iterable[Metric]:
        yield metrics_core.CounterMetricFamily(
            "clouduploader_received_bytes", "Bytes of images that were received.", self.total
        )
