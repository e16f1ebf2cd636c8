"""What the server does from time to time by itself: expire, renew, and end what may not go on."""

import asyncio
import contextlib
import datetime

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.jobs import expire
from clouduploader.server.access import PRINCIPAL
from clouduploader.server.network.connections import ConnectionTable, connection_of, is_following
from clouduploader.server.network.tls import TlsContext
from clouduploader.server.replies import RefusalError
from clouduploader.server.state import ServerState

CERTIFICATE_SECONDS = 1.0  # how often to look whether the certificate has changed
ENDED_SECONDS = 15.0  # how often to look whether those may still follow a log who do
EXPIRE_SECONDS = 60.0  # how often old jobs are looked for


async def renew_forever(state: ServerState, connections: ConnectionTable, tls: TlsContext) -> None:
    """Read the certificate again where it has changed, or that was requested, every CERTIFICATE_SECONDS."""
    while True:
        await asyncio.sleep(CERTIFICATE_SECONDS)
        if text := await asyncio.to_thread(tls.load_if_changed):
            connections.end_kept()
            state.log.tell("settings", text=text)


async def end_forever(state: ServerState, connections: ConnectionTable) -> None:
    """End requests that follow a log for a token or session that has ended, every ENDED_SECONDS."""
    while True:
        await asyncio.sleep(ENDED_SECONDS)
        followers: dict[tuple[str | None, str | None], list[web.BaseRequest]] = {}
        for request in filter(is_following, state.requests()):
            if principal := request.get(PRINCIPAL):
                key = (principal.token, principal.session and principal.session.id)
                followers.setdefault(key, []).append(request)
        for requests in followers.values():
            with contextlib.suppress(RefusalError):  # nothing is known
                if await state.gate.has_ended(requests[0][PRINCIPAL]):
                    for request in requests:
                        connections.evict(connection_of(request), "the token or the session of its user has ended")


async def expire_forever(state: ServerState) -> None:
    """Expire jobs whose image does not come, and prune the archive, every EXPIRE_SECONDS."""
    while True:
        for work in (_expire, _expire_images, _prune):  # if one fails, the other is still done
            try:
                await asyncio.to_thread(work, state)
            except ClouduploaderError as exc:
                state.log.tell("trouble", text=exc.message)
        await asyncio.sleep(EXPIRE_SECONDS)


def _expire(state: ServerState) -> None:
    seconds, own = state.settings.expire_seconds, state.receiver.names
    leased = {view.job for view in state.cluster.leases.held()} if state.cluster else frozenset()
    for job in expire.expire(state.jobs, seconds=seconds, waits=state.wait_times, own=own, leased=leased):
        state.log.tell("failed", job=job.name, details=job.details)


def _expire_images(state: ServerState) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for image in state.images.expire(seconds=state.settings.image_seconds, now=now):
        state.log.tell("expired", image=image.id, user=image.owner, bytes=image.offset_bytes, size=image.size_bytes)


def _prune(state: ServerState) -> None:
    days, count = state.settings.archive_days, state.settings.archive_jobs
    state_dir, now = state.config.state.value, state.wait_times.now()
    for name in expire.prune(state.jobs, now=now, max_days=days, max_jobs=count, state_dir=state_dir):
        state.log.tell("pruned", job=name)
