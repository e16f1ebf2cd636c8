"""A cluster that loses processes, machines and networks: each job ends once, and goes on where it was."""

import signal
import time

import pytest
from e2e.cluster.machines import LEASE_SECONDS, children_of, signal_to

from clouduploader.util import processes

pytestmark = [pytest.mark.sandbox, pytest.mark.storm]

BLOCKS = 24


@pytest.fixture
def begin(cluster):
    """Return a function that begins an upload of some seconds, and gives its job, host and snapshot."""

    def run(blocks=BLOCKS):
        job, snapshot = cluster.begin(blocks)
        return job, cluster.hosts[cluster.lease(job)["host"]], snapshot

    return run


@pytest.fixture
def assert_ended(cluster):
    """Check that a job has made its image of this very snapshot, in so many attempts.

    What the server knew to be in the snapshot when a host was lost must not have been sent again.
    """

    def check(job, snapshot, *, known=frozenset(), blocks=BLOCKS):
        (ended,) = cluster.wait_for_end(job)
        assert ended.state == "succeeded", cluster.log(job)
        cluster.check_account([job])
        seen = cluster.sandbox.ebs()["snapshots"][snapshot]
        repeated = {it["index"] for it in seen["repeats"]}
        assert not repeated & known, (repeated, known)
        assert seen["puts"] - len(repeated) == blocks

    return check


@pytest.mark.parametrize("which", ["main process", "process of the pool", "machine"])
def test_upload_of_a_host_that_dies_is_gone_on_with_by_another(cluster, begin, assert_ended, which):
    job, host, snapshot = begin()
    (uploader,) = host.uploaders()
    if which == "main process":
        host.kill()
    elif which == "process of the pool":
        (parent,) = [pid for pid in host.pool() if uploader in children_of(pid)]
        signal_to(parent, signal.SIGKILL)
    else:
        host.lose()
    known = cluster.confirmed(job, snapshot)
    assert known
    cluster.sandbox.faults()
    cluster.wait_for(lambda: not is_alive(uploader))
    assert_ended(job, snapshot, known=known)
    assert cluster.attempts(job) == [1, 2]


def is_alive(pid):
    """Return whether a process runs."""
    found = processes.find(pid)
    return found is not None and found.is_alive


def test_host_that_comes_back_ends_its_uploader_and_touches_nothing(cluster, begin, assert_ended):
    job, host, snapshot = begin()
    (uploader,) = host.uploaders()
    host.signal_all(signal.SIGSTOP)
    known = cluster.confirmed(job, snapshot)
    other = cluster.wait_for_host(job, other_than=host.name)
    assert other.uploaders() or cluster.wait_for(other.uploaders)
    host.signal_all(signal.SIGCONT)
    cluster.wait_for(lambda: not is_alive(uploader))
    cluster.wait_for(lambda: not host.leftovers())
    assert_ended(job, snapshot, known=known)


@pytest.mark.parametrize("which", ["process of the pool", "uploader"])
def test_process_that_freezes_alone_does_no_harm(cluster, begin, assert_ended, which):
    """Without its pool process a host gives no beats; an uploader may take as long as it wants."""
    job, host, snapshot = begin()
    (uploader,) = host.uploaders()
    (parent,) = [pid for pid in host.pool() if uploader in children_of(pid)]
    frozen = uploader if which == "uploader" else parent
    signal_to(frozen, signal.SIGSTOP)
    known = cluster.confirmed(job, snapshot)
    time.sleep(LEASE_SECONDS + 2)
    signal_to(frozen, signal.SIGCONT)
    assert_ended(job, snapshot, known=known)


def test_job_that_is_killed_before_another_host_has_it_leaves_nothing(cluster, begin):
    job, host, snapshot = begin()
    for name in cluster.hosts.keys() - {host.name}:
        cluster.drain(name)
    host.lose()
    cluster.sandbox.faults()
    cluster.wait_for(lambda: cluster.job(job).state == "scheduled")
    del cluster.images[f"image-{job}"]
    assert cluster.ask("POST", f"/cloudupload/{job}?cmd=kill")[0] == 200
    cluster.wait_for(lambda: snapshot not in {it["id"] for it in cluster.sandbox.account()["snapshots"]})
    cluster.wait_for_end(job)


def test_uploader_that_is_killed_is_tried_again(cluster, begin, assert_ended):
    job, host, snapshot = begin()
    (uploader,) = host.uploaders()
    known = cluster.confirmed(job, snapshot)
    signal_to(uploader, signal.SIGKILL)
    assert_ended(job, snapshot, known=known)


def test_upload_outlives_the_broker(cluster, begin, assert_ended):
    job, _, snapshot = begin(48)
    cluster.broker.kill()
    cluster.broker.start()
    assert_ended(job, snapshot, blocks=48)
    assert cluster.attempts(job) == [1]
    (again,) = cluster.wait_for_end(cluster.submit())
    assert again.state == "succeeded"


def test_upload_outlives_its_connections_to_the_broker(cluster, begin, assert_ended):
    job, _, snapshot = begin()
    for _ in range(3):
        cluster.broker.close_all_connections()
        time.sleep(0.5)
    assert_ended(job, snapshot)
    assert cluster.attempts(job) == [1]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_upload_outlives_the_server(cluster, begin, assert_ended, how):
    job, _, snapshot = begin()
    if how == "killed":
        cluster.server.kill()
    else:
        cluster.server.stop()
    cluster.server.start()
    cluster.wait_for(lambda: cluster.lease(job))
    assert_ended(job, snapshot)
    assert cluster.attempts(job) == [1]


def test_host_that_can_not_reach_the_server_ends_its_uploader_before_another_begins(cluster, begin, assert_ended):
    job, host, snapshot = begin(32)
    (uploader,) = host.uploaders()
    host.to_server.swallow()
    cluster.wait_for(lambda: not is_alive(uploader))
    assert cluster.lease(job)["host"] == host.name
    known = cluster.confirmed(job, snapshot)
    other = cluster.wait_for_host(job, other_than=host.name)
    assert other is not host
    host.to_server.heal()
    assert_ended(job, snapshot, known=known, blocks=32)


def test_short_hole_in_the_network_costs_nothing(cluster, begin, assert_ended):
    job, host, snapshot = begin()
    host.to_server.cut()
    host.to_server.swallow()
    time.sleep(0.5)
    host.to_server.heal()
    assert_ended(job, snapshot)
    assert cluster.attempts(job) == [1]


def test_host_that_can_not_reach_the_broker_goes_on(cluster, begin, assert_ended):
    job, host, snapshot = begin()
    host.to_broker.swallow()
    time.sleep(LEASE_SECONDS)
    others = [cluster.submit() for _ in range(2)]
    assert_ended(job, snapshot)
    assert cluster.attempts(job) == [1]
    cluster.wait_for_end(*others)
    host.to_broker.heal()
