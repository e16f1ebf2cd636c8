"""The process in which the cloud is emulated; its control channel is a Unix socket.

    python -m clouduploader.sandbox.server DIRECTORY CLOUD READY

CLOUD is what `registry.encode` gives; READY the number of a descriptor that gets a "1" once all is served.
"""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from clouduploader.sandbox import registry
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.cloud import SandboxCloud, SandboxServices
from clouduploader.sandbox.control import SandboxControl
from clouduploader.sandbox.layout import Layout


class _QuietHandler(WSGIRequestHandler):
    """Without a line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing; errors are still logged."""


async def serve(layout: Layout, cloud: SandboxCloud, ready: int) -> None:
    """Start the cloud, write to `ready`, and serve until the process is killed."""
    services = SandboxServices(layout=layout, clock=CloudClock(), record=CallRecord(layout.calls))
    emulator = cloud.create_emulator(services)
    control = SandboxControl(services, emulator)
    await asyncio.to_thread(control.reset)
    await emulator.start(control)
    server = make_server("unix://socket", 0, control, threaded=True, request_handler=_QuietHandler, fd=_listen(layout))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.write(ready, b"1")
    os.close(ready)
    await asyncio.Event().wait()


def _listen(layout: Layout) -> int:
    """Listen at the Unix socket, by a relative path: the kernel takes no more than 107 bytes."""
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(layout.root)
    listener.bind(layout.socket.name)
    listener.listen()
    return listener.detach()


def main() -> None:
    """Serve; see the module."""
    asyncio.run(serve(Layout(Path(sys.argv[1])), registry.decode(sys.argv[2]), int(sys.argv[3])))


if __name__ == "__main__":
    main()
