import os
import socket

import pytest


def test_environment_has_nothing_of_the_caller(home):
    assert os.environ["HOME"] == str(home)
    assert list(home.iterdir()) == []
    assert [name for name in os.environ if name.startswith("AWS_")] == ["AWS_EC2_METADATA_DISABLED"]


def bind_everywhere():
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))  # noqa: S104 it is to be refused


def connect_by_ipv6():
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("2001:db8::1", 80))


def send_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("192.0.2.1", 9))


@pytest.mark.parametrize(
    "reach",
    [
        bind_everywhere,
        connect_by_ipv6,
        send_datagram,
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.1),
        lambda: socket.getaddrinfo("example.org", 80),
    ],
)
def test_network_fails_the_test(reach):
    with pytest.raises(pytest.fail.Exception, match="loopback only"):
        reach()


def test_loopback_is_allowed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
    assert socket.getaddrinfo("localhost", 80)
