"""Logs of jobs over HTTP, followed while they grow: one poll for all followers of a log, and no threads."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from aiohttp import web

from clouduploader.errors import JobFileError, LocalIOError, NoSuchJobError
from clouduploader.jobs import log as jobs_log
from clouduploader.model.job import Details, Job, JobState
from clouduploader.server import replies
from clouduploader.server.network import connections
from clouduploader.server.replies import RefusalError
from clouduploader.store import spool
from clouduploader.util import processes

POLL_SECONDS = 0.25  # OBS looks once a second
BLOCK_BYTES = 65_536
GROWING = (JobState.SCHEDULED, JobState.UPLOADING, JobState.WAITING)


class FollowedLog:
    """A job whose log is followed, as all its followers see it.

    Attributes:
        job: As of the last `refresh`; None if it is gone or damaged.
        descriptor: Its log; None if there is none yet. Another one if another log took its place; the first stays open.
        size: Of the log.
        is_growing: Whether an uploader writes the log, or will; also one that was killed, and cleans up.
        changes: How often any of these changed.
    """

    def __init__(self, jobs: spool.Spool, name: str) -> None:
        self.job: Job | None = None
        self.descriptor: int | None = None
        self.size = 0
        self.is_growing = False
        self._jobs, self._name = jobs, name
        self._logs: list[BinaryIO] = []
        self._seen: tuple[int, int] | None = None
        self._changed = asyncio.Event()
        self.changes = 0

    def refresh(self) -> None:
        """Look at job and log, and wake the followers if something changed."""
        before = self._facts()
        seen = self._signature()
        if self.job is None or seen is None or seen != self._seen:
            self._seen = seen
            try:
                self.job = self._jobs.read(self._name)[0]
            except (NoSuchJobError, JobFileError, LocalIOError):
                self.job = None
        self.is_growing = self._is_written()  # before the size: what was written before the end is not missed
        with contextlib.suppress(LocalIOError):
            self._open()
        if self.descriptor is not None:
            self.size = os.fstat(self.descriptor).st_size
        if before != self._facts():
            self.wake()

    def _facts(self) -> tuple[object, ...]:
        """Return what followers wait for a change of."""
        return self.job, self.is_growing, self.descriptor, self.size

    def _is_written(self) -> bool:
        if self.job is None or self.job.state in GROWING:
            return self.job is not None
        return self.job.details == Details.KILLED and processes.is_locked(self._jobs.done_log_path(self._name))

    def _open(self) -> None:
        """Open the log if there is one that is not open yet."""
        if self.descriptor is not None:
            try:
                there = self._jobs.log_path(self._name).stat()
            except OSError:
                return  # it was archived, and is the same
            if os.path.samestat(there, os.fstat(self.descriptor)):
                return
        if log := jobs_log.open_log(self._jobs, self._name):
            self._logs.append(log)
            self.descriptor = log.fileno()

    def _signature(self) -> tuple[int, int] | None:
        """Return what differs between versions of a running job's file, which is replaced and never written."""
        try:
            status = self._jobs.job_path(self._name).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def wake(self) -> None:
        """Wake all followers."""
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, changes: int) -> None:
        """Wait until something has changed.

        Args:
            changes: The number of changes before the caller looked.
        """
        if self.changes == changes:
            await self._changed.wait()

    def close(self) -> None:
        """Close the log."""
        self.descriptor = None
        for log in self._logs:
            log.close()


