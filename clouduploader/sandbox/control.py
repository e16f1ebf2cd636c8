"""The control channel: lets tests make things go wrong, and look at what happened."""

import datetime
import json
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from clouduploader.sandbox import files
from clouduploader.sandbox.cloud import CONTROL_PREFIX, Emulator, SandboxServices


class SandboxControl:
    """A WSGI application that answers the paths below CONTROL_PREFIX.

    Args:
        services: What the sandbox's server has.
        emulator: The cloud.
    """

    def __init__(self, services: SandboxServices, emulator: Emulator) -> None:
        self._services = services
        self._emulator = emulator
        self._routes: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", "calls"): lambda _: services.record.calls(),
            ("POST", "clock"): self._set_clock,
            ("POST", "faults"): lambda body: emulator.faults.replace(body if isinstance(body, list) else [body]),
            ("POST", "reset"): lambda _: self.reset(),
            **emulator.routes,
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        route = self._routes.get((request.method, request.path.removeprefix(CONTROL_PREFIX)))
        if route is None:
            return _json({"error": "no such thing"}, 404)(environ, start_response)
        try:
            body = json.loads(request.get_data() or b"null")
            answer = route(body)
        except (TypeError, KeyError, ValueError) as exc:
            return _json({"error": f"{type(exc).__name__}: {exc}"}, 400)(environ, start_response)
        return _json(answer, 200)(environ, start_response)

    def reset(self) -> None:
        """Return faults, clock, files and cloud to the initial state."""
        self._emulator.faults.replace([])
        self._services.clock.offset = datetime.timedelta()
        files.clear(self._services.layout)
        files.write(self._services.layout, self._emulator.reset())

    def _set_clock(self, body: dict[str, float]) -> None:
        self._services.clock.offset = datetime.timedelta(seconds=body["offset_seconds"])


def _json(value: object, status: int) -> Response:
    return Response(json.dumps(value, default=str), status, content_type="application/json")
