"""The process with moto and the ssh server in it.

    python -m clouduploader.sandbox.server DIRECTORY OPTIONS READY

READY is the number of a descriptor that gets a "1" once everything is there.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from clouduploader.sandbox import identity, rules, scene
from clouduploader.sandbox.account import Account
from clouduploader.sandbox.control import Control
from clouduploader.sandbox.disks import Disks
from clouduploader.sandbox.gate import Gate
from clouduploader.sandbox.helper import Helper
from clouduploader.sandbox.layout import PORT, Layout


async def serve(layout: Layout, regions: tuple[str, ...], wait_factor: float, ready: int) -> None:
    """Make everything, say so, and serve for ever."""
    disks = Disks(layout.volumes)
    account = Account(regions)
    helper = Helper(account, disks, layout)
    identity.install()
    rules.install(disks, on_stop=helper.hang_up)

    def prepare() -> None:
        with account.lock:
            described = account.prepare()
            scene.prepare(layout, described, wait_factor)

    prepare()
    await helper.start()
    gate = Gate(DomainDispatcherApplication(create_backend_app), account, layout.calls)
    control = Control(gate, account, helper, layout, prepare)
    handler = _handler(gate)
    for server in (
        make_server("127.0.0.1", PORT, control, threaded=True, request_handler=handler),
        make_server("unix://socket", 0, control, threaded=True, request_handler=handler, fd=_listen(layout)),
    ):
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


def _handler(gate: Gate) -> type[MotoRequestHandler]:
    class Handler(MotoRequestHandler):
        """Without a line for each request; with AWS's clock in the header Date."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The gate keeps the record."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Tell the time at AWS."""
            return super().date_time_string(gate.now().timestamp() if timestamp is None else timestamp)

    return Handler


def main() -> None:
    """Serve; see the module."""
    options = json.loads(sys.argv[2])
    asyncio.run(serve(Layout(Path(sys.argv[1])), tuple(options["regions"]), options["wait_factor"], int(sys.argv[3])))


if __name__ == "__main__":
    main()
