import io
import types

import pytest

from clouduploader.cluster.host import host
from clouduploader.cluster.host.attempt import HostFacts
from clouduploader.cluster.settings import ClusterSettings
from clouduploader.util.service_log import ServiceLog
from tests.fakes.cluster_server import FakeCluster
from tests.fakes.waiting import wait_for


@pytest.fixture
def cluster():
    fake = FakeCluster()
    yield fake
    fake.close()


@pytest.fixture
def facts(tmp_path):
    return HostFacts(name="h1", spool=tmp_path, program=tmp_path, environment={}, log=ServiceLog(io.StringIO()))


@pytest.fixture
def greeter(cluster, facts):
    """A greeter of a host that is not connected to the broker yet."""
    settings = ClusterSettings(host="h1", slots=3, serves=("uploads", "large"))
    return host.Greeter(types.SimpleNamespace(consumer=None), settings, cluster.client(), facts)


def test_host_greets_and_leaves_a_mark_for_checks_of_health(cluster, greeter, facts):
    mark = facts.spool / host.GREETED_NAME
    with greeter:
        wait_for(mark.exists)
    (greeting,) = cluster.greetings
    assert {key: greeting[key] for key in ("name", "slots", "queues", "busy")} == {
        "name": "h1", "slots": 3, "queues": ["uploads", "large"], "busy": [],
    }  # fmt: skip
    assert mark.stat().st_mode & 0o777 == 0o640


def test_host_that_leaves_says_so_at_once(cluster, greeter):
    with greeter:
        wait_for(lambda: len(cluster.greetings) == 1)
        greeter.leave()
        wait_for(lambda: len(cluster.greetings) == 2)
    assert cluster.greetings[1]["queues"] == []
