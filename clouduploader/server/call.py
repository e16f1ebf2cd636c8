"""A request on its way into a handler, as all routes have it."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from clouduploader.server import routing
from clouduploader.server.access import Principal
from clouduploader.server.state import ServerState
from clouduploader.util.frozen import frozen


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
