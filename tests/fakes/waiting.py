"""Waiting for what another thread or process does."""

import time

PATIENCE_SECONDS = 60  # a loaded machine is slow, not broken; only a failing test waits that long


def wait_for(is_true):
    """Wait until a function returns something true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
