"""The application: takes a request, finds its route, and turns errors into answers."""

import asyncio
import errno
import time

from aiohttp import typedefs, web

from clouduploader.errors import ClouduploaderError, JobFileError, NoSuchJobError
from clouduploader.server import access, operations, page, replies, routing
from clouduploader.server.access import PRINCIPAL, Kind, Reach, Right
from clouduploader.server.api import endpoint, problems
from clouduploader.server.api.table import ROUTES as API_ROUTES
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.network import body, origin
from clouduploader.server.network.connections import ConnectionTable
from clouduploader.server.network.origin import ORIGIN
from clouduploader.server.obs.routes import ROUTES
from clouduploader.server.replies import RefusalError
from clouduploader.server.signin import guard
from clouduploader.server.signin import routes as signin
from clouduploader.server.state import IS_POLLED, JOB, MIN_TROUBLE, ServerState

OUR_WORDS = frozenset(route.path.split("/")[1] for route in (*operations.ROUTES, *page.ROUTES, *API_ROUTES))
"""With which a path begins that is none of OBS's."""
MAX_FORM_BYTES = 65_536  # the forms of OBS have one field
FORM = "application/x-www-form-urlencoded"
WITH_BODY = ("POST", "PUT", "PATCH")  # of others OBS does not mind what they expect (BSServer.pm)
QUERY_COST = 8  # a byte of a query takes as long to read as so many of a body; measured: up to 1 microsecond
IS_OF_HOST = web.RequestKey("is_of_host", bool)  # of a cluster, which soon asks again on the same connection
CLIENT_GONE = 499  # what nginx writes down for a client that did not wait for the answer


def create_app(state: ServerState, connections: ConnectionTable) -> web.Application:
    """Create the application that answers all requests."""

    @web.middleware  # and no handler: CONNECT and `OPTIONS *` name no path that a route could match
    async def answer(request: web.Request, handler: typedefs.Handler) -> web.StreamResponse:
        began, status, reply = time.monotonic(), 500, None
        request = origin.believe(request, state.settings)
        try:
            with state.answering(request):
                reply = await _answer(state, connections, request)
            if not request.get(IS_OF_HOST) or reply.status >= MIN_TROUBLE:
                reply.force_close()  # one request a connection, as OBS has it
            guard.keep_session(state, request, reply)
            status = reply.status
            return reply
        except (asyncio.CancelledError, ConnectionError):
            status = CLIENT_GONE
            raise
        finally:
            connections.end(request, reply)
            state.record_request(request, status, time.monotonic() - began)

    async def never(_request: web.Request) -> web.StreamResponse:
        raise AssertionError("all is answered before")

    app = web.Application(middlewares=[answer])
    app.router.add_route("*", r"/{path:[\s\S]*}", never, expect_handler=_wait_with_100)
    app.on_response_prepare.append(_set_headers)
    return app


async def _set_headers(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Leave out the headers that OBS does not send; for its routes those are all that it sends."""
    replies.strip_headers(answer)
    if request.path.removeprefix("/").partition("/")[0] in OUR_WORDS:
        replies.harden(answer)
    if request[ORIGIN].is_tls:
        answer.headers["Strict-Transport-Security"] = replies.TLS_ONLY


async def _wait_with_100(_request: web.Request) -> None:
    """Send no 100-continue yet: the body may not be wanted."""


async def _answer(state: ServerState, connections: ConnectionTable, request: web.Request) -> web.StreamResponse:
    try:
        connections.begin(request)
        return await _dispatch(state, connections, request)
    except ClouduploaderError as exc:
        if (way_in := guard.way_in(state, request)) and replies.to_refusal(exc).status == 401:
            return way_in
        return _error(request, exc)
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return _error(request, RefusalError(exc.strerror or "", status=500))


def _error(request: web.Request, error: ClouduploaderError) -> web.Response:
    """Answer with an error, in the form of the API, as a page, or in OBS's."""
    if endpoint.is_below_root(request.raw_path):
        return problems.answer(error)
    refusal = replies.to_refusal(error)
    return page.answer_refusal(refusal) if guard.is_for_page(request) else replies.error(refusal)


async def _dispatch(state: ServerState, connections: ConnectionTable, request: web.Request) -> web.StreamResponse:
    guard.check_host(state, request)
    guard.check_page(state, request)
    is_for_api = endpoint.is_below_root(request.raw_path)
    if request.method not in routing.METHODS and not is_for_api:
        raise RefusalError(f"Bad method: {request.method}", status=501, is_coded=True)
    if request.method in WITH_BODY:
        body.check_expectation(request)
    principal = await state.gate.identify(request)
    request[PRINCIPAL] = principal
    if principal.kind is not Kind.STRANGER:
        connections.admit_principal(request)
    if principal.kind is Kind.USER and principal.user:
        state.request_counts.count(principal.user, most=state.settings.user_requests, now=time.monotonic())
    form = ""
    if request.method == "POST" and not is_for_api and request.headers.get("Content-Type", "").lower() == FORM:
        form = await _form(state, request)

    def find() -> routing.RouteMatch[Handler]:
        path, query = routing.split_target(request.raw_path)
        if is_for_api:
            return endpoint.find(API_ROUTES, request.method, path, query)
        query = "&".join(filter(None, (query, form)))
        return routing.find((*ROUTES, *operations.ROUTES, *page.ROUTES, *signin.ROUTES), request.method, path, query)

    found = await state.parse(QUERY_COST * (len(request.raw_path) + len(form)), find)
    request[JOB], request[IS_POLLED] = found.job, found.is_polled
    guard.check_change(state, request, principal, found.right)
    request[IS_OF_HOST] = found.right is Right.WORK
    owner = principal.user if access.reach(principal, found.right) is Reach.OWN else None
    if owner is not None and found.job:
        _check_owner(state, found.job, owner)
    return await found.handler(RouteCall(state, request, found, principal, owner))


def _check_owner(state: ServerState, name: str, owner: str) -> None:
    """Refuse what is another user's job, in the same way as one that is not there.

    Raises:
        RefusalError: It is not the owner's, or not there.
    """
    try:
        job, _ = state.jobs.read(name)
    except (NoSuchJobError, JobFileError) as exc:
        raise replies.no_such_job() from exc
    if job.user != owner:
        raise replies.no_such_job()


async def _form(state: ServerState, request: web.Request) -> str:
    """Return the fields of a form, which are added to the query."""
    if body.is_chunked(request):
        raise RefusalError("cannot do x-www-form-urlencoded with chunks")
    data = await state.read(request, limit_bytes=MAX_FORM_BYTES)
    return data.decode("utf-8", "surrogateescape")
