import pytest

from clouduploader.client.cluster import Claim, LeaseLostError
from clouduploader.cluster.host import beats as host_beats
from clouduploader.cluster.host.beats import Beats, Lease
from clouduploader.util import processes
from tests.fakes.cluster_server import ClusterJob, FakeCluster
from tests.fakes.waiting import wait_for

CLAIM = Claim("7", 1, "a" * 32)


@pytest.fixture
def cluster():
    fake = FakeCluster()
    fake.jobs["7"] = ClusterJob(image=b"", data={})
    fake.beat_seconds = 0.05
    fake.client().claim(CLAIM)
    yield fake
    fake.close()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def start(cluster, changes):
    def start(seconds=30, sent=None):
        now = processes.seconds_since_boot() if sent is None else sent
        lease = Lease(seconds, sent=now, on_change=lambda: changes.append("changed"))
        return lease, Beats(cluster.client(), CLAIM, lease, seconds=0.05, progress=lambda: 5, on_trouble=changes.append)

    return start


def test_beats_renew_the_lease(cluster, changes, start):
    lease, beats = start(sent=processes.seconds_since_boot() - 20)
    with beats:
        wait_for(lambda: lease.left_seconds() > 20)
    assert cluster.jobs["7"].progress[0] == 5
    assert changes == []


def test_kill_is_seen(cluster, changes, start):
    lease, beats = start()
    cluster.jobs["7"].is_stopping.set()
    with beats:
        wait_for(lambda: lease.is_stopping)
    assert changes == ["changed"]
    lease.check()


def test_lease_of_a_newer_attempt_is_lost(cluster, changes, start):
    lease, beats = start()
    cluster.jobs["7"].attempt = 2
    with beats:
        wait_for(lambda: changes)
    with pytest.raises(LeaseLostError, match="newest"):
        lease.check()
    assert changes == ["changed"]


def test_lease_is_lost_when_the_server_is_silent(cluster, changes, start):
    cluster.is_frozen.set()
    lease, beats = start(seconds=1.3)
    with beats:
        wait_for(lambda: lease.is_lost)
    cluster.is_frozen.clear()
    assert "changed" in changes
    with pytest.raises(LeaseLostError, match="did not answer"):
        lease.check()


def test_answer_after_the_end_renews_nothing(changes, start):
    lease, _ = start(sent=processes.seconds_since_boot() - 26)
    with pytest.raises(LeaseLostError):
        lease.renew(processes.seconds_since_boot())
    assert lease.is_lost
    assert changes == ["changed"]


def test_trouble_is_told_once(cluster, changes, start, monkeypatch):
    monkeypatch.setattr(host_beats, "PAUSE_SECONDS", 0.05)
    cluster.failures = {"beat": [500, 500]}
    lease, beats = start()
    with beats:
        cluster.wait_for(lambda: cluster.jobs["7"].beats, 30)
    assert len(changes) == 1
    assert "made up" in changes[0]
    lease.check()
