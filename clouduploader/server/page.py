"""The web page, and the requests of its script: jobs by search, one job, pieces of its log. None is OBS's."""

import asyncio
import importlib.resources
import json
import os
import time
from typing import Any

from aiohttp import web

from clouduploader.errors import JobFileError, NoSuchJobError
from clouduploader.jobs import list as jobs_list
from clouduploader.jobs import log as jobs_log
from clouduploader.model import job_xml
from clouduploader.server import replies, routing, search
from clouduploader.server.access import Right
from clouduploader.server.replies import RefusalError
from clouduploader.server.routes import Handler, RouteCall
from clouduploader.server.routing import Parameter, Route

DEFAULT_JOBS = 50
MAX_LOG_BYTES = 262_144  # of a log, in one answer
JSON = "application/json"
BYTES = "application/octet-stream"
HTML, SCRIPT, STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
FILES = {"base.js": SCRIPT, "job.js": SCRIPT, "jobs.js": SCRIPT, "sign-in.js": SCRIPT, "ui.css": STYLE}


async def show_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page of the list."""
    return answer_file("ui/index.html", HTML)


async def show_job_page(call: RouteCall) -> web.StreamResponse:
    """Answer with the page of one job; it says itself if there is none, as for one of another user."""
    jobs, name = call.state.jobs, call.found.parts["name"]

    def is_there() -> bool:
        try:
            job, _ = jobs.read(name)
        except NoSuchJobError:
            return False
        except JobFileError:
            return call.owner is None
        return call.owner in (None, job.user)

    is_found = bool(job_xml.NAME.fullmatch(name)) and await asyncio.to_thread(is_there)
    return answer_file("ui/job.html", HTML, status=200 if is_found else 404)


async def show_file(call: RouteCall) -> web.StreamResponse:
    """Answer with a script or the style sheet of the pages."""
    name = call.found.parts["file"]
    if name not in FILES:
        raise RefusalError("there is no such file", status=404, is_coded=True)
    return answer_file(f"ui/{name}", FILES[name])


async def find_jobs(call: RouteCall) -> web.StreamResponse:
    """Answer with the jobs that match a search, as JSON."""
    value = call.found.value
    wanted = search.JobSearch(
        words=(value("q") or "").split(),
        states=call.found.values.get("state", ()),
        users=list(filter(None, [value("user")])),
        targets=list(filter(None, [value("target")])),
    )
    before = value("before")
    async with call.state.searching:
        found = await asyncio.to_thread(
            search.find,
            call.state.jobs,
            wanted,
            before=None if before is None else routing.to_integer(before),
            owner=call.owner,
            limit=max(1, routing.to_integer(value("limit") or str(DEFAULT_JOBS))),
        )
    return answer_json({"now": int(time.time()), "total": found.total, "jobs": found.jobs, "before": found.before})


async def show_job(call: RouteCall) -> web.StreamResponse:
    """Answer with one job, and the length of its log, as JSON."""
    jobs, name = call.state.jobs, call.found.job

    def read() -> dict[str, Any]:
        try:
            entry = jobs_list.ListedJob(name, *jobs.read(name))
        except NoSuchJobError as exc:
            raise replies.no_such_job() from exc
        except JobFileError as exc:
            entry = jobs_list.ListedJob(name, None, jobs.is_archived(name), exc.message)
        log = jobs_log.open_log(jobs, name)
        about = None
        if log:
            with log:
                status = os.fstat(log.fileno())
            about = {"size": status.st_size, "id": str(status.st_ino)}
        return {"now": int(time.time()), "job": search.job_fields(jobs, entry), "log": about}

    return answer_json(await asyncio.to_thread(read))


async def show_log(call: RouteCall) -> web.StreamResponse:
    """Answer with a piece of a job's log, from what there is now."""
    name, start = call.found.job, routing.to_integer(call.found.value("start") or "0")

    def read() -> bytes:
        log = jobs_log.open_log(call.state.jobs, name)
        if log is None:
            raise replies.no_such_job()
        with log:
            size = os.fstat(log.fileno()).st_size
            return os.pread(log.fileno(), MAX_LOG_BYTES, min(start, size))

    return answer(await asyncio.to_thread(read), BYTES)


def answer_file(name: str, content_type: str, *, status: int = 200) -> web.Response:
    """Answer with a file of this package."""
    data = importlib.resources.files(__package__).joinpath(name).read_bytes()
    return answer(data, content_type, status=status)


def answer_json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return answer(json.dumps(document).encode(), JSON, status=status)


def answer(data: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """Answer with bytes; `app` adds the headers that a browser should get."""
    made = web.Response(body=data, status=status, headers={"Content-Type": content_type})
    made.force_close()  # as all answers of this server
    return made


FILTERS = (
    Parameter(name="q"),
    Parameter(name="state", is_multiple=True),
    Parameter(name="user"),
    Parameter(name="target"),
)
ROUTES: list[Route[Handler]] = [
    Route(
        path="/ui", handler=show_page, right=Right.SEE_JOBS, methods=routing.READING, parameters=FILTERS
    ),  # read by its script
    Route(path="/ui/job/$name", handler=show_job_page, right=Right.SEE_JOBS, methods=routing.READING),
    Route(path="/ui/files/$file", handler=show_file, right=Right.GREET, methods=routing.READING),
    Route(
        path="/ui/jobs",
        handler=find_jobs,
        right=Right.SEE_JOBS,
        methods=routing.READING,
        parameters=(
            *FILTERS,
            Parameter(name="before", check=routing.check_number),
            Parameter(name="limit", check=routing.check_number),
        ),
        is_polled=True,
    ),
    Route(path="/ui/jobs/$job", handler=show_job, right=Right.SEE_JOBS, methods=routing.READING, is_polled=True),
    Route(
        path="/ui/jobs/$job/log",
        handler=show_log,
        right=Right.SEE_JOBS,
        methods=routing.READING,
        parameters=[Parameter(name="start", check=routing.check_number)],
        is_polled=True,
    ),
]
