import threading

import pytest

from clouduploader.client.cluster import Claim, LeaseLostError
from clouduploader.errors import DeniedError, NetworkError, TransientError
from tests.fakes.cluster_server import ClusterJob, FakeCluster

CLAIM = Claim("7", 1, "a" * 32)


@pytest.fixture
def cluster():
    fake = FakeCluster()
    fake.jobs["7"] = ClusterJob(image=b"disk", data={"key": "value"}, journal={"journal": b"{}\n"})
    yield fake
    fake.close()


@pytest.fixture
def server(cluster):
    return cluster.client()


def test_host_claims_beats_reports_and_ends(cluster, server):
    answer = server.claim(CLAIM, host="a", protocol=1)
    assert answer == server.claim(CLAIM, host="a", protocol=1)  # the first answer was lost
    assert answer["data"] == {"key": "value"}
    assert not server.beat(CLAIM, progress=5, seconds=20)
    assert server.append_log(CLAIM, offset=0, data=b"line\n") == 5
    assert server.read_journal(CLAIM, "journal") == b"{}\n"
    assert server.append_journal(CLAIM, "journal", offset=3, data=b"{}\n") == 6
    assert server.append_journal(CLAIM, "platform/a", offset=0, data=b"ab", is_whole=True) == 2
    server.remove_journal(CLAIM, "platform/a")
    server.done(CLAIM, exit_code=0, result="ami-1")
    job = cluster.jobs["7"]
    assert (job.host, job.progress, job.log, job.end) == ("a", [5], b"line\n", (0, "ami-1"))
    assert job.journal == {"journal": b"{}\n{}\n"}
    assert {token for *_, token in cluster.requests} == {"Bearer made-up-token"}


def test_kill_answers_the_beat_that_waits(cluster, server):
    cluster.beat_seconds = 20
    server.claim(CLAIM)
    threading.Timer(0.05, cluster.jobs["7"].is_stopping.set).start()
    assert server.beat(CLAIM, progress=None, seconds=20)


@pytest.mark.parametrize("claim", [Claim("7", 2, "a" * 32), Claim("8", 1, "a" * 32)])
def test_job_of_another_attempt_is_lost(server, claim):
    with pytest.raises(LeaseLostError, match="not the newest attempt"):
        server.claim(claim)


def test_lost_job_is_told_from_other_refusals(cluster, server):
    cluster.failures = {"claim": [403, 503], "hosts": [403]}
    with pytest.raises(DeniedError):
        server.claim(CLAIM)
    with pytest.raises(TransientError):
        server.claim(CLAIM)
    with pytest.raises(DeniedError):
        server.greet({})
    server.claim(CLAIM)


def test_call_does_not_wait_for_a_server_that_is_silent(cluster, server):
    server.claim(CLAIM)
    cluster.is_frozen.set()
    with pytest.raises(NetworkError, match="did not"):
        server.beat(CLAIM, progress=None, seconds=0.2)
    cluster.is_frozen.clear()
    server.beat(CLAIM, progress=None, seconds=20)


def test_close_ends_the_call_of_another_thread(cluster, server):
    cluster.beat_seconds = 60
    server.claim(CLAIM)
    other = server.another()
    threading.Timer(0.2, other.close).start()
    with pytest.raises(NetworkError):
        other.beat(CLAIM, progress=None, seconds=60)
    assert server.append_log(CLAIM, offset=0, data=b"") == 0
