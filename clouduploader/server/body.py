"""The body of a request: asked for, and read with an end to patience."""

import asyncio

from aiohttp import web

from clouduploader.server.replies import RefusalError

CONTINUE = "100-continue"
MAX_HELD_BYTES = 64_000_000  # of all bodies at once; those of jobs have some KiB


class Budget:
    """How much of all the small bodies together may lie in memory."""

    def __init__(self) -> None:
        self._held_bytes = 0

    def take(self, count: int) -> None:
        """Have so many bytes more.

        Raises:
            RefusalError: That would be too many.
        """
        if self._held_bytes + count > MAX_HELD_BYTES:
            raise RefusalError("too many large requests at once", status=503, is_coded=True)
        self._held_bytes += count

    def give_back(self, count: int) -> None:
        """Have so many bytes less."""
        self._held_bytes -= count


def is_attached(request: web.BaseRequest) -> bool:
    """Whether there is one at all, if only an empty one."""
    return "Content-Length" in request.headers or is_chunked(request)


def is_chunked(request: web.BaseRequest) -> bool:
    """Whether it comes in chunks, so that nobody knows its length."""
    return request.headers.get("Transfer-Encoding", "").lower() == "chunked"


def check_expectation(request: web.BaseRequest) -> None:
    """Refuse a client that waits for something else than to be asked for its body.

    Raises:
        RefusalError: It does.
    """
    if request.headers.get("Expect", "").lower() not in ("", CONTINUE):
        raise RefusalError("unknown expect", status=417, is_coded=True)


async def ask_for(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send the body."""
    if request.headers.get("Expect"):
        await request.writer.write(b"HTTP/1.1 100 continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does it: nothing of the answer itself was sent


async def read(request: web.BaseRequest, *, limit: int, idle_seconds: float, budget: Budget) -> bytes:
    """Read a small body.

    Args:
        request: Whose.
        limit: How many bytes; what comes after them is not read, as in OBS.
        idle_seconds: How long to wait for the next of them.
        budget: What the bytes are taken from while they come.

    Raises:
        RefusalError: The client went away, or sends nothing; or there is too much of others.
    """
    await ask_for(request)
    pieces = []
    left = limit
    try:
        while left:
            piece = (await next_piece(request, idle_seconds))[:left]
            if not piece:
                break
            budget.take(len(piece))
            pieces.append(piece)
            left -= len(piece)
    finally:
        budget.give_back(limit - left)
    return b"".join(pieces)


async def next_piece(request: web.BaseRequest, idle_seconds: float) -> bytes:
    """The next bytes of a body; none at its end.

    Raises:
        RefusalError: The client went away, or sends nothing.
    """
    try:
        async with asyncio.timeout(idle_seconds):
            return await request.content.readany()
    except (web.RequestPayloadError, ConnectionError, TimeoutError) as exc:
        raise RefusalError("Truncated body", status=400, is_coded=True) from exc
