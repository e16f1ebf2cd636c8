"""Connections: how many may be open, who must leave when there are too many, and what is said to nonsense."""

import logging

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod

from clouduploader.server import replies
from clouduploader.server.replies import RefusalError

LOG = logging.getLogger("clouduploader.server")

MAX_IDLE = 10_000  # connections without a request, whatever the limit of open files is
SHARE = 3  # a request may need three descriptors: its connection twice, while an image comes, and a file


class Connection(web.RequestHandler):
    """One connection, whose errors are in XML like all others."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or what we fail at by a fault of our own."""
        if status < 500:
            LOG.info("malformed request from %s: %s", request.remote, type(exc).__name__)
            if isinstance(exc, BadHttpMethod):
                return replies.error(RefusalError("Bad method", status=501, is_coded=True))
            what = (message or "").partition("\n")[0].rstrip(":")  # the other lines show the bytes
            return replies.error(RefusalError(f"malformed request: {what}", status=status, is_coded=True))
        LOG.error("fault in answering %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer was sent already")
        return replies.error(RefusalError("internal error", status=status, is_coded=True))


class Connections:
    """All that are open. Those without a request yet make place for new ones; requests are refused instead.

    Args:
        descriptor_limit: How many files the process may have open.
    """

    def __init__(self, descriptor_limit: int) -> None:
        self._max_requests = max(1, descriptor_limit // (SHARE + 1))
        self._max_idle = min(self._max_requests, MAX_IDLE)
        self._idle: dict[web.RequestHandler, None] = {}  # the oldest first
        self._requests = 0

    def admit(self, handler: Connection) -> Connection:
        """Know of a new connection; the oldest that said nothing yet is closed if there are too many."""
        if len(self._idle) >= self._max_idle:
            self.forget_ended()
        if len(self._idle) >= self._max_idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.force_close()
        self._idle[handler] = None
        return handler

    def forget_ended(self) -> None:
        """Forget those that went away without a request."""
        for handler in [handler for handler in self._idle if not handler.connected]:
            del self._idle[handler]

    def begin(self, handler: web.RequestHandler) -> None:
        """A request came in; `end` is to be called in any case.

        Raises:
            RefusalError: There are too many.
        """
        self._idle.pop(handler, None)
        self._requests += 1
        if self._requests > self._max_requests:
            raise RefusalError("too many requests at once", status=503, is_coded=True)

    def end(self) -> None:
        """A request was answered."""
        self._requests -= 1
