import threading

import pytest
from fakes.authority import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "pki")


@pytest.fixture
def drip():
    """A factory of an answer that comes byte by byte, and does not end before the test does."""
    is_over = threading.Event()

    def make(reply, *, quickly=0):
        def say(connection, _reader):
            connection.sendall(reply[:quickly])
            for byte in reply[quickly:]:
                if is_over.wait(0.1):
                    return
                connection.sendall(bytes([byte]))

        return say

    yield make
    is_over.set()
