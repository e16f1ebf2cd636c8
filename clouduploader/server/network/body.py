"""The body of a request: asked for with 100-continue, and read with a limit and a timeout."""

import asyncio

from aiohttp import web

from clouduploader.server.replies import RefusalError

CONTINUE = "100-continue"
SMALL_SECONDS = 300.0  # for all of a body that is no image: 2 MiB by a line of 64 kbit/s


class TruncatedError(RefusalError):
    """The client went away before the end of a body, or sends no more of it."""

    def __init__(self) -> None:
        super().__init__("Truncated body", status=400, is_coded=True)


def has_body(request: web.BaseRequest) -> bool:
    """Return whether a request has a body, if only an empty one."""
    return "Content-Length" in request.headers or is_chunked(request)


def is_chunked(request: web.BaseRequest) -> bool:
    """Return whether the body comes in chunks, so that its length is not known."""
    return request.headers.get("Transfer-Encoding", "").lower() == "chunked"


def check_expectation(request: web.BaseRequest) -> None:
    """Refuse a request that expects something else than 100-continue.

    Raises:
        RefusalError: It does.
    """
    if request.headers.get("Expect", "").lower() not in ("", CONTINUE):
        raise RefusalError("unknown expect", status=417, is_coded=True)


async def ask_for(request: web.BaseRequest) -> None:
    """Send 100-continue to a client that waits for it."""
    if request.headers.get("Expect"):
        await request.writer.write(b"HTTP/1.1 100 continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does it: nothing of the answer itself was sent


async def read(request: web.BaseRequest, *, limit_bytes: int, idle_seconds: float) -> bytes:
    """Read a small body; what has come of it counts as held by its connection.

    Args:
        request: The request.
        limit_bytes: How many it may have; one whose length says more is not read.
        idle_seconds: How long to wait for the next of them.

    Raises:
        RefusalError: It is too long.
        TruncatedError: The client went away, or sends nothing, or is not done in SMALL_SECONDS.
    """
    if (request.content_length or 0) > limit_bytes:
        raise _too_long(limit_bytes)
    await ask_for(request)
    data = bytearray()  # not a list of pieces: they may have a byte each
    try:
        async with asyncio.timeout(SMALL_SECONDS):
            while piece := await next_piece(request, idle_seconds):
                data += piece
                if len(data) > limit_bytes:
                    raise _too_long(limit_bytes)
    except TimeoutError as exc:
        raise TruncatedError from exc
    return bytes(data)


async def next_piece(request: web.BaseRequest, idle_seconds: float) -> bytes:
    """Return the next bytes of a body; none at its end.

    Raises:
        TruncatedError: The client went away, or sends nothing.
    """
    try:
        if request.transport is None:
            raise ConnectionError
        async with asyncio.timeout(idle_seconds):
            return await request.content.readany()
    except (web.RequestPayloadError, ConnectionError, TimeoutError) as exc:
        raise TruncatedError from exc


def _too_long(limit_bytes: int) -> RefusalError:
    return RefusalError(f"the body is longer than {limit_bytes} bytes", status=413, is_coded=True)
