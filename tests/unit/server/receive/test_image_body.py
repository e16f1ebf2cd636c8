"""Bodies of images, copied from sockets in threads that all clients share."""

import socket
import time

from clouduploader.server.receive import image_body

PATIENCE_SECONDS = 60  # only a failing test waits that long


def test_sender_that_has_always_a_byte_more_gives_its_thread_back(monkeypatch):
    monkeypatch.setattr(image_body, "TURN_SECONDS", 0.05)
    until = time.monotonic() + PATIENCE_SECONDS
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.sendall(bytes(image_body.SMALL_BYTES))

        def write(_data):
            assert time.monotonic() < until
            far.sendall(b"x")

        moved, is_over = image_body.BodyCopier(None)._turn(near, image_body.TURN_BYTES, write)
    assert image_body.SMALL_BYTES < moved < image_body.TURN_BYTES
    assert not is_over
