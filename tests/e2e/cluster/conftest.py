"""A cluster with two hosts for the tests of a module, as good as new for each."""

import shutil
import tempfile
from pathlib import Path

import pytest
from e2e.cluster.machines import Cluster
from fakes import rabbitmq


@pytest.fixture(scope="module")
def running_cluster(running_sandbox):
    """One cluster for all tests of a module; a test of another module may reset the sandbox."""
    running_sandbox.reset()
    place = Path(tempfile.mkdtemp(prefix="cluster-"))  # a short path, because there is a Unix socket in it
    with rabbitmq.running(running_sandbox.enter) as broker:
        made = Cluster(running_sandbox, broker, place)
        try:
            made.server.start()
            for name in ("ada", "bob"):
                made.add_host(name)
            made.wait_until_ready()
            yield made
        finally:
            made.close()
    shutil.rmtree(place)


@pytest.fixture
def cluster(running_cluster):
    """The cluster; afterwards each machine works again, and the cloud has what it has to have."""
    yield running_cluster
    running_cluster.recover()
    running_cluster.check_account()
