"""The routes of OBS's upload server, and the two of its wiki."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping

from aiohttp import web

from clouduploader.errors import JobFileError, JobStateError, NoSuchJobError
from clouduploader.jobs import fill
from clouduploader.jobs import kill as jobs_kill
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.server import quotas, replies, routing, status
from clouduploader.server.access import Kind, Principal, Right
from clouduploader.server.network import body, connections
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route
from clouduploader.server.state import JOB, ServerState
from clouduploader.store import target_data
from clouduploader.store.images import StoredImage
from clouduploader.util.frozen import frozen

MAX_SKELETON_BYTES = 2 * target_data.MAX_SIZE_BYTES + (1 << 17)  # the data in hexadecimal, and the longest fields
MAX_TEXT_CHARS = 1024  # of a field; OBS's names have some hundred
MAX_WHOLE_BYTES = 1 << 20  # of a list that is sent as OBS does it; a longer one goes out while it is made
WANTED = ("user", "target", "project", "repository", "package", "arch", "filename", "size")  # in OBS's order
HELLO = b'<hello name="Cloud Upload Server" />\n'


@frozen()
class RouteCall:
    """A request, with what its route found in it.

    Attributes:
        state: Of the server.
        request: As aiohttp gives it.
        found: Its route, job and query.
        principal: Who sends it.
        owner: Whose jobs alone it may see and change; None for all.
    """

    state: ServerState
    request: web.BaseRequest
    found: "routing.RouteMatch[Handler]"
    principal: Principal
    owner: str | None


Handler = Callable[[RouteCall], Awaitable[web.StreamResponse]]


async def hello(call: RouteCall) -> web.StreamResponse:
    """Answer with the server's name; redirect a browser to the web page."""
    if call.request.method in routing.READING and "text/html" in call.request.headers.get("Accept", ""):
        answer = web.Response(status=303, headers={"Location": "/ui", "Cache-Control": "no-cache"})
        answer.force_close()
        return answer
    return replies.xml(HELLO)


async def create(call: RouteCall) -> web.StreamResponse:
    """Create a job from the XML in the body, whose details are the target data in hexadecimal."""
    if not body.has_body(call.request):
        raise RefusalError("read_data: no content attached")
    data = await call.state.read(call.request, limit_bytes=MAX_SKELETON_BYTES)
    fields, details = await call.state.parse(len(data), lambda: _parse_skeleton(data))
    check_length(details)
    return await _create(call, fields, details)


