import ssl
import threading

import pytest

from clouduploader.sandbox import certificates


@pytest.fixture
def tls(tmp_path):
    """A context of a server, and the certificate of its authority."""
    ca_path, server_path = tmp_path / "ca", tmp_path / "server"
    certificates.create(ca_path, server_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_path)
    return context, ca_path


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
