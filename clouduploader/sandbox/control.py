"""The control channel: lets tests make things go wrong, and look at what happened."""

import datetime
import json
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from clouduploader.sandbox.aws.account import SandboxAccount
from clouduploader.sandbox.aws.ebs.actions import Actions, CallRate
from clouduploader.sandbox.aws.ebs.server import EbsServer
from clouduploader.sandbox.aws.faults import Faults
from clouduploader.sandbox.aws.helper import Behaviour, HelperHost
from clouduploader.sandbox.aws.identity import StrictSTS
from clouduploader.sandbox.aws.moto_gate import MotoGate
from clouduploader.sandbox.aws.rules import StrictEC2
from clouduploader.sandbox.clock import Clock
from clouduploader.sandbox.record import CallRecord
from clouduploader.util.frozen import frozen

PREFIX = "/sandbox/"


@frozen(kw_only=True)
class Parts:
    """What the sandbox's server is made of; see there."""

    account: SandboxAccount
    clock: Clock
    faults: Faults
    record: CallRecord
    gate: MotoGate
    helper: HelperHost
    ebs_actions: Actions
    ebs_server: EbsServer
    prepare: Callable[[], None]


class SandboxControl:
    """A WSGI application: its own paths, all else to the gate.

    Args:
        parts: See the package for what is done with each.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        account = parts.account
        self._routes: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", "account"): lambda _: account.contents(parts.clock.now()),
            ("GET", "calls"): lambda _: parts.record.calls(),
            ("GET", "ebs"): lambda _: self._ebs(),
            ("GET", "blocks"): lambda body: account.written_blocks(body["snapshot_id"]),
            ("POST", "expire"): self._expire,
            ("POST", "expire-snapshots"): self._expire_snapshots,
            ("POST", "policy"): account.set_role_policy,
            ("POST", "faults"): lambda body: parts.faults.replace(body if isinstance(body, list) else [body]),
            ("POST", "clock"): self._set_clock,
            ("POST", "pace"): self._set_pace,
            ("POST", "helper"): lambda body: parts.helper.behave(Behaviour(**body)),
            ("POST", "reset"): lambda _: self.reset(),
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        if not request.path.startswith(PREFIX):
            return self._parts.gate(environ, start_response)
        route = self._routes.get((request.method, request.path.removeprefix(PREFIX)))
        if route is None:
            return _json({"error": "no such thing"}, 404)(environ, start_response)
        try:
            body = json.loads(request.get_data() or b"null")
            answer = route(body)
        except (TypeError, KeyError, ValueError) as exc:
            return _json({"error": f"{type(exc).__name__}: {exc}"}, 400)(environ, start_response)
        return _json(answer, 200)(environ, start_response)

    def reset(self) -> None:
        """Make everything as at the start."""
        parts = self._parts
        parts.faults.replace([])
        parts.ebs_server.forget()
        parts.helper.hang_up()
        parts.helper.behave(Behaviour())
        parts.gate.forget()
        parts.ebs_actions.forget()
        parts.clock.offset = datetime.timedelta()
        StrictSTS.life_seconds = None
        self._set_pace({})
        parts.prepare()

    def _ebs(self) -> dict[str, Any]:
        return self._parts.ebs_server.report() | {"snapshots": self._parts.account.direct_snapshots()}

    def _expire(self, body: dict[str, float | None] | None) -> None:
        StrictSTS.life_seconds = (body or {}).get("life_seconds", StrictSTS.life_seconds)
        self._parts.account.expire()

    def _expire_snapshots(self, body: dict[str, bool] | None) -> None:
        self._parts.account.expire_snapshots(is_gone=bool((body or {}).get("gone")))

    def _set_clock(self, body: dict[str, float]) -> None:
        self._parts.clock.offset = datetime.timedelta(seconds=body["offset_seconds"])

    def _set_pace(self, body: dict[str, float]) -> None:
        pace = CallRate(**body)
        self._parts.ebs_actions.pace = pace
        StrictEC2.snapshot_seconds, StrictEC2.copy_seconds = pace.snapshot_seconds, pace.copy_seconds


def _json(value: object, status: int) -> Response:
    return Response(json.dumps(value, default=str), status, content_type="application/json")
