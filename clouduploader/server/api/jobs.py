"""Jobs: made, by search, one, killed, tried again."""

import asyncio
import enum
import hashlib
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from clouduploader.errors import JobFileError, JobStateError, NoSuchJobError
from clouduploader.jobs import inspect as jobs_inspect
from clouduploader.jobs import list as jobs_list
from clouduploader.model.job import JobState
from clouduploader.server import job_changes, replies
from clouduploader.server.access import Right
from clouduploader.server.api import documents, images, search
from clouduploader.server.api.endpoint import ROOT, Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.replies import RefusalError

DEFAULT_JOBS = 50
MAX_JOBS = 200


class ShownState(enum.StrEnum):
    """The states of a job, and that of one whose record can't be read."""

    CREATED = JobState.CREATED.value
    RECEIVING = JobState.RECEIVING.value
    SCHEDULED = JobState.SCHEDULED.value
    UPLOADING = JobState.UPLOADING.value
    WAITING = JobState.WAITING.value
    SUCCEEDED = JobState.SUCCEEDED.value
    FAILED = JobState.FAILED.value
    DAMAGED = search.DAMAGED


class JobEntry(documents.Document):
    """A job."""

    id: str
    state: ShownState
    details: Annotated[str | None, Meta(description="The result, or why it failed, or what it waits for.")] = None
    damage: Annotated[str | None, Meta(description="What is wrong with its record, if that can't be read.")] = None
    progress: Annotated[int | None, Meta(description="Percent of the phase that is under way.")] = None
    tries: Annotated[int | None, Meta(description="How often it was tried, if more than once.")] = None
    created: Annotated[documents.Time | None, Meta(description="When it was made.")] = None
    changed: Annotated[documents.Time | None, Meta(description="When its record was last written.")] = None
    user: str | None = None
    target: Annotated[str | None, Meta(description="The platform's name.")] = None
    project: str | None = None
    repository: str | None = None
    package: str | None = None
    arch: str | None = None
    filename: Annotated[str | None, Meta(description="The image's name.")] = None
    size: Annotated[int | None, Meta(description="Of the image, in bytes.")] = None
    host: Annotated[str | None, Meta(description="The upload host that has it, where there are several.")] = None
    attempt: Annotated[int | None, Meta(description="How often it was given to a host, this time included.")] = None
    since: Annotated[documents.Time | None, Meta(description="When the host got it.")] = None


class ObjectEntry(documents.Document):
    """Something in the cloud."""

    kind: Annotated[str, Meta(description="The cloud's word for it.")]
    id: str
    region: Annotated[str, Meta(description="Where it is; empty where the cloud has no regions.")]


class JobDetails(JobEntry):
    """A job, with what its log tells."""

    phase: Annotated[str | None, Meta(description="What its upload did last, in a few words.")] = None
    objects: Annotated[tuple[ObjectEntry, ...], Meta(description="What it has in the cloud; the image first.")] = ()
    log_bytes: Annotated[int | None, Meta(description="Of its log; null without one.")] = None
    log_changed: Annotated[documents.Time | None, Meta(description="When something was last written there.")] = None


class JobPage(documents.Document):
    """Jobs, newest first."""

    jobs: list[JobEntry]
    next: Annotated[str | None, Meta(description="What to give as cursor for those behind; null if there are none.")]
    total: Annotated[int | None, Meta(description="How many there are before any filter; null for a user.")]


class JobFilter(documents.Given):
    """Which jobs are wanted: of each kind of filter one value must match."""

    state: Annotated[tuple[ShownState, ...], Meta(description="In one of these states.")] = ()
    user: Annotated[tuple[str, ...], Meta(description="Of one of these users.")] = ()
    target: Annotated[tuple[str, ...], Meta(description="For one of these targets.")] = ()
    project: Annotated[tuple[str, ...], Meta(description="From one of these projects.")] = ()
    text: Annotated[str, Meta(description="Each of these words is in one of its fields; case does not matter.")] = ""
    since: Annotated[documents.Time | None, Meta(description="Created then or later.")] = None
    running: Annotated[bool, Meta(description="Only those that are not over.")] = False
    cursor: Annotated[
        Annotated[str, Meta(pattern="^[0-9]{1,18}$")] | None, Meta(description="`next` of the answer before.")
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MAX_JOBS, description="How many at most.")] = DEFAULT_JOBS


class NewJob(documents.Given):
    """What is to be done."""

    target: Annotated[documents.Filled, Meta(description="The platform's name.")]
    filename: Annotated[documents.Text, Meta(description="The image's name; that of the image unless given.")] = ""
    size: Annotated[documents.Bytes | None, Meta(description="Of the image; needed without one.")] = None
    image: Annotated[
        str | None, Meta(description="The id of an image that is here; without one the job waits for it.")
    ] = None
    data: Annotated[
        dict[str, Any] | str | None, Meta(description="The target data; a text if all of them are encrypted.")
    ] = None
    user: Annotated[documents.Text, Meta(description="Whose job it is; for a user always the own one.")] = ""
    project: documents.Text = ""
    repository: documents.Text = ""
    package: documents.Text = ""
    arch: documents.Text = ""


