"""A whole cluster on this machine: RabbitMQ, a server, and hosts."""

import pytest
from fakes import rabbitmq


@pytest.fixture(scope="session")
def broker():
    """One broker for all tests of a process."""
    with rabbitmq.running() as started:
        yield started
