"""The emulator of AWS: moto, the EBS direct APIs and the ssh server of the helper instances."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from clouduploader.sandbox import certificates
from clouduploader.sandbox.aws import files, identity, rules
from clouduploader.sandbox.aws.account import SandboxAccount
from clouduploader.sandbox.aws.disks import Disks
from clouduploader.sandbox.aws.ebs.actions import Delays, EbsActions
from clouduploader.sandbox.aws.ebs.server import EbsServer
from clouduploader.sandbox.aws.faults import AwsFault
from clouduploader.sandbox.aws.helper import Behaviour, HelperHost
from clouduploader.sandbox.aws.identity import StrictSTS
from clouduploader.sandbox.aws.layout import PORT, AwsLayout
from clouduploader.sandbox.aws.moto_gate import MotoGate
from clouduploader.sandbox.aws.rules import StrictEC2
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.cloud import CONTROL_PREFIX, Emulator, InitialState, SandboxServices, WsgiApp
from clouduploader.sandbox.faults import Faults


class AwsEmulator(Emulator):
    """One account, and everything that serves it.

    Args:
        services: What the sandbox's server has.
        regions: See AwsCloud.
        wait_factor: See AwsCloud.
    """

    def __init__(self, services: SandboxServices, regions: tuple[str, ...], wait_factor: float) -> None:
        self.faults = Faults(AwsFault)
        self._layout = AwsLayout(services.layout.root)
        self._clock = services.clock
        self._wait_factor = wait_factor
        disks = Disks(self._layout.volumes)
        self._account = SandboxAccount(regions)
        self._helper = HelperHost(self._account, disks, self._layout)
        identity.install()
        rules.install(disks, on_stop=self._helper.hang_up)
        self._gate = MotoGate(
            DomainDispatcherApplication(create_backend_app),
            account=self._account,
            clock=self._clock,
            faults=self.faults,
            record=services.record,
        )
        self._ebs_actions = EbsActions(self._account, disks, self._clock)
        self._ebs_server = EbsServer(
            self._ebs_actions, account=self._account, clock=self._clock, faults=self.faults, record=services.record
        )
        self.routes = {
            ("GET", "account"): lambda _: self._account.contents(self._clock.now()),
            ("GET", "blocks"): lambda body: self._account.written_blocks(body["snapshot_id"]),
            ("GET", "ebs"): lambda _: self._ebs_server.report() | {"snapshots": self._account.direct_snapshots()},
            ("POST", "expire"): self._expire,
            ("POST", "expire-snapshots"): self._expire_snapshots,
            ("POST", "helper"): lambda body: self._helper.behave(Behaviour(**body)),
            ("POST", "pace"): self._set_pace,
            ("POST", "policy"): self._account.set_role_policy,
        }

    async def start(self, control: WsgiApp) -> None:
        """Start to serve; see Emulator."""
        certificates.create(self._layout.ca, self._layout.ebs_certificate)
        handler = _handler(self._clock)

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            app = control if environ["PATH_INFO"].startswith(CONTROL_PREFIX) else self._gate
            return app(environ, start_response)

        server = make_server("127.0.0.1", PORT, answer, threaded=True, request_handler=handler)
        self._ebs_server.start(self._layout.ebs_certificate)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def reset(self) -> InitialState:
        """Return to the initial state; see Emulator."""
        self._ebs_server.forget()
        self._helper.hang_up()
        self._helper.behave(Behaviour())
        self._gate.forget()
        self._ebs_actions.forget()
        StrictSTS.life_seconds = None
        self._set_pace({})
        with self._account.lock:
            account = self._account.prepare()
            described = files.prepare(self._layout, account, self._wait_factor)
        return InitialState(description=described, target="ec2", target_data=files.target_data(account))

    def _expire(self, body: dict[str, float | None] | None) -> None:
        StrictSTS.life_seconds = (body or {}).get("life_seconds", StrictSTS.life_seconds)
        self._account.expire()

    def _expire_snapshots(self, body: dict[str, bool] | None) -> None:
        self._account.expire_snapshots(is_gone=bool((body or {}).get("gone")))

    def _set_pace(self, body: dict[str, float]) -> None:
        delays = Delays(**body)
        self._ebs_actions.delays = delays
        StrictEC2.snapshot_seconds, StrictEC2.copy_seconds = delays.snapshot_seconds, delays.copy_seconds


def _handler(clock: CloudClock) -> type[MotoRequestHandler]:
    class Handler(MotoRequestHandler):
        """Without a line for each request; with AWS's clock in the header Date."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Write nothing: MotoGate records calls."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Return AWS's time."""
            return super().date_time_string(clock.now().timestamp() if timestamp is None else timestamp)

    return Handler
