"""The routes of OBS's upload server, and the two of its wiki."""

import asyncio
import json
from collections.abc import Iterator, Mapping

from aiohttp import web

from clouduploader.errors import JobFileError, NoSuchJobError
from clouduploader.model import job_xml
from clouduploader.server import job_changes, replies, routing
from clouduploader.server.access import Right
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.job_changes import JOB_FIELDS, MAX_SKELETON_BYTES
from clouduploader.server.network import body, connections
from clouduploader.server.obs import status
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route

MAX_WHOLE_BYTES = 1 << 20  # of a list that is sent as OBS does it; a longer one goes out while it is made
HELLO = b'<hello name="Cloud Upload Server" />\n'


async def hello(call: RouteCall) -> web.StreamResponse:
    """Answer with the server's name; redirect a browser to the web page."""
    if call.request.method in routing.READING and "text/html" in call.request.headers.get("Accept", ""):
        return web.Response(status=303, headers={"Location": "/ui", "Cache-Control": "no-cache"})
    return replies.xml(HELLO)


async def create(call: RouteCall) -> web.StreamResponse:
    """Create a job from the XML in the body, whose details are the target data in hexadecimal."""
    if not body.has_body(call.request):
        raise RefusalError("read_data: no content attached")
    data = await call.state.read(call.request, limit_bytes=MAX_SKELETON_BYTES)
    fields, details = await call.state.parse(len(data), lambda: _parse_skeleton(data))
    return await _create(call, fields, details)


