"""A job's log: any part of it, and what is written to it as it is written."""

import asyncio
import os
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from clouduploader.jobs import log as jobs_log
from clouduploader.server import logs, replies
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.logs import FollowedLog
from clouduploader.server.network import connections
from clouduploader.server.replies import RefusalError

ALIVE_SECONDS = 15.0  # so often something is sent: a proxy between closes a connection that is quiet for a minute
TEXT_TYPE = "text/plain; charset=utf-8"
EVENTS_TYPE = "text/event-stream"


class LogEvent(documents.Document):
    """The data of an event `log`: the next lines."""

    text: Annotated[str, Meta(description="Whole lines, but for the last of a job that is over.")]


class JobEvent(documents.Document):
    """The data of an event `job`: what has changed of the job; and of `end`, after which nothing comes."""

    state: str | None
    details: str | None
    progress: int | None


async def show_log(call: RouteCall) -> web.StreamResponse:
    """Send what there is of a job's log, or a range of its bytes."""
    request = call.request
    log = await asyncio.to_thread(jobs_log.open_log, call.state.jobs, call.found.job)
    if log is None:
        raise RefusalError("the job has no log", status=404)
    with log:
        size = os.fstat(log.fileno()).st_size
        try:
            wanted = request.http_range
        except ValueError:
            raise _out_of_range(size) from None
        start, end, _ = wanted.indices(size)
        is_part = wanted.start is not None
        if is_part and (start >= size or end <= start):
            raise _out_of_range(size)
        answer = web.StreamResponse(status=206 if is_part else 200)
        answer.headers.update({"Content-Type": TEXT_TYPE, "Accept-Ranges": "bytes", **documents.HEADERS})
        if is_part:
            answer.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        answer.content_length = end - start
        answer.force_close()
        await answer.prepare(request)
        if request.method != "HEAD":
            await logs.copy(request, answer, log.fileno(), start, end)
        await answer.write_eof()
        return answer


def _out_of_range(size: int) -> RefusalError:
    return RefusalError(
        f"the log has {size} bytes, and none of those", status=416, headers={"Content-Range": f"bytes */{size}"}
    )


async def follow_log(call: RouteCall) -> web.StreamResponse:
    """Send a job's log as it grows, and the job's changes, as server-sent events until the job is over."""
    request = call.request
    last = request.headers.get("Last-Event-ID", "0")
    if not (last.isascii() and last.isdigit() and len(last) < 19):
        raise RefusalError("Last-Event-ID must be a number of bytes")
    with call.state.logs.follow(call.found.job) as followed:
        if followed.job is None:
            raise replies.no_such_job()
        answer = web.StreamResponse()
        answer.headers.update({"Content-Type": EVENTS_TYPE, **documents.HEADERS})
        if request.version >= (1, 1):
            answer.enable_chunked_encoding()
        answer.force_close()
        await answer.prepare(request)
        await _Events(call, answer, followed, int(last)).send()
        await answer.write_eof()
        return answer


class _Events:
    """The events of one follower.

    Args:
        call: The request.
        answer: Gets them.
        followed: What is followed.
        position: The byte of the log behind those that the client has.
    """

    def __init__(self, call: RouteCall, answer: web.StreamResponse, followed: FollowedLog, position: int) -> None:
        self._call = call
        self._connection = connections.connection_of(call.request)
        self._logs = call.state.logs
        self._answer, self._followed, self._position = answer, followed, position

    async def send(self) -> None:
        """Send all that happens until the job is over."""
        followed, told, descriptor = self._followed, None, self._followed.descriptor
        while True:
            # First the state, then the log: what was written before the end is not missed.
            changes, latest, job, is_growing = followed.changes, followed.descriptor, followed.job, followed.is_growing
            public = replies.public_job(job) if job else None
            now = JobEvent(
                state=str(public.state) if public else None,
                details=public.details if public else None,
                progress=public.progress if public else None,
            )
            is_over = job is None or (job.state.is_final and not is_growing)
            if descriptor is None:
                descriptor = latest
            if descriptor is not None:
                await self._send_log(descriptor, is_all=is_over and descriptor == latest)
            if descriptor != latest:  # another log took its place
                descriptor, self._position = latest, 0
                await self._tell("restart", None)
                continue
            if now != told and not is_over:
                await self._tell("job", now)
                told = now
            if is_over:
                await self._tell("end", now)
            if is_over or self._logs.is_closing:
                return
            try:
                async with asyncio.timeout(ALIVE_SECONDS):
                    await followed.changed(changes)
            except TimeoutError:
                await self._connection.send(self._answer, b": alive\n\n")

    async def _send_log(self, descriptor: int, *, is_all: bool) -> None:
        """Send what is new in a log: whole lines, or all of it."""
        if self._position > os.fstat(descriptor).st_size:
            self._position = 0
            await self._tell("restart", None)
        while block := os.pread(descriptor, logs.BLOCK_BYTES, self._position):
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < logs.BLOCK_BYTES and not is_all:
                    return
                end = len(block)
            self._position += end
            await self._tell("log", LogEvent(text=block[:end].decode(errors="replace")))

    async def _tell(self, kind: str, data: Any) -> None:  # noqa: ANN401 a document, or None
        lines = f"event: {kind}\nid: {self._position}\ndata: ".encode() + msgspec.json.encode(data)
        await self._connection.send(self._answer, lines + b"\n\n")


ROUTES: list[Endpoint] = [
    endpoint(
        "/jobs/$job/log",
        show_log,
        Right.SEE_JOBS,
        answer_type="text/plain",
        statuses={206: "The range that was asked for."},
        request_headers={"Range": "Which bytes, such as `bytes=100-`."},
        refusals=(404, 416),
        is_polled=True,
    ),
    endpoint(
        "/jobs/$job/log/events",
        follow_log,
        Right.SEE_JOBS,
        methods=("GET",),
        answer_type=EVENTS_TYPE,
        request_headers={"Last-Event-ID": "The id of the last event that has come: go on behind it."},
        refusals=(404,),
        is_polled=True,
    ),
]
