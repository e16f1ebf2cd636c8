"""Routes of the API, which say what they take and give, so that they can be described."""

import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from clouduploader.server import routing
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.call import Handler
from clouduploader.server.replies import RefusalError
from clouduploader.server.routing import Parameter, Route
from clouduploader.util.frozen import frozen

ROOT = "/api/v1"


@frozen(kw_only=True)
class Endpoint(Route[Handler]):
    """A route of the API.

    Attributes:
        query: The parameters; None for none.
        body: The document that it takes; None for none.
        body_type: Of another body; None for none.
        answer: What it gives; None for nothing.
        answer_type: Of that.
        status: Of an answer that is no error.
        statuses: Of others that are none, with their meaning.
        request_headers: Those that it looks at, with their meaning.
        refusals: The statuses of its own errors.
    """

    query: type[documents.Given] | None = None
    body: type[documents.Given] | None = None
    body_type: str | None = None
    answer: Any = None
    answer_type: str = documents.CONTENT_TYPE
    status: int = 200
    statuses: Mapping[int, str] | None = None
    request_headers: Mapping[str, str] | None = None
    refusals: Collection[int] = ()


def endpoint(
    path: str,
    handler: Handler,
    right: Right,
    *,
    methods: Collection[str] = routing.READING,
    query: type[documents.Given] | None = None,
    **described: Any,  # noqa: ANN401 the other attributes of Endpoint
) -> Endpoint:
    """Make a route of the API.

    Args:
        path: Below ROOT.
        handler: See `Route`.
        right: See `Route`.
        methods: See `Route`.
        query: See `Endpoint`.
        described: Other attributes of it.
    """
    names = () if query is None else msgspec.structs.fields(query)
    multiple = set() if query is None else documents.lists(query)
    return Endpoint(
        path=f"{ROOT}{path}",
        handler=handler,
        right=right,
        methods=methods,
        parameters=[Parameter(name=field.name, is_multiple=field.name in multiple) for field in names],
        query=query,
        **described,
    )


def is_below_root(target: str) -> bool:
    """Return whether a request is for the API, and gets its errors in the API's form.

    Args:
        target: As on the wire.
    """
    path = urllib.parse.unquote(target.partition("?")[0])
    return path == ROOT or path.startswith(f"{ROOT}/")


def find(routes: Sequence[Endpoint], method: str, path: str, query: str) -> routing.RouteMatch[Handler]:
    """Find the route of a request for the API; see `routing.find`.

    Raises:
        RefusalError: There is no such path, or it does not know the method, or the query.
    """
    stripped = path.rstrip("/")
    known = [name for route in routes if route.match(stripped) for name in route.methods]
    if not known:
        raise RefusalError("there is nothing of that name", status=404)
    if method not in known:
        raise RefusalError(f"{method} is not for this", status=405, headers={"Allow": ", ".join(known)})
    return routing.find(routes, method, path, query)
