"""Make and kill jobs for a request: by OBS's routes, and by the API."""

import asyncio
from collections.abc import Mapping

from clouduploader.errors import JobFileError, JobStateError, NoSuchJobError
from clouduploader.jobs import fill
from clouduploader.jobs import kill as jobs_kill
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.server import quotas, replies, routing
from clouduploader.server.access import Kind
from clouduploader.server.call import RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.server.state import JOB, ServerState
from clouduploader.store import target_data
from clouduploader.store.images import StoredImage

MAX_SKELETON_BYTES = 2 * target_data.MAX_SIZE_BYTES + (1 << 17)  # the data in hexadecimal, and the longest fields
MAX_TEXT_CHARS = 1024  # of a field; OBS's names have some hundred
JOB_FIELDS = ("user", "target", "project", "repository", "package", "arch", "filename", "size")  # in OBS's order


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
        fields: Of the job, by JOB_FIELDS.
        data: The target data.
        image: The whole image that came in pieces; None for one that is still to come.
        asked: See `StoredImage`.

    Returns:
        The job, and whether it is new: another request may have made it of this image meanwhile.

    Raises:
        MissingFileError: The image was removed meanwhile.
        RefusalError: The target data are too long for any upload; a field is none that a job can have; or the user has
            no room for it, or the disk.
        ClouduploaderError: The target data are wrong, or it can't be written.
    """
    if len(data) > target_data.MAX_SIZE_BYTES:
        raise RefusalError(f"the target data are longer than {target_data.MAX_SIZE_BYTES} bytes")
    if call.owner is not None:
        fields = {**fields, "user": call.owner}  # whatever the client says
    routing.check_filled("user", fields["user"])  # OBS takes such jobs, and never ends them
    routing.check_filled("target", fields["target"])
    for name in JOB_FIELDS:
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


async def kill_job(call: RouteCall) -> None:
    """Kill the job of a route as OBS does: signal its processes, archive it as failed, and do not wait.

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
            )  # as in `make_job`
        return killed

    killed = await asyncio.to_thread(run)
    if isinstance(killed.error, (NoSuchJobError, JobFileError)):
        raise replies.no_such_job() from killed.error
    if killed.error:
        raise killed.error
