"""What the API takes and gives: JSON documents, whose classes say what is in them.

They are msgspec's: from one class come the check of what a client sends, with the place of a mistake in its message,
what is sent, and the JSON Schema in the description. It is one quick module without dependencies.
"""

import contextlib
import datetime
import typing
import urllib.parse
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from clouduploader.model import job_xml
from clouduploader.server.call import RouteCall
from clouduploader.server.job_changes import MAX_SKELETON_BYTES, MAX_TEXT_CHARS
from clouduploader.server.replies import RefusalError

CONTENT_TYPE = "application/json"
HEADERS = {"Cache-Control": "no-store"}

Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Filled = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
Time = Annotated[datetime.datetime, Meta(tz=True)]
Bytes = Annotated[int, Meta(ge=0, lt=10**job_xml.MAX_DIGITS)]


class Document(msgspec.Struct):
    """What the server gives."""


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """What a client gives: as a body, or as the parameters of a query."""


Wanted = TypeVar("Wanted", bound=Given)


async def read(call: RouteCall, kind: type[Wanted]) -> Wanted:
    """Read the body of a request.

    Raises:
        RefusalError: It is no such document, too long, or broken off.
    """
    if call.request.content_type != CONTENT_TYPE:
        raise RefusalError(f"the body must be {CONTENT_TYPE}", status=415)
    data = await call.state.read(call.request, limit_bytes=MAX_SKELETON_BYTES)
    return await call.state.parse(len(data), lambda: _parsed(data, kind))


def _parsed(data: bytes, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as exc:
        raise RefusalError(f"the body is not as it should be: {exc}", status=422) from None
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RefusalError(f"the body is no JSON: {exc}") from None


def query(call: RouteCall, kind: type[Wanted]) -> Wanted:
    """Return the parameters of a request.

    Raises:
        RefusalError: One is not as it should be.
    """
    given: dict[str, Any] = {
        name: values if name in lists(kind) else values[0] for name, values in call.found.values.items()
    }
    for field in msgspec.structs.fields(kind):
        if field.name in given and _is_read(field.type):
            with contextlib.suppress(msgspec.ValidationError):  # what is none is refused below
                given[field.name] = msgspec.convert(given[field.name], field.type, strict=False)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as exc:
        raise RefusalError(f"the query is not as it should be: {exc}", status=422) from None


def _is_read(kind: Any) -> bool:  # noqa: ANN401 a type
    """Return whether a parameter is read from its text: numbers and booleans alone, for a number is no time."""
    return (typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind) in (int, bool)


def lists(kind: type[Given]) -> set[str]:
    """Return the names of those parameters that a query may have more than once."""
    return {field.name for field in msgspec.structs.fields(kind) if field.default == ()}


def answer(document: object, *, status: int = 200, location: str | None = None) -> web.Response:
    """Answer with a document.

    Args:
        document: Of a class of ours, or of what JSON knows.
        status: Of the answer.
        location: Where the thing is that was made: a path from the root, unquoted; None if none was.
    """
    headers = {"Content-Type": CONTENT_TYPE, **HEADERS}
    if location:
        headers["Location"] = urllib.parse.quote(location)
    return web.Response(body=msgspec.json.encode(document), status=status, headers=headers)


def nothing() -> web.Response:
    """Answer that it is done, and that there is nothing to say of it."""
    return web.Response(status=204, headers=HEADERS)


def moment(seconds: float | None) -> datetime.datetime | None:
    """Return a time in s since the epoch; None for None, and for a number that is no time."""
    try:
        return None if seconds is None else datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return None
