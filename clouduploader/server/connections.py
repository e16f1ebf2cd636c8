"""Connections: how many may be open, who must leave when there are too many, and what is said to nonsense."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod

from clouduploader.server import replies
from clouduploader.server.replies import RefusalError

LOG = logging.getLogger("clouduploader.server")

MAX_IDLE = 10_000  # connections without a request, whatever the limit of open files is
RESERVED = 32  # descriptors for the rest: threads, logs, the job that is just written, clients at the door
ADMITTED = 16  # at a time; asyncio's own way is 512, and to write down as many errors when descriptors run out
PAUSE_SECONDS = 0.1  # before the next try then
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


class Door:
    """Lets clients in, a few at a time, and fewer than there are descriptors.

    Args:
        listener: Where they come; it is closed by the caller.
        connect: Makes what answers one.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], Connection]) -> None:
        self._listener, self._connect = listener, connect
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def open(self) -> None:
        """Begin to let them in."""
        self._timer = None
        self._loop.add_reader(self._listener, self._admit)

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.remove_reader(self._listener)
        if self._timer:
            self._timer.cancel()

    def _admit(self) -> None:
        for _ in range(ADMITTED):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                LOG.warning("nobody can be let in: %s", exc.strerror)
                self.close()
                self._timer = self._loop.call_later(PAUSE_SECONDS, self.open)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._connect, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class Connections:
    """All that are open. Those without a request yet make place for new ones; requests are refused instead.

    Args:
        descriptor_limit: How many files the process may have open.
    """

    def __init__(self, descriptor_limit: int) -> None:
        self._max_requests = max(1, (descriptor_limit - RESERVED) // (SHARE + 1))
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
