"""The routes of OBS's upload server, and the two that its wiki tells of."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from clouduploader import jobxml, targetdata
from clouduploader.commands import kill_job
from clouduploader.errors import (
    JobFileError,
    NoSuchJobError,
)
from clouduploader.job import Job, JobState
from clouduploader.server import body, replies, routing, status
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route
from clouduploader.server.state import JOB, State

MAX_BODY_BYTES = 10_000_000  # of a new job (bs_clouduploadserver); what comes after them is cut off
MAX_TEXT_CHARS = 1024  # of a field; OBS's names have some hundred, and a list shows a job as often as it is named
WANTED = ("user", "target", "project", "repository", "package", "arch", "filename", "size")  # in OBS's order
HELLO = b'<hello name="Cloud Upload Server" />\n'


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, with what its route found in it.

    Attributes:
        state: What the server has.
        request: As aiohttp gives it.
        found: Its route, job and query.
    """

    state: State
    request: web.BaseRequest
    found: "routing.Found[Handler]"


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


async def hello(_call: Call) -> web.StreamResponse:
    """Say who we are."""
    return replies.xml(HELLO)


async def create(call: Call) -> web.StreamResponse:
    """Make a job of the XML in the body, whose details are the target data in hexadecimal."""
    if not body.is_attached(call.request):
        raise RefusalError("read_data: no content attached")
    data = await call.state.read(call.request, limit=MAX_BODY_BYTES)
    try:
        fields = jobxml.parse_skeleton(data)
    except JobFileError as exc:
        raise RefusalError(exc.message) from exc
    for name in WANTED:
        if name not in fields:
            raise RefusalError(f"{name} is missing from job skeleton")
    try:
        details = bytes.fromhex(fields.get("details", ""))
    except ValueError as exc:
        raise RefusalError("details are not hexadecimal") from exc
    _check_length(details)
    return await _create(call, fields, details)


async def create_by_query(call: Call) -> web.StreamResponse:
    """Make a job of the query, with the target data as the body: the wiki's form."""
    data = await call.state.read(call.request, limit=MAX_BODY_BYTES)
    _check_length(data)  # before they are read: ten megabytes keep all others waiting
    try:
        is_object = isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise RefusalError("the body is not a JSON object with the target data")
    return await _create(call, {name: call.found.value(name) or "" for name in WANTED}, data)


def _check_length(data: bytes) -> None:
    """Refuse target data that no upload would take."""
    if len(data) > targetdata.MAX_SIZE_BYTES:
        raise RefusalError(f"the target data are longer than {targetdata.MAX_SIZE_BYTES} bytes")


async def _create(call: Call, fields: dict[str, str], data: bytes) -> web.StreamResponse:
    routing.check_filled("user", fields["user"])  # OBS takes such jobs, and leaves them lying for ever
    routing.check_filled("target", fields["target"])
    for name in WANTED:
        if len(fields[name]) > MAX_TEXT_CHARS:
            raise RefusalError(f"{name} has more than {MAX_TEXT_CHARS} characters")
    routing.check_number("size", fields["size"])
    if len(fields["size"]) > jobxml.MAX_DIGITS:
        raise RefusalError(f"size is too large: {fields['size'][:40]}")
    size = int(fields["size"])
    call.state.intake.check_space(size)
    call.state.intake.check_inodes()
    job = Job(
        name="",
        state=JobState.CREATED,
        user=fields["user"],
        target=fields["target"],
        project=fields["project"],
        repository=fields["repository"],
        package=fields["package"],
        arch=fields["arch"],
        filename=fields["filename"],
        size=size,
    )

    def make() -> Job:
        made = call.state.jobs.create(job, targetdata=data)
        # Told in the thread: if the client leaves, nobody comes back for what it gives.
        call.state.log.tell("created", job=made.name, user=made.user, target=made.target, size=made.size)
        return made

    async with call.state.creating:  # who waits for the lock of `next` otherwise does so in steps of 50 ms
        made = await asyncio.to_thread(make)
    call.request[JOB] = made.name
    return replies.xml(jobxml.serialize(made))


async def upload(call: Call) -> web.StreamResponse:
    """Take a job's image."""
    await call.state.intake.receive(call.found.job, call.request)
    return replies.xml(replies.OK)