class FollowedLogs:
    """All logs that are followed.

    Args:
        jobs: The spool.
    """

    def __init__(self, jobs: spool.Spool) -> None:
        self._jobs = jobs
        self._followed: dict[str, tuple[FollowedLog, int]] = {}
        self._is_closing = False

    @property
    def is_closing(self) -> bool:
        """Whether all answers are to end."""
        return self._is_closing

    def close(self) -> None:
        """End the answers of all followers."""
        self._is_closing = True
        for followed, _ in self._followed.values():
            followed.wake()

    async def refresh_forever(self) -> None:
        """Refresh each of them, every POLL_SECONDS."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for followed, _ in list(self._followed.values()):
                followed.refresh()

    @contextlib.contextmanager
    def follow(self, name: str) -> Iterator[FollowedLog]:
        """Follow a job's log inside the block; yields what all its followers share, just refreshed."""
        followed, count = self._followed.get(name) or (FollowedLog(self._jobs, name), 0)
        self._followed[name] = (followed, count + 1)
        try:
            followed.refresh()
            yield followed
        finally:
            followed, count = self._followed[name]
            if count > 1:
                self._followed[name] = (followed, count - 1)
            else:
                del self._followed[name]
                followed.close()

    async def answer(
        self,
        request: web.BaseRequest,
        name: str,
        *,
        start: int,
        end: int | None,
        is_stream: bool,
        view: str | None,
    ) -> web.StreamResponse:
        """Answer a request for a log.

        Args:
            request: The request.
            name: The job.
            start: The first byte; negative, from the end.
            end: The byte after the last; None for all.
            is_stream: Whether to follow it to the end of a job that is not over; else the first new bytes will do.
            view: "entry" for its size and time; any other text for what there is now.

        Raises:
            RefusalError: There is no such job, or log, or byte.
        """
        job = self._job(name)
        if job.state.is_final or view:
            return await self._whole(request, name, start, end, view)
        with self.follow(name) as followed:
            if request.method != "HEAD":
                await self._wait_for_bytes(followed, start, end, is_stream=is_stream)
            if followed.descriptor is None:
                raise replies.no_such_file(self._jobs.log_path(name))
            start, end = _range(followed.size, start, end)
            answer = replies.stream(request)
            await answer.prepare(request)
            if request.method != "HEAD":
                await self._send(request, answer, followed, start, end, is_stream=is_stream)
            await answer.write_eof()
            return answer

    def _job(self, name: str) -> Job:
        try:
            return self._jobs.read(name)[0]
        except (NoSuchJobError, JobFileError) as exc:
            raise replies.no_such_job() from exc

    async def _wait_for_bytes(self, followed: FollowedLog, start: int, end: int | None, *, is_stream: bool) -> None:
        """Wait for a log if the job has yet to get one, and for its first byte if the client asked for that."""
        while followed.job is not None and not followed.job.state.is_final and not self._is_closing:
            changes = followed.changes
            if followed.descriptor is not None:
                first, last = _range(followed.size, start, end)
                if is_stream or first < followed.size or (last is not None and last <= first):
                    return
            elif followed.job.state not in (JobState.CREATED, JobState.RECEIVING):
                return
            await followed.changed(changes)

    async def _send(
        self,
        request: web.BaseRequest,
        answer: web.StreamResponse,
        followed: FollowedLog,
        start: int,
        end: int | None,
        *,
        is_stream: bool,
    ) -> None:
        """Send a log from one byte to another, or to the end of the job; then all of one that took its place."""
        descriptor = followed.descriptor
        while descriptor is not None:
            # First the state, then the bytes: none that came before the end is missed.
            changes, is_growing, latest = followed.changes, followed.is_growing, followed.descriptor
            start += await copy(request, answer, descriptor, start, end)
            if is_stream and descriptor != latest:
                descriptor, start = latest, 0
                continue
            if not is_stream or not is_growing or self._is_closing or (end is not None and start >= end):
                return
            await followed.changed(changes)

    async def _whole(
        self, request: web.BaseRequest, name: str, start: int, end: int | None, view: str | None
    ) -> web.StreamResponse:
        """Answer with what there is of a log, or with its size and time."""
        log = jobs_log.open_log(self._jobs, name)
        if log is None:
            raise replies.no_such_file(self._jobs.log_path(name))
        with log:
            status = os.fstat(log.fileno())
            if view == "entry":
                entry = f'  <entry name="_log" size="{status.st_size}" mtime="{int(status.st_mtime)}" />\n'
                return replies.xml(f"<directory>\n{entry}</directory>\n".encode())
            start, last = _range(status.st_size, start, end)
            last = status.st_size if last is None else max(start, min(last, status.st_size))
            answer = replies.text_of(last - start)
            await answer.prepare(request)
            if request.method != "HEAD":
                await copy(request, answer, log.fileno(), start, last)
            await answer.write_eof()
            return answer


async def copy(
    request: web.BaseRequest, answer: web.StreamResponse, descriptor: int, start: int, end: int | None
) -> int:
    """Send what there is of a log from one byte to another.

    Returns:
        How many bytes.
    """
    position = start
    while block := os.pread(descriptor, BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - position), position):
        await connections.connection_of(request).send(answer, block)
        position += len(block)
    return position - start


def _range(size: int, start: int, end: int | None) -> tuple[int, int | None]:
    """Return where to begin and end in a log of that size.

    Raises:
        RefusalError: It does not have the first byte, nor ends just before it.
    """
    if start < 0:
        start = max(0, size + start)
    if start > size:
        raise RefusalError(f"start out of range: {start}")
    return start, None if end is None else max(start, end)
