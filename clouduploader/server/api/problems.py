"""Errors of the API: one form for all, RFC 9457, with a code for programs."""

import http
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from clouduploader import errors
from clouduploader.errors import ClouduploaderError
from clouduploader.server import replies
from clouduploader.server.api import documents
from clouduploader.server.replies import RefusalError

CONTENT_TYPE = "application/problem+json"
STATUSES: Mapping[type[ClouduploaderError], int] = {
    errors.NotFoundError: 404,
    errors.CannotCreateError: 409,
    errors.JobStateError: 409,
    errors.DataError: 422,
    errors.DeniedError: 422,
    errors.PlatformReplyError: 422,
    errors.UnavailableError: 422,
    errors.UsageError: 422,
    errors.TransientError: 503,
}
"""What is answered for errors of these classes and of those made from them; for all others 500."""
CODES = {
    400: "bad_request",
    401: "no_token",
    403: "forbidden",
    404: "not_found",
    405: "bad_method",
    409: "conflict",
    412: "bad_version",
    413: "too_large",
    415: "bad_type",
    416: "bad_range",
    417: "bad_expectation",
    421: "bad_host",
    422: "invalid",
    429: "too_many",
    460: "bad_checksum",
    500: "server_error",
    501: "bad_method",
    503: "busy",
    507: "no_space",
}
"""What a refusal is called that no error has a name for."""
REASONS = {460: "Checksum Mismatch"}  # of tus
_NO_SPACE = re.compile("No space left on device|Disk quota exceeded")
_HUMP = re.compile("(?<!^)(?=[A-Z])")


class Problem(documents.Document):
    """Why a request was not done (RFC 9457)."""

    title: Annotated[str, Meta(description="What the status means.")]
    status: Annotated[int, Meta(description="Of the answer.")]
    code: Annotated[str, Meta(description="What it is, for programs: the same in later versions.")]
    detail: Annotated[str, Meta(description="What it is, in a sentence for people.")]
    hint: Annotated[str | None, Meta(description="What to do about it.")] = None


def answer(error: ClouduploaderError) -> web.Response:
    """Return the answer for a request that failed."""
    status, code = status_of(error), code_of(error)
    problem = Problem(
        title=_reason(status),
        status=status,
        code=code,
        detail=replies.without_directories(error.message),
        hint=error.hint and replies.without_directories(error.hint),
    )
    headers = {"Content-Type": CONTENT_TYPE, **documents.HEADERS}
    if isinstance(error, RefusalError):
        headers.update(error.headers)
    return web.Response(body=msgspec.json.encode(problem), status=status, reason=_reason(status), headers=headers)


def status_of(error: ClouduploaderError) -> int:
    """Return the status for an error."""
    if _NO_SPACE.search(error.message):
        return 507
    if isinstance(error, RefusalError):
        return error.status
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def code_of(error: ClouduploaderError) -> str:
    """Return the code of an error: by its class, or its status."""
    if isinstance(error, RefusalError):
        return CODES[status_of(error)]
    return _HUMP.sub("_", type(error).__name__.removesuffix("Error")).lower()


def _reason(status: int) -> str:
    return REASONS.get(status) or http.HTTPStatus(status).phrase