def _parse_skeleton(data: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields of a job, and its target data."""
    try:
        fields = job_xml.parse_skeleton(data)
    except JobFileError as exc:
        raise RefusalError(exc.message) from exc
    for name in JOB_FIELDS:
        if name not in fields:
            raise RefusalError(f"{name} is missing from job skeleton")
    try:
        return fields, bytes.fromhex(fields.get("details", ""))
    except ValueError as exc:
        raise RefusalError("details are not hexadecimal") from exc


async def create_by_query(call: RouteCall) -> web.StreamResponse:
    """Create a job from the query, with the target data as the body: the wiki's form."""
    data = await call.state.read(call.request, limit_bytes=MAX_SKELETON_BYTES)
    if not await call.state.parse(len(data), lambda: _is_object(data)):
        raise RefusalError("the body is not a JSON object with the target data")
    return await _create(call, {name: call.found.value(name) or "" for name in JOB_FIELDS}, data)


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


async def _create(call: RouteCall, fields: Mapping[str, str], data: bytes) -> web.StreamResponse:
    job, _is_new = await job_changes.make_job(call, fields, data)
    return replies.xml(job_xml.serialize(job))


async def upload(call: RouteCall) -> web.StreamResponse:
    """Receive a job's image."""
    await call.state.receiver.receive(call.found.job, call.request)
    return replies.xml(replies.OK)


async def show(call: RouteCall) -> web.StreamResponse:
    """Answer with a job."""
    try:
        job, _ = call.state.jobs.read(call.found.job)
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_job() from exc
    return replies.xml(job_xml.serialize(replies.public_job(job)))


async def list_jobs(call: RouteCall) -> web.StreamResponse:
    """Answer with all jobs, or those that are named."""
    listing, connection = call.state.listing, connections.connection_of(call.request)
    async with call.state.listing_lock:
        if names := call.found.values.get("name"):
            blocks = listing.render(names, owner=call.owner)
        else:
            all_names = await asyncio.to_thread(listing.names)
            connection.hold(len(all_names))
            blocks = listing.render_all(all_names, owner=call.owner)
        first, is_whole = await asyncio.to_thread(_first, blocks)
    if is_whole:
        return replies.xml(first)
    answer = replies.stream(call.request, "text/xml")
    await answer.prepare(call.request)
    if call.request.method != "HEAD":
        block = first
        while block:
            await connection.send(answer, block)
            async with call.state.listing_lock:
                block = await asyncio.to_thread(next, blocks, b"")
    await answer.write_eof()
    return answer


def _first(blocks: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return the first blocks of a list, and whether they are all of it."""
    first = bytearray()
    for block in blocks:
        first += block
        if len(first) > MAX_WHOLE_BYTES:
            return bytes(first), False
    return bytes(first), True


async def kill(call: RouteCall) -> web.StreamResponse:
    """Kill a job; see `job_changes.kill_job`."""
    await job_changes.kill_job(call)
    return replies.xml(replies.OK)


async def log(call: RouteCall) -> web.StreamResponse:
    """Answer with a job's log."""
    found = call.found
    end = found.value("end")
    return await call.state.logs.answer(
        call.request,
        found.job,
        start=routing.to_integer(found.value("start") or "0"),
        end=None if end is None else routing.to_integer(end),
        is_stream=found.value("nostream") != "1",
        view=found.value("view"),
    )


async def pubkey(call: RouteCall) -> web.StreamResponse:
    """Answer with the key that target data are encrypted with."""
    path = call.state.config.home.value / "_pubkey"
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise replies.no_such_file(path) from exc
    except OSError as exc:
        raise RefusalError(f"{path.name}: {exc.strerror}") from exc
    answer = replies.text_of(len(data))
    await answer.prepare(call.request)
    await answer.write(data)
    await answer.write_eof()
    return answer


async def workerstatus(call: RouteCall) -> web.StreamResponse:
    """Answer with the daemons that run."""
    types = call.found.values.get("arch", ())
    return replies.xml(status.workerstatus(call.state.worker_locks, started=call.state.started, types=types))


async def serverstatus(call: RouteCall) -> web.StreamResponse:
    """Answer with the requests that are being answered."""
    return replies.xml(status.serverstatus(call.state.in_flight(), started=call.state.started))


async def ajaxstatus(call: RouteCall) -> web.StreamResponse:
    """Answer with the logs that are being followed."""
    return replies.xml(status.ajaxstatus(call.state.in_flight(), started=call.state.started))


LOG_PARAMETERS = (
    Parameter(name="nostream", check=routing.check_boolean),
    Parameter(name="start", check=routing.check_integer),
    Parameter(name="end", check=routing.check_number),
    Parameter(name="view"),
)
ROUTES: list[Route[Handler]] = [
    Route(path="/", handler=hello, right=Right.GREET),
    Route(
        path="/cloudupload",
        handler=create_by_query,
        right=Right.CREATE_JOBS,
        methods=("POST",),
        parameters=[Parameter(name=name, is_required=True) for name in JOB_FIELDS],
        selector={name: None for name in JOB_FIELDS if name not in ("filename", "size")},
    ),
    Route(path="/cloudupload", handler=create, right=Right.CREATE_JOBS, methods=("POST",)),
    Route(path="/cloudupload/$job", handler=upload, right=Right.CHANGE_JOBS, methods=("PUT",)),
    Route(
        path="/cloudupload/$job",
        handler=kill,
        right=Right.CHANGE_JOBS,
        methods=("POST",),
        parameters=[Parameter(name="cmd")],
        selector={"cmd": "kill"},
    ),
    Route(
        path="/cloudupload/$job",
        handler=kill,
        right=Right.CHANGE_JOBS,
        methods=("POST",),
        parameters=[Parameter(name="command")],
        selector={"command": "kill"},
    ),
    Route(path="/cloudupload/_pubkey", handler=pubkey, right=Right.GREET),
    Route(path="/cloudupload/$job", handler=show, right=Right.SEE_JOBS),
    Route(path="/cloudupload/$job/_log", handler=log, right=Right.SEE_JOBS, parameters=LOG_PARAMETERS),
    Route(
        path="/cloudupload",
        handler=list_jobs,
        right=Right.SEE_JOBS,
        methods=("GET", "HEAD"),
        parameters=[Parameter(name="name", check=routing.check_number, is_multiple=True)],
    ),
    Route(path="/serverstatus", handler=serverstatus, right=Right.SEE_REQUESTS),
    Route(path="/ajaxstatus", handler=ajaxstatus, right=Right.SEE_REQUESTS),
    Route(
        path="/workerstatus",
        handler=workerstatus,
        right=Right.SEE_WORKER,
        parameters=[Parameter(name="arch", is_multiple=True)],
    ),
]
"""In OBS's order (bs_clouduploadserver): the first that fits answers."""