async def show(call: Call) -> web.StreamResponse:
    """Show a job."""
    try:
        job, _ = call.state.jobs.read(call.found.job)
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_job() from exc
    return replies.xml(jobxml.serialize(job))


async def list_jobs(call: Call) -> web.StreamResponse:
    """Show all jobs, or those that are named."""
    names = call.found.values.get("name")
    async with call.state.listing_lock:
        if names:
            return replies.xml(await asyncio.to_thread(call.state.listing.of, names))
        return replies.xml(await asyncio.to_thread(call.state.listing.all))


async def kill(call: Call) -> web.StreamResponse:
    """Kill a job as OBS does: told to end, failed and archived, and not waited for."""
    manner = kill_job.Manner(timeout_seconds=0)
    jobs, config = call.state.jobs, call.state.config

    def run() -> kill_job.Killed:
        (killed,) = kill_job.kill_jobs(jobs, [call.found.job], manner=manner, config=config)
        if not killed.error and not killed.is_finished_before:
            call.state.log.tell("killed", job=killed.name, client=call.request.remote)  # as in `_create`
        return killed

    killed = await asyncio.to_thread(run)
    if isinstance(killed.error, (NoSuchJobError, JobFileError)):
        raise replies.no_such_job() from killed.error
    if killed.error:
        raise RefusalError(killed.error.message) from killed.error
    return replies.xml(replies.OK)


async def log(call: Call) -> web.StreamResponse:
    """Show a job's log."""
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


async def pubkey(call: Call) -> web.StreamResponse:
    """Show the key that target data are encrypted with."""
    path = call.state.config.home.value / "_pubkey"
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise replies.no_such_file(path) from exc
    except OSError as exc:
        raise RefusalError(f"{path}: {exc.strerror}") from exc
    answer = replies.text_of(len(data))
    await answer.prepare(call.request)
    await answer.write(data)
    await answer.write_eof()
    return answer


async def workerstatus(call: Call) -> web.StreamResponse:
    """Say which daemons run."""
    types = call.found.values.get("arch", ())
    return replies.xml(status.workerstatus(call.state.worker_locks, started=call.state.started, types=types))


async def serverstatus(call: Call) -> web.StreamResponse:
    """Say which requests are being answered."""
    return replies.xml(status.serverstatus(call.state.in_flight(), started=call.state.started))


async def ajaxstatus(call: Call) -> web.StreamResponse:
    """Say which logs are being followed."""
    return replies.xml(status.ajaxstatus(call.state.in_flight(), started=call.state.started))


LOG_PARAMETERS = (
    Parameter(name="nostream", check=routing.check_boolean),
    Parameter(name="start", check=routing.check_integer),
    Parameter(name="end", check=routing.check_number),
    Parameter(name="view"),
)
ROUTES: list[Route[Handler]] = [
    Route(path="/", handler=hello),
    Route(
        path="/cloudupload",
        handler=create_by_query,
        methods=("POST",),
        parameters=[Parameter(name=name, is_required=True) for name in WANTED],
        selector={name: None for name in WANTED if name not in ("filename", "size")},
    ),
    Route(path="/cloudupload", handler=create, methods=("POST",)),
    Route(path="/cloudupload/$job", handler=upload, methods=("PUT",)),
    Route(
        path="/cloudupload/$job",
        handler=kill,
        methods=("POST",),
        parameters=[Parameter(name="cmd")],
        selector={"cmd": "kill"},
    ),
    Route(
        path="/cloudupload/$job",
        handler=kill,
        methods=("POST",),
        parameters=[Parameter(name="command")],
        selector={"command": "kill"},
    ),
    Route(path="/cloudupload/_pubkey", handler=pubkey),
    Route(path="/cloudupload/$job", handler=show),
    Route(path="/cloudupload/$job/_log", handler=log, parameters=LOG_PARAMETERS),
    Route(
        path="/cloudupload",
        handler=list_jobs,
        methods=("GET", "HEAD"),
        parameters=[Parameter(name="name", check=routing.check_number, is_multiple=True)],
    ),
    Route(path="/serverstatus", handler=serverstatus),
    Route(path="/ajaxstatus", handler=ajaxstatus),
    Route(path="/workerstatus", handler=workerstatus, parameters=[Parameter(name="arch", is_multiple=True)]),
]
"""In OBS's order (bs_clouduploadserver): the first that fits answers."""
