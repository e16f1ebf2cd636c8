"""From many hosts to one, and back, in the middle of an upload."""

import signal

import pytest

pytestmark = pytest.mark.sandbox

BLOCKS = 24


@pytest.fixture
def change(cluster):
    """Return a function that restarts the server: alone, as the worker of its own host, or with its cluster."""
    with_cluster = list(cluster.server.command)

    def run(*, is_alone):
        cluster.server.command = with_cluster[: with_cluster.index("--broker")] if is_alone else list(with_cluster)
        cluster.server.restart()
        cluster.wait_for(lambda: cluster.ask("GET", "/healthz"))

    yield run
    if cluster.server.command != with_cluster:
        run(is_alone=False)


def test_one_host_goes_on_with_what_a_host_of_the_cluster_has_begun(cluster, change):
    job, snapshot = cluster.begin(BLOCKS)
    known = cluster.confirmed(job, snapshot)
    assert known
    change(is_alone=True)
    cluster.sandbox.faults()
    (ended,) = cluster.wait_for_end(job)
    assert ended.state == "succeeded", cluster.story()
    cluster.check_account([job])
    assert not {it["index"] for it in cluster.sandbox.ebs()["snapshots"][snapshot]["repeats"]} & known
    lines = [line for line in cluster.server.log.splitlines() if f"job={job} " in line]
    lost, started = (next(line for line in lines if word in line) for word in ("event=lost", ", process "))
    assert lines.index(lost) < lines.index(started)


def test_cluster_leaves_an_upload_of_one_host_to_it(cluster, change):
    change(is_alone=True)
    job, snapshot = cluster.begin(BLOCKS)
    change(is_alone=False)
    other = cluster.submit(user="eve")
    cluster.wait_for_host(other)
    cluster.sandbox.faults()
    ended = cluster.wait_for_end(job, other)
    assert [it.state for it in ended] == ["succeeded", "succeeded"], cluster.story()
    cluster.check_account([job, other])
    assert cluster.sandbox.ebs()["snapshots"][snapshot]["puts"] == BLOCKS
    assert f"event=adopted job={job} " in cluster.server.log


def test_server_that_drains_waits_for_the_hosts(cluster, change):
    cluster.server.command.append("--drain")
    cluster.server.restart()
    cluster.wait_until_ready()
    job, _ = cluster.begin(BLOCKS)
    cluster.server.process.send_signal(signal.SIGTERM)
    late = cluster.submit(user="eve")
    cluster.sandbox.faults()
    assert cluster.server.process.wait(60) == 0
    assert cluster.job(job).state == "succeeded"
    assert cluster.job(late).state == "scheduled"
    assert cluster.attempts(late) == []
    cluster.server.process = None
    cluster.server.start()
    (ended,) = cluster.wait_for_end(late)
    assert ended.state == "succeeded"
