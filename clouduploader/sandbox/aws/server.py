"""The process with moto, the EBS direct APIs and the ssh server in it.

    python -m clouduploader.sandbox.aws.server DIRECTORY OPTIONS READY

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

from clouduploader.sandbox import certificates, scene
from clouduploader.sandbox.aws import identity, rules
from clouduploader.sandbox.aws.account import SandboxAccount
from clouduploader.sandbox.aws.disks import Disks
from clouduploader.sandbox.aws.ebs.actions import Actions
from clouduploader.sandbox.aws.ebs.server import EbsServer
from clouduploader.sandbox.aws.faults import Faults
from clouduploader.sandbox.aws.helper import HelperHost
from clouduploader.sandbox.aws.moto_gate import MotoGate
from clouduploader.sandbox.clock import Clock
from clouduploader.sandbox.control import Parts, SandboxControl
from clouduploader.sandbox.layout import PORT, Layout
from clouduploader.sandbox.record import CallRecord


async def serve(layout: Layout, regions: tuple[str, ...], wait_factor: float, ready: int) -> None:
    """Make everything, say so, and serve for ever."""
    disks = Disks(layout.volumes)
    account = SandboxAccount(regions)
    helper = HelperHost(account, disks, layout)
    identity.install()
    rules.install(disks, on_stop=helper.hang_up)

    def prepare() -> None:
        with account.lock:
            described = account.prepare()
            scene.prepare(layout, described, wait_factor)

    prepare()
    await helper.start()
    certificates.make(layout.ca, layout.ebs_certificate)
    clock, faults, record = Clock(), Faults(), CallRecord(layout.calls)
    app = DomainDispatcherApplication(create_backend_app)
    gate = MotoGate(app, account=account, clock=clock, faults=faults, record=record)
    ebs_actions = Actions(account, disks, clock)
    ebs_server = EbsServer(ebs_actions, account=account, clock=clock, faults=faults, record=record, layout=layout)
    control = SandboxControl(
        Parts(
            account=account,
            clock=clock,
            faults=faults,
            record=record,
            gate=gate,
            helper=helper,
            ebs_actions=ebs_actions,
            ebs_server=ebs_server,
            prepare=prepare,
        )
    )
    handler = _handler(clock)
    at_port = make_server("127.0.0.1", PORT, control, threaded=True, request_handler=handler)
    at_socket = make_server("unix://socket", 0, control, threaded=True, request_handler=handler, fd=_listen(layout))
    for serve_forever in (at_port.serve_forever, at_socket.serve_forever, ebs_server.serve):
        threading.Thread(target=serve_forever, daemon=True).start()
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


def _handler(clock: Clock) -> type[MotoRequestHandler]:
    class Handler(MotoRequestHandler):
        """Without a line for each request; with AWS's clock in the header Date."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The gate keeps the record."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Tell the time at AWS."""
            return super().date_time_string(clock.now().timestamp() if timestamp is None else timestamp)

    return Handler


def main() -> None:
    """Serve; see the module."""
    options = json.loads(sys.argv[2])
    asyncio.run(serve(Layout(Path(sys.argv[1])), tuple(options["regions"]), options["wait_factor"], int(sys.argv[3])))


if __name__ == "__main__":
    main()
