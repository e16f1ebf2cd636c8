"""The description of the API, OpenAPI 3.1: made of its routes, their documents, and their handlers' first lines."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

import clouduploader
from clouduploader.server import routing
from clouduploader.server.access import Right
from clouduploader.server.api import documents, problems
from clouduploader.server.api.endpoint import ROOT, Endpoint, endpoint
from clouduploader.server.call import RouteCall

TEMPLATE = "#/components/schemas/{name}"
REFUSALS = {
    400: "The request makes no sense.",
    401: "A token is needed, or is wrong.",
    403: "The one who asks has not got the right.",
    404: "There is nothing of that name, or it is another user's.",
    405: "The method is not for this.",
    409: "It can't be done as things are.",
    412: "The version of tus is another one.",
    413: "The body is too long, or the image too large for the user.",
    415: "The body is of another type.",
    416: "There are no such bytes.",
    417: "What is expected is not known.",
    422: "The body or the query is not as it should be.",
    429: "The user sends too many requests, or has too much here.",
    460: "What came is not what was sent.",
    500: "The server has failed.",
    503: "The server has too much to do, or the thing is being changed.",
    507: "The disk is full.",
}
COMMON = (400, 401, 403, 422, 429, 500, 503, 507)
OF_BODIES = (413, 415, 417)
DESCRIPTION = (
    "The API of `clouduploader serve`. A user sees and changes what is that user's own; what is another's is answered "
    "like what is not there. Every error is a problem of RFC 9457 with a code for programs."
)


def describe(routes: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the description of routes."""
    kinds = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    queries = [route.query for route in routes if route.query]
    references, schemas = msgspec.json.schema_components([problems.Problem, *kinds, *queries], ref_template=TEMPLATE)
    known = dict(zip([problems.Problem, *kinds, *queries], references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path, names = _path(route.path)
        item = paths.setdefault(path, {})
        if names:
            item["parameters"] = [_in_path(name) for name in names]
        for method in route.methods:
            item[method.lower()] = _operation(route, method, known, schemas)
    for query in queries:
        schemas.pop(query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "clouduploader",
            "version": clouduploader.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: _tidy(schema) for name, schema in sorted(schemas.items())},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


async def show_description(_call: RouteCall) -> web.StreamResponse:
    """Describe the API, as OpenAPI 3.1."""
    from clouduploader.server.api.table import ROUTES  # of which this is one

    return documents.answer(describe(ROUTES))


def _path(template: str) -> tuple[str, list[str]]:
    """Return a route's path as OpenAPI has it, and the names in it."""
    return re.sub(r"\$(\w+)", r"{\1}", template), re.findall(r"\$(\w+)", template)


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _operation(
    route: Endpoint, method: str, known: Mapping[Any, Mapping[str, Any]], schemas: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Describe what one method of a route does."""
    summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
    name = route.handler.__name__
    parameters = [*_in_query(route.query, schemas), *_in_headers(route.request_headers or {})]
    operation: dict[str, Any] = {
        "operationId": name if method not in routing.READING or method == "GET" else f"{name}_head",
        "summary": summary,
        "tags": [route.path.removeprefix(ROOT).split("/")[1]],
        "description": f"Needs the right to {route.right}.",
    }
    successes = (route.status, *(route.statuses or ()))
    operation["responses"] = {str(status): _response(route, status, known) for status in successes}
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = {
            "required": True,
            "content": {documents.CONTENT_TYPE: {"schema": known[route.body]}},
        }
    elif route.body_type:
        operation["requestBody"] = {"content": {route.body_type: {"schema": {"type": "string", "format": "binary"}}}}
    problem = {"schema": known[problems.Problem]}
    of_body = OF_BODIES if route.body or route.body_type else (417,) if method == "POST" else ()
    for status in sorted({*COMMON, *route.refusals, *of_body}):
        content = {} if method == "HEAD" else {"content": {problems.CONTENT_TYPE: problem}}
        operation["responses"][str(status)] = {"description": REFUSALS[status], **content}
    return operation


def _response(route: Endpoint, status: int, known: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": (route.statuses or {}).get(status, "It is done.")}
    if route.answer is not None and "HEAD" not in route.methods[:1]:  # type: ignore[index]
        described["content"] = {route.answer_type: {"schema": known[route.answer]}}
    elif route.answer_type != documents.CONTENT_TYPE:
        described["content"] = {route.answer_type: {}}
    return described


def _in_query(query: type[documents.Given] | None, schemas: Mapping[str, Mapping[str, Any]]) -> Iterable[Any]:
    if query is None:
        return
    whole = schemas[query.__name__]
    for name, schema in whole["properties"].items():
        described, schema = schema.get("description", ""), _tidy(schema)
        schema.pop("description", None)
        is_required = name in whole.get("required", ())
        yield {"name": name, "in": "query", "required": is_required, "description": described, "schema": schema}


def _in_headers(headers: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    for name, meaning in headers.items():
        yield {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}


def _tidy(node: Any) -> Any:  # noqa: ANN401 JSON
    """Return a schema without what says nothing: titles that are names, and a null that a query can't have."""
    if isinstance(node, list):
        return [_tidy(member) for member in node]
    if not isinstance(node, dict):
        return node
    return {name: _tidy(member) for name, member in node.items() if name != "title" or not isinstance(member, str)}


ROUTES: list[Endpoint] = [endpoint("/openapi.json", show_description, Right.GREET)]
