"""The routes for operators: metrics, health, and a description of all routes. None is OBS's."""

import asyncio
from typing import Any

from aiohttp import web

from clouduploader.server import access, metrics, page, replies, routing
from clouduploader.server.access import Right
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.routing import Route


async def show_metrics(call: RouteCall) -> web.StreamResponse:
    """Answer with the metrics."""
    async with call.state.counting:
        # In the event loop, where no image can end meanwhile: a counter that goes down looks like a restart.
        text = await asyncio.to_thread(call.state.metrics.render, received_bytes=call.state.received_bytes)
    return page.answer(text, metrics.CONTENT_TYPE)


async def show_health(call: RouteCall) -> web.StreamResponse:
    """Answer with 200 if no health check fails, else 503; with each of them to who may see what is not well."""
    findings = await asyncio.to_thread(call.state.check_health)
    is_well = all(finding.fault is None for finding in findings)
    document: dict[str, Any] = {"status": "ok" if is_well else "failed"}
    if access.has(call.principal, Right.MONITOR):
        document["checks"] = {one.name: replies.without_directories(one.fault or "ok") for one in findings}
    return page.answer_json(document, status=200 if is_well else 503)


async def show_description(call: RouteCall) -> web.StreamResponse:
    """Answer with the description of all routes, OpenAPI 3.1."""
    return page.answer_file("openapi.json", page.JSON)


ROUTES: list[Route[Handler]] = [
    Route(path="/metrics", handler=show_metrics, right=Right.MONITOR, methods=routing.READING, is_polled=True),
    Route(path="/healthz", handler=show_health, right=Right.GREET, methods=routing.READING, is_polled=True),
    Route(path="/openapi.json", handler=show_description, right=Right.GREET, methods=routing.READING),
]
