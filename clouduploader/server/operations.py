"""The routes for those who run the service: numbers, health, a page, and a description of all routes. None is OBS's."""

import asyncio
import dataclasses
import importlib.resources
import itertools
import json
from typing import Any

from aiohttp import web

from clouduploader.commands import list_jobs
from clouduploader.server import health, metrics, replies, routing
from clouduploader.server.routes import Call, Handler
from clouduploader.server.routing import Parameter, Route

MAX_JOBS = 5000  # of one answer; the page asks for 200 first
DEFAULT_JOBS = 200
HIDDEN = ("pid",)  # nobody's business
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: run our script, use our style, ask us; nothing that somebody wrote into a job."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
JSON = "application/json"
HTML, SCRIPT, STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"


async def show_metrics(call: Call) -> web.StreamResponse:
    """Answer Prometheus."""
    async with call.state.counting:
        # Counted here, where no image can end meanwhile: a counter that goes down looks like a restart.
        received_bytes = call.state.intake.received_bytes
        text = await asyncio.to_thread(call.state.metrics.render, received_bytes=received_bytes)
    return _answer(text, metrics.CONTENT_TYPE)


async def show_health(call: Call) -> web.StreamResponse:
    """Say whether the service can do its work: 200 if it can, else 503."""
    state = call.state
    findings = await asyncio.to_thread(
        health.check,
        state.jobs,
        keep_free_bytes=state.settings.keep_free_bytes,
        keep_free_inodes=state.settings.keep_free_inodes,
        worker_fault=state.worker_fault(),
    )
    is_well = all(finding.fault is None for finding in findings)
    document = {
        "status": "ok" if is_well else "failed",
        "checks": {finding.name: replies.without_directories(finding.fault or "ok") for finding in findings},
    }
    return _json(document, status=200 if is_well else 503)


async def show_page(call: Call) -> web.StreamResponse:
    """Show the page."""
    return _file("ui/index.html", HTML)


async def show_script(call: Call) -> web.StreamResponse:
    """Give the page its script."""
    return _file("ui/ui.js", SCRIPT)


async def show_style(call: Call) -> web.StreamResponse:
    """Give the page its style."""
    return _file("ui/ui.css", STYLE)


async def show_description(call: Call) -> web.StreamResponse:
    """Describe all routes, in the words of OpenAPI 3.1."""
    return _file("openapi.json", JSON)


async def show_jobs(call: Call) -> web.StreamResponse:
    """Tell the page of the newest jobs."""
    limit = min(routing.to_integer(call.found.value("limit") or str(DEFAULT_JOBS)), MAX_JOBS)

    def read() -> dict[str, Any]:
        listing = list_jobs.list_jobs(call.state.jobs, list_jobs.Query())
        entries = itertools.islice(listing.entries, limit)
        return {"total": listing.total, "jobs": [_entry(entry) for entry in entries]}

    return _json(await asyncio.to_thread(read))


def _entry(entry: list_jobs.Entry) -> dict[str, Any]:
    if entry.job is None:
        return {"name": entry.name, "state": "damaged", "damage": replies.without_directories(entry.damage or "")}
    fields = dataclasses.asdict(entry.job)
    return {name.rstrip("_"): value for name, value in fields.items() if name not in HIDDEN}


def _file(name: str, content_type: str) -> web.Response:
    return _answer(importlib.resources.files(__package__).joinpath(name).read_bytes(), content_type)


def _json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    return _answer(json.dumps(document).encode(), JSON, status=status)


def _answer(data: bytes, content_type: str, *, status: int = 200) -> web.Response:
    answer = web.Response(body=data, status=status, headers={"Content-Type": content_type, **HEADERS})
    answer.force_close()  # as all answers of this server
    return answer


ROUTES: list[Route[Handler]] = [
    Route(path="/metrics", handler=show_metrics, methods=routing.READING),
    Route(path="/healthz", handler=show_health, methods=routing.READING),
    Route(path="/openapi.json", handler=show_description, methods=routing.READING),
    Route(path="/ui", handler=show_page, methods=routing.READING),
    Route(path="/ui/ui.js", handler=show_script, methods=routing.READING),
    Route(path="/ui/ui.css", handler=show_style, methods=routing.READING),
    Route(
        path="/ui/jobs",
        handler=show_jobs,
        methods=routing.READING,
        parameters=[Parameter(name="limit", check=routing.check_number)],
    ),
]
