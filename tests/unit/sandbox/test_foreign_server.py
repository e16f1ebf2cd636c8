import os
import socket
import sys

import pytest

from clouduploader.sandbox.foreign_server import ForeignServer, StartError

SERVER = """
import os, signal, socket, sys, time
print("begins", os.environ.get("WORD"), os.getcwd(), flush=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
server.listen()
while True:
    server.accept()
"""


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_server_is_ready_when_it_takes_connections_and_gone_when_it_was_stopped(tmp_path, port):
    log = tmp_path / "log"
    argv = [sys.executable, "-c", SERVER, str(port)]
    server = ForeignServer(argv, port=port, environment={"WORD": "yes"}, log=log, directory=tmp_path)
    try:
        server.await_ready()
    finally:
        server.stop()
    assert log.read_text() == f"begins yes {os.path.realpath(tmp_path)}\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_server_that_ends_is_told_with_its_log(tmp_path, port):
    log = tmp_path / "log"
    server = ForeignServer([sys.executable, "-c", ""], port=port, environment={}, log=log, directory=tmp_path)
    with pytest.raises(StartError, match=f"nothing serves port {port}; see {log}"):
        server.await_ready()
    server.stop()
