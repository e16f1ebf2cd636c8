"""The control channel: lets tests make things go wrong, and look at what happened."""

import datetime
import json
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from clouduploader.sandbox.account import Account
from clouduploader.sandbox.gate import Fault, Gate
from clouduploader.sandbox.helper import Behaviour, Helper
from clouduploader.sandbox.layout import Layout
from clouduploader.sandbox.rules import StrictEC2

PREFIX = "/sandbox/"


class Control:
    """A WSGI application: its own paths, all else to the gate.

    Args:
        gate: Gets what is AWS's.
        account: See the package for what is done with each.
        helper: See account.
        layout: See account.
        prepare: Makes everything as at the start.
    """

    def __init__(
        self,
        gate: Gate,
        account: Account,
        helper: Helper,
        layout: Layout,
        prepare: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._account = account
        self._helper = helper
        self._layout = layout
        self._prepare = prepare
        self._routes: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", "account"): lambda _: account.contents(),
            ("GET", "calls"): lambda _: self._calls(),
            ("POST", "expire"): lambda _: account.expire(),
            ("POST", "policy"): account.set_role_policy,
            ("POST", "faults"): self._set_faults,
            ("POST", "clock"): self._set_clock,
            ("POST", "pace"): self._set_pace,
            ("POST", "helper"): lambda body: helper.behave(Behaviour(**body)),
            ("POST", "reset"): lambda _: self.reset(),
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        if not request.path.startswith(PREFIX):
            return self._gate(environ, start_response)
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
        self._helper.hang_up()
        self._helper.behave(Behaviour())
        self._gate.forget()
        self._set_pace({"snapshot_seconds": 0})
        self._prepare()

    def _calls(self) -> list[Any]:
        return [json.loads(line) for line in self._layout.calls.read_text().splitlines()]

    def _set_faults(self, body: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._gate.faults = [Fault(**fault) for fault in (body if isinstance(body, list) else [body])]

    def _set_clock(self, body: dict[str, float]) -> None:
        self._gate.clock_offset = datetime.timedelta(seconds=body["offset_seconds"])

    def _set_pace(self, body: dict[str, float]) -> None:
        StrictEC2.snapshot_seconds = float(body["snapshot_seconds"])


def _json(value: object, status: int) -> Response:
    return Response(json.dumps(value, default=str), status, content_type="application/json")
