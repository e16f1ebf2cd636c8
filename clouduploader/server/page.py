"""The pages for browsers, which ask the API, and answers of bytes, files and JSON. None is OBS's."""

import asyncio
import html
import importlib.resources
import json
import string
from typing import Any

from aiohttp import web

from clouduploader.errors import JobFileError, NoSuchJobError
from clouduploader.model import job_xml
from clouduploader.server import routing
from clouduploader.server.access import Right
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route

JSON = "application/json"
HTML, SCRIPT, STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
PAGES = ("accounts", "job", "jobs", "service", "sign-in", "tokens", "upload")
SCRIPTS = (*PAGES, "base", "form", "log", "tus")
FILES = {f"{name}.js": SCRIPT for name in SCRIPTS} | {"ui.css": STYLE}


async def show_jobs_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page of the list."""
    return answer_page("jobs", "Jobs")


async def show_upload_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page on which a user hands in an image."""
    return answer_page("upload", "Upload an image")


async def show_accounts_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page on which a user manages accounts."""
    return answer_page("accounts", "Accounts")


async def show_tokens_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page on which a user makes and revokes tokens."""
    return answer_page("tokens", "Tokens")


async def show_service_page(_call: RouteCall) -> web.StreamResponse:
    """Answer with the page of administrators."""
    return answer_page("service", "Service")


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
    return answer_page("job", "Job", status=200 if is_found else 404)


async def show_file(call: RouteCall) -> web.StreamResponse:
    """Answer with a script or the style sheet of the pages."""
    name = call.found.parts["file"]
    if name not in FILES:
        raise RefusalError("there is no such file", status=404, is_coded=True)
    return answer_file(f"ui/{name}", FILES[name])


def answer_page(name: str, title: str, *, status: int = 200) -> web.Response:
    """Answer with a page of this package: `NAME.html` in the frame that all have, with the script `NAME.js`."""
    frame, main = (_read(f"ui/{part}.html").decode() for part in ("frame", name))
    return answer(string.Template(frame).substitute(name=name, title=title, main=main).encode(), HTML, status=status)


def answer_refusal(refusal: RefusalError) -> web.Response:
    """Answer the user of a browser with a refusal."""
    text = _read("ui/refusal.html").decode()
    made = answer(
        string.Template(text).substitute(text=html.escape(refusal.message)).encode(), HTML, status=refusal.status
    )
    made.headers.update(refusal.headers)
    return made


def answer_file(name: str, content_type: str, *, status: int = 200) -> web.Response:
    """Answer with a file of this package."""
    return answer(_read(name), content_type, status=status)


def _read(name: str) -> bytes:
    return importlib.resources.files(__package__).joinpath(name).read_bytes()


def answer_json(document: dict[str, Any], *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return answer(json.dumps(document).encode(), JSON, status=status)


def answer(data: bytes, content_type: str, *, status: int = 200) -> web.Response:
    """Answer with bytes; `app` adds the headers that a browser should get."""
    return web.Response(body=data, status=status, headers={"Content-Type": content_type})


FILTERS = (
    Parameter(name="text"),
    Parameter(name="state", is_multiple=True),
    Parameter(name="user"),
    Parameter(name="target"),
)
ROUTES: list[Route[Handler]] = [
    Route(
        path="/ui", handler=show_jobs_page, right=Right.SEE_JOBS, methods=routing.READING, parameters=FILTERS
    ),  # read by its script
    Route(path="/ui/upload", handler=show_upload_page, right=Right.CREATE_JOBS, methods=routing.READING),
    Route(
        path="/ui/accounts",
        handler=show_accounts_page,
        right=Right.KEEP_ACCOUNTS,
        methods=routing.READING,
        parameters=[Parameter(name="user")],
    ),
    Route(path="/ui/tokens", handler=show_tokens_page, right=Right.KEEP_TOKENS, methods=routing.READING),
    Route(path="/ui/service", handler=show_service_page, right=Right.SEE_SERVICE, methods=routing.READING),
    Route(path="/ui/job/$name", handler=show_job_page, right=Right.SEE_JOBS, methods=routing.READING),
    Route(path="/ui/files/$file", handler=show_file, right=Right.GREET, methods=routing.READING),
]