async def create_job(call: RouteCall) -> web.StreamResponse:
    """Make a job; of one image there is one job, however often that is asked for."""
    given = await documents.read(call, NewJob)
    asked = hashlib.sha256(msgspec.json.encode(given)).hexdigest()
    image = None
    if given.image is not None:
        image = await images.find(call, given.image)
        if image.job:
            job = await asyncio.to_thread(job_changes.job_of, call, image, asked)
            return documents.answer(await details(call, job.name), location=f"{ROOT}/jobs/{job.name}")
        if not image.is_whole:
            raise JobStateError(f"{image.size_bytes - image.offset_bytes} bytes of the image are still to come")
    size = given.size if image is None else image.size_bytes
    if size is None or given.size not in (None, size):
        raise RefusalError("the size must be that of the image", status=422)
    data = "" if given.data is None else given.data
    fields = {
        "user": given.user or call.principal.user or "",
        "target": given.target,
        "project": given.project,
        "repository": given.repository,
        "package": given.package,
        "arch": given.arch,
        "filename": given.filename or (image.metadata.get(images.FILENAME, "") if image else ""),
        "size": str(size),
    }
    encoded = data.encode() if isinstance(data, str) else msgspec.json.encode(data)
    job, is_new = await job_changes.make_job(call, fields, encoded, image=image, asked=asked)
    status = 201 if is_new else 200
    return documents.answer(await details(call, job.name), status=status, location=f"{ROOT}/jobs/{job.name}")


async def list_jobs(call: RouteCall) -> web.StreamResponse:
    """Search jobs, newest first."""
    given = documents.query(call, JobFilter)
    wanted = search.JobSearch(
        words=given.text.split(),
        states=given.state,
        users=given.user,
        targets=given.target,
        projects=given.project,
        since=given.since.timestamp() if given.since else None,
        is_running=given.running,
    )
    async with call.state.searching:
        found = await asyncio.to_thread(
            search.find,
            call.state.jobs,
            wanted,
            before=None if given.cursor is None else int(given.cursor),
            owner=call.owner,
            limit=given.limit,
        )
    entries = [JobEntry(**_fields(fields)) for fields in found.jobs]
    return documents.answer(
        JobPage(jobs=entries, next=None if found.before is None else str(found.before), total=found.total)
    )


async def show_job(call: RouteCall) -> web.StreamResponse:
    """Tell all of a job that clients may know."""
    return documents.answer(await details(call, call.found.job))


async def kill_job(call: RouteCall) -> web.StreamResponse:
    """Kill a job, and let its uploader clean up; one that is over stays as it is."""
    await job_changes.kill_job(call)
    return documents.answer(await details(call, call.found.job))


async def retry_job(call: RouteCall) -> web.StreamResponse:
    """Start a job that waits for another try without further delay."""
    from clouduploader.jobs import retry  # loads what uploads need

    state, name = call.state, call.found.job

    def run() -> None:
        try:
            retry.schedule(state.jobs, name)
        except NoSuchJobError:
            job, _ = state.jobs.read(name)
            raise JobStateError(f"the job {name} has {job.state}", hint="Hand the image in again.") from None
        state.log.tell("scheduled", job=name, client=call.request.remote, user=call.principal.user)

    try:
        await asyncio.to_thread(run)
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_job() from exc
    return documents.answer(await details(call, name))


async def details(call: RouteCall, name: str) -> JobDetails:
    """Return all of a job that clients may know.

    Raises:
        RefusalError: There is none.
    """
    jobs, state_dir = call.state.jobs, call.state.config.state.value

    def look() -> JobDetails:
        try:
            found = jobs_inspect.inspect_job(jobs, name, lines=0, state_dir=state_dir)
        except NoSuchJobError as exc:
            raise replies.no_such_job() from exc
        entry = jobs_list.ListedJob(name, found.job, found.is_archived, found.damage)
        return JobDetails(
            **_fields(search.job_fields(jobs, entry)),
            phase=found.log.reading.phase if found.log else None,
            objects=tuple(ObjectEntry(thing.kind, thing.id, thing.region) for thing in found.objects),
            log_bytes=found.log.size_bytes if found.log else None,
            log_changed=found.log.changed if found.log else None,
        )

    return await asyncio.to_thread(look)


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a JobEntry for what `search.job_fields` gives."""
    fields = {"id": found["name"], "tries": found.get("try"), **found, "state": ShownState(found["state"])}
    for name in ("created", "changed", "since"):
        fields[name] = documents.moment(found.get(name))
    return {name: fields.get(name) for name in _NAMES if name in fields}


_NAMES = {field.name for field in msgspec.structs.fields(JobEntry)}
ROUTES: list[Endpoint] = [
    endpoint("/jobs", list_jobs, Right.SEE_JOBS, query=JobFilter, answer=JobPage, is_polled=True),
    endpoint(
        "/jobs",
        create_job,
        Right.CREATE_JOBS,
        methods=("POST",),
        body=NewJob,
        answer=JobDetails,
        status=201,
        statuses={200: "There is a job of this image already."},
        refusals=(404, 409),
    ),
    endpoint("/jobs/$job", show_job, Right.SEE_JOBS, answer=JobDetails, is_polled=True, refusals=(404,)),
    endpoint("/jobs/$job/kill", kill_job, Right.CHANGE_JOBS, methods=("POST",), answer=JobDetails, refusals=(404,)),
    endpoint(
        "/jobs/$job/retry", retry_job, Right.CHANGE_JOBS, methods=("POST",), answer=JobDetails, refusals=(404, 409)
    ),
]