def _parse_skeleton(data: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields of a job, and its target data."""
    try:
        fields = job_xml.parse_skeleton(data)
    except JobFileError as exc:
        raise RefusalError(exc.message) from exc
    for name in WANTED:
        if name not in fields:
            raise RefusalError(f"{name} is missing from job skeleton")
    try:
        return fields, bytes.fromhex(fields.get("details", ""))
    except ValueError as exc:
        raise RefusalError("details are not hexadecimal") from exc


async def create_by_query(call: RouteCall) -> web.StreamResponse:
    """Create a job from the query, with the target data as the body: the wiki's form."""
    data = await call.state.read(call.request, limit_bytes=MAX_SKELETON_BYTES)
    check_length(data)
    if not await call.state.parse(len(data), lambda: _is_object(data)):
        raise RefusalError("the body is not a JSON object with the target data")
    return await _create(call, {name: call.found.value(name) or "" for name in WANTED}, data)


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def check_length(data: bytes) -> None:
    """Refuse target data that are too long for any upload."""
    if len(data) > target_data.MAX_SIZE_BYTES:
        raise RefusalError(f"the target data are longer than {target_data.MAX_SIZE_BYTES} bytes")


async def _create(call: RouteCall, fields: dict[str, str], data: bytes) -> web.StreamResponse:
    job, _is_new = await make_job(call, fields, data)
    return replies.xml(job_xml.serialize(job))


async def make_job(
    call: RouteCall,
    fields: Mapping[str, str],
    data: bytes,
    *,
    image: StoredImage | None = None,
    asked: str | None = None,
) -> tuple[Job, bool]:
    """Make a job; it waits for its image, unless that is here.

    Args:
        call: The request.
        fields: Of the job, by WANTED.
        data: The target data.
        image: The whole image that came in pieces; None for one that is still to come.
        asked: See `StoredImage`.

    Returns:
        The job, and whether it is new: another request may have made it of this image meanwhile.

    Raises:
        MissingFileError: The image was removed meanwhile.
        RefusalError: A field is none that a job can have; or the user has no room for it, or the disk.
        ClouduploaderError: The target data are wrong, or it can't be written.
    """
    if call.owner is not None:
        fields = {**fields, "user": call.owner}  # whatever the client says
    routing.check_filled("user", fields["user"])  # OBS takes such jobs, and never ends them
    routing.check_filled("target", fields["target"])
    for name in WANTED:
        if len(fields[name]) > MAX_TEXT_CHARS:
            raise RefusalError(f"{name} has more than {MAX_TEXT_CHARS} characters")
    routing.check_number("size", fields["size"])
    if len(fields["size"]) > job_xml.MAX_DIGITS:
        raise RefusalError(f"size is too large: {fields['size'][:40]}")
    size = int(fields["size"])
    state = call.state
    if image is None:
        state.receiver.check_space(size)
    state.receiver.check_inodes()
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

    def make() -> tuple[Job, bool]:
        whole = None if image is None else state.images.find(image.id)  # `creating` keeps it as it is now
        if whole is not None and whole.job:
            return job_of(call, whole, asked), False
        if call.owner is not None:
            taken = whole.id if whole else None
            quotas.check_room(state.jobs, state.settings, call.owner, size, images=state.images, taken=taken)
        made = state.jobs.create(job, targetdata=_filled(call, job, data))
        # Logged in the thread: if the client leaves, its result is not awaited.
        state.log.tell("created", job=made.name, user=made.user, target=made.target, size=made.size)
        return made if whole is None else _schedule(state, state.images.bind(whole, made.name, asked=asked)), True

    async with state.creating:  # else a request waits for the lock of `next` in steps of 50 ms
        made, is_new = await asyncio.to_thread(make)
    call.request[JOB] = made.name
    return made, is_new


def job_of(call: RouteCall, image: StoredImage, asked: str | None) -> Job:
    """In a thread: return the job that was made of an image; it gets the image now if it has not got it yet.

    Args:
        call: The request.
        image: The image.
        asked: See `StoredImage`.

    Raises:
        JobStateError: Something else was asked for then, and the job does that.
        RefusalError: It is another user's: an administrator made it.
        ClouduploaderError: See `_schedule`.
    """
    job = _schedule(call.state, image)
    if call.owner not in (None, job.user):
        raise replies.no_such_job()
    if asked != image.asked and image.asked is not None:
        raise JobStateError(f"the job {job.name} was made of this image for another request", hint="Send it again.")
    return job


def _schedule(state: ServerState, image: StoredImage) -> Job:
    """In a thread: give a job that was made of an image that image, if it has not got it yet, and return the job.

    Raises:
        ClouduploaderError: It can't be done; asked again for a job of this image, the server goes on here.
    """
    name = image.job or ""

    def announce() -> None:
        state.log.tell("scheduled", job=name, bytes=image.size_bytes, image=image.id)

    try:
        job = state.jobs.adopt(name, state.images.path(image), announce=announce)
    except (JobStateError, NoSuchJobError):  # it has its image, or is over
        job = state.jobs.read(name)[0]
    state.images.give_up(image)
    return job


def _filled(call: RouteCall, job: Job, data: bytes) -> bytes:
    """In a thread: return target data with the user's account, which OBS's own calls have in them already."""
    if call.principal.kind is Kind.BACKEND:
        return data
    is_bound = call.owner is not None
    return fill.fill(call.state.config, data, user=job.user or "", target=job.target or "", is_bound=is_bound)


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
    """Kill a job as OBS does: signal its processes, archive it as failed, and do not wait."""
    await kill_job(call)
    return replies.xml(replies.OK)


async def kill_job(call: RouteCall) -> None:
    """Kill the job of a route; see `kill`.

    Raises:
        RefusalError: There is none.
        ClouduploaderError: It can't be killed.
    """
    options = jobs_kill.KillOptions(timeout_seconds=0)
    jobs, config = call.state.jobs, call.state.config

    def run() -> jobs_kill.KillResult:
        (killed,) = jobs_kill.kill_jobs(jobs, [call.found.job], options=options, config=config)
        if not killed.error and not killed.is_finished_before:
            call.state.log.tell(
                "killed", job=killed.name, client=call.request.remote, user=call.principal.user
            )  # as in `_create`
        return killed

    killed = await asyncio.to_thread(run)
    if isinstance(killed.error, (NoSuchJobError, JobFileError)):
        raise replies.no_such_job() from killed.error
    if killed.error:
        raise killed.error


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
        parameters=[Parameter(name=name, is_required=True) for name in WANTED],
        selector={name: None for name in WANTED if name not in ("filename", "size")},
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
