"""What a cluster has to do while nothing is lost."""

import json
import re
import signal
import time

import pytest
from e2e.cluster.machines import EXECUTABLE, LEASE_SECONDS, PUBLISH_SECONDS

from clouduploader.cluster import broker as cluster_broker
from clouduploader.cluster import protocol, settings

pytestmark = pytest.mark.sandbox

QUEUE = cluster_broker.queue_name(settings.DEFAULT_QUEUE)
BLOCK_SECONDS = 0.25


@pytest.fixture
def slow(cluster):
    """The cluster, in which a block takes a while."""
    cluster.sandbox.fault("PutSnapshotBlock", delay_seconds=BLOCK_SECONDS)
    return cluster


def test_message_says_job_attempt_and_server_and_no_secret(cluster):
    """Hosts that have died are still reckoned with for as long as a lease lasts."""
    for host in cluster.hosts.values():
        host.lose()
    job = cluster.submit()
    ((properties, body),) = cluster.wait_for(lambda: cluster.broker.messages(QUEUE))
    assert body[:2] == [[job, 1, cluster.url], {}]
    assert properties["application_headers"]["task"] == protocol.TASK
    text = f"{properties}{body}"
    data = json.loads(cluster.jobs.data_path(job).read_text())
    secrets = {data["external_id"], data["arn"], cluster.broker.password}
    assert not [it for it in secrets if it in text]


def test_no_more_is_published_than_hosts_can_take(slow):
    jobs = [slow.submit(blocks=16) for _ in range(6)]
    slow.wait_for(lambda: len(slow.status()["leases"]) == 4)
    assert {it["host"] for it in slow.status()["leases"]} == set(slow.hosts)
    assert [slow.job(it).state for it in jobs[4:]] == ["scheduled"] * 2
    assert slow.broker.depth(QUEUE) == 0
    assert {it.state for it in slow.wait_for_end(*jobs)} == {"succeeded"}


def test_what_no_host_takes_is_published_again(cluster):
    """A host that hangs may have got the message; when it goes on it finds that it is too late."""
    hung = cluster.hosts["ada"]
    hung.signal_all(signal.SIGSTOP)
    jobs = [cluster.submit() for _ in range(4)]
    assert {it.state for it in cluster.wait_for_end(*jobs)} == {"succeeded"}
    hung.signal_all(signal.SIGCONT)
    cluster.wait_for(lambda: len([it for it in cluster.status()["hosts"] if not it["gone"]]) == 2)
    time.sleep(PUBLISH_SECONDS)
    assert [cluster.job(it).state for it in jobs] == ["succeeded"] * 4


def test_job_that_takes_longer_than_the_brokers_patience_runs_once(slow):
    slow.broker.set_consumer_timeout(2)
    try:
        slow.broker.close_all_connections()
        job = slow.submit(blocks=32)
        slow.wait_for_host(job)
        (ended,) = slow.wait_for_end(job)
        assert ended.state == "succeeded"
        assert slow.attempts(job) == [1]
        (again,) = slow.wait_for_end(slow.submit())
        assert again.state == "succeeded"
    finally:
        slow.broker.set_consumer_timeout(1800)


def test_job_that_is_killed_is_stopped_by_its_host_and_leaves_nothing(slow):
    before = set(slow.puts())
    job = slow.submit(blocks=60)
    slow.wait_for(lambda: set(slow.puts()) - before)
    host = slow.wait_for_host(job)
    slow.wait_for(host.uploaders)
    argv = [EXECUTABLE, "kill", "--yes", job, "--home", slow.server.home, "--spool", slow.jobs.directory]
    assert slow.sandbox.run(argv).returncode == 0
    slow.wait_for(lambda: not host.uploaders())
    (ended,) = slow.wait_for_end(job)
    assert (ended.state, ended.details) == ("failed", "killed")
    assert "stopped by SIGTERM" in slow.log(job)
    del slow.images[f"image-{job}"]


def test_upload_that_fails_for_the_moment_is_tried_again(cluster):
    cluster.sandbox.fault("StartSnapshot", first=5, code="InternalServerException")
    job = cluster.submit()
    (ended,) = cluster.wait_for_end(job)
    assert ended.state == "succeeded"
    assert ended.try_ == 2, cluster.log(job)


def test_image_that_comes_by_a_bad_network_is_gone_on_with(cluster):
    for host in cluster.hosts.values():
        host.to_server.delay(0.05)
    job = cluster.submit(blocks=16)
    host = cluster.wait_for_host(job)
    for _ in range(3):
        time.sleep(1)
        host.to_server.cut()
    for each in cluster.hosts.values():
        each.to_server.delay(0)
    (ended,) = cluster.wait_for_end(job)
    assert ended.state == "succeeded"
    assert re.search(rf"jobs/{job}/image\S* status=206", cluster.server.log), cluster.server.log


@pytest.mark.parametrize(("name", "skew"), [("fast", "+1h"), ("late", "-1h")])
def test_clock_of_a_host_decides_nothing(slow, name, skew):
    """All others take no more jobs meanwhile."""
    for other in slow.hosts:
        slow.drain(other)
    slow.add_host(name, before=["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", skew])
    try:
        slow.wait_until_ready()
        (shown,) = [it for it in slow.status()["hosts"] if it["name"] == name]
        assert 3590 < abs(shown["skew_seconds"]) < 3610
        assert (shown["skew_seconds"] > 0) is (skew[0] == "+")
        job = slow.submit(blocks=int(LEASE_SECONDS / BLOCK_SECONDS) + 4)
        assert slow.wait_for_host(job).name == name
        (ended,) = slow.wait_for_end(job)
        assert ended.state == "succeeded"
        assert len(slow.attempts(job)) == 1  # those that the drained hosts had to refuse don't count
    finally:
        slow.remove_host(name)


@pytest.mark.parametrize("command", [["serve"], ["worker", "--cluster", "--server", "http://127.0.0.1:1"]])
def test_redis_is_refused_with_the_reason(cluster, command):
    argv = [EXECUTABLE, *command, "--broker", "redis://127.0.0.1"]
    done = cluster.sandbox.run(argv)
    assert done.returncode == 78
    assert re.fullmatch("clouduploader: Redis can't be the broker: .*\n", done.stderr)
