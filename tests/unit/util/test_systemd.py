"""What systemd gets to read, on a socket like systemd's."""

import socket

import pytest

from clouduploader.util import systemd as util_systemd


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """A socket as systemd has it, and its name as a service gets it."""
    name = str(tmp_path / "notify")
    address = name if request.param == "path" else "\0" + name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        yield listener, name if request.param == "path" else "@" + name


def test_start_is_told(systemd):
    listener, name = systemd
    util_systemd.Readiness({"NOTIFY_SOCKET": name}).ready("listening on 127.0.0.1:5452")
    assert listener.recv(4096) == b"READY=1\nSTATUS=listening on 127.0.0.1:5452"


def test_status_of_two_lines_is_no_second_message(systemd):
    listener, name = systemd
    util_systemd.Readiness({"NOTIFY_SOCKET": name}).ready("one\nSTOPPING=1")
    assert listener.recv(4096) == b"READY=1\nSTATUS=one STOPPING=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nobody/is/here"}])
def test_nobody_to_tell_is_no_error(environment):
    util_systemd.Readiness(environment).ready("up")
