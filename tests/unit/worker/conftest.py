"""The bench of the worker's tests."""

import os
import signal

import pytest
from fakes.worker_bench import Bench

from clouduploader.worker import tracked


@pytest.fixture
def bench(make_spool, tmp_path):
    """See Bench; what runs there ends with the test."""
    found = Bench(make_spool(), tmp_path)
    yield found
    found.stop()
    for pid in tracked.supervisors(found.jobs).values():
        os.killpg(pid, signal.SIGKILL)
