"""What the hosts of a cluster ask the server for, and what administrators see of them."""

import asyncio
import contextlib
import datetime
import functools
from collections.abc import Mapping
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta

from clouduploader.cluster import protocol
from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.cluster.dispatch.hosts import GREET_SECONDS, Greeting, Host
from clouduploader.cluster.dispatch.leases import Claim, ClaimAnswer, LeaseView, StaleError
from clouduploader.cluster.settings import LIMITS, NAME
from clouduploader.errors import ClouduploaderError
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.network import connections
from clouduploader.server.network.origin import ORIGIN
from clouduploader.server.replies import RefusalError
from clouduploader.store.spool.leases import LeaseState

BYTES_TYPE = "application/octet-stream"
MAX_HOST_QUEUES = 100
MAX_HOST_SLOTS = LIMITS["slots"][1]
LARGEST_CODE = 255
MAX_RESULT_CHARS = 1 << 20  # of which `outcome.MAX_RESULT_BYTES` are kept

HostName = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", max_length=64)]
Attempt = Annotated[int, Meta(ge=1, lt=2**53, description="The number of the attempt.")]
ClaimId = Annotated[
    str,
    Meta(pattern="^[0-9a-f]{32}$", description="What the host has made up for this claim, and none can guess."),
]
Offset = Annotated[int, Meta(ge=0, lt=2**53)]
Word = Annotated[str, Meta(max_length=200)]


class NewGreeting(documents.Given):
    """What a host says of itself."""

    name: HostName
    protocol: Annotated[int, Meta(ge=1, lt=2**31, description="Which version of it the host speaks.")]
    version: Annotated[Word, Meta(description="Of its program.")]
    slots: Annotated[int, Meta(ge=0, le=MAX_HOST_SLOTS, description="How many jobs it takes at once.")]
    queues: Annotated[tuple[HostName, ...], Meta(max_length=MAX_HOST_QUEUES, description="From which it takes them.")]
    clock: Annotated[float, Meta(ge=-1e12, le=1e12, description="What its clock says, in seconds since 1970.")]


class Greeted(documents.Document):
    """What a host is told."""

    drain: Annotated[bool, Meta(description="Whether it is to take no more jobs.")]
    greet_seconds: Annotated[int, Meta(description="When to greet again.")]


class NewClaim(documents.Given):
    """Which attempt a host claims."""

    attempt: Attempt
    claim: ClaimId
    host: HostName
    protocol: Annotated[int, Meta(ge=1, lt=2**31, description="Which version of it the host speaks.")]


class ClaimedJob(documents.Document, rename={"try_": "try"}):
    """The record of a claimed job."""

    user: str
    target: str
    project: str | None
    repository: str | None
    package: str | None
    arch: str | None
    filename: str | None
    size: int | None
    created: Annotated[int | None, Meta(description="In seconds since 1970.")]
    try_: Annotated[int | None, Meta(description="The number of this try, if it is not the first.")]


class ClaimedImage(documents.Document):
    """The image of a claimed job."""

    size: Annotated[int, Meta(description="In bytes.")]
    sha256: Annotated[str, Meta(description="In hexadecimal digits.")]


class ClaimedJournal(documents.Document):
    """The journal of a claimed job's upload."""

    key: str
    files: Annotated[dict[str, int], Meta(description="How many bytes of each file are here.")]


class ClaimedUpload(documents.Document):
    """All that a host needs for an upload."""

    lease_seconds: Annotated[int, Meta(description="How long the host has the job after a beat.")]
    beat_seconds: Annotated[int, Meta(description="How long the answer to a beat may take.")]
    grace_seconds: Annotated[int, Meta(description="How long an upload that is stopped may clean up.")]
    job: ClaimedJob
    data: Annotated[dict[str, Any], Meta(description="The target data, decrypted.")]
    secrets: Annotated[list[str], Meta(description="What of it must not be shown.")]
    image: ClaimedImage
    journal: ClaimedJournal


class Beat(documents.Given):
    """A sign of life of an upload."""

    attempt: Attempt
    claim: ClaimId
    progress: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None, Meta(description="Percent of the phase that is under way.")
    ] = None


class BeatAnswer(documents.Document):
    """What becomes of an upload."""

    stop: Annotated[bool, Meta(description="Whether it is to stop: its job was killed.")]


class PieceAnswer(documents.Document):
    """How much of a log or file is here."""

    offset: Annotated[int, Meta(description="In bytes; the next piece begins there.")]


class LogPiece(documents.Given):
    """Where a piece of a log belongs."""

    attempt: Attempt
    claim: ClaimId
    offset: Annotated[Offset, Meta(description="Where it begins, from the attempt's first byte.")]


class JournalPiece(documents.Given):
    """Where a piece of a journal belongs."""

    attempt: Attempt
    claim: ClaimId
    file: Annotated[Word, Meta(description="`journal`, or `platform/` and a name.")]
    offset: Annotated[Offset, Meta(description="Where it begins.")] = 0
    replace: Annotated[bool, Meta(description="Whether it is the whole file.")] = False
    remove: Annotated[bool, Meta(description="Whether the file is gone.")] = False


class JournalPlace(documents.Given):
    """Which bytes of a journal a host wants."""

    attempt: Attempt
    claim: ClaimId
    file: Annotated[Word, Meta(description="`journal`, or `platform/` and a name.")]
    offset: Annotated[Offset, Meta(description="Where to begin.")] = 0


class Done(documents.Given):
    """How an upload ended."""

    attempt: Attempt
    claim: ClaimId
    exit_code: Annotated[
        int, Meta(ge=-64, le=LARGEST_CODE, description="Of the uploader; below 0 the signal that ended it.")
    ]
    result: Annotated[
        Annotated[str, Meta(max_length=MAX_RESULT_CHARS)] | None,
        Meta(description="What it wrote; null if it wrote nothing."),
    ] = None


class Release(documents.Given):
    """Why a host gives a job back."""

    attempt: Attempt
    claim: ClaimId
    reason: Annotated[str, Meta(max_length=MAX_RESULT_CHARS, description="In a few words.")]


class Nothing(documents.Document):
    """That it is done."""


class HostEntry(documents.Document):
    """A host."""

    name: str
    version: Annotated[str, Meta(description="Of its program.")]
    protocol: Annotated[int, Meta(description="Which version of it the host speaks.")]
    slots: Annotated[int, Meta(description="How many jobs it takes at once.")]
    busy: Annotated[int, Meta(description="How many it has.")]
    queues: Annotated[list[str], Meta(description="From which it takes them.")]
    seen: Annotated[documents.Time, Meta(description="When it greeted last.")]
    skew_seconds: Annotated[float, Meta(description="By how much its clock is ahead of the server's.")]
    draining: Annotated[bool, Meta(description="Whether it is to take no more jobs.")]
    gone: Annotated[bool, Meta(description="Whether it was not seen for longer than a lease lives.")]


class QueueEntry(documents.Document):
    """A queue."""

    name: str
    published: Annotated[int, Meta(description="How many jobs wait in it for a host.")]
    oldest: Annotated[documents.Time | None, Meta(description="Since when the one waits that has waited longest.")]
    waiting: Annotated[int | None, Meta(description="How many messages the broker has; null if it can't be asked.")]


class LeaseEntry(documents.Document):
    """A job that a host has."""

    job: str
    user: str | None
    host: str
    attempt: Annotated[int, Meta(description="How often the job was published.")]
    takeovers: Annotated[int, Meta(description="How many hosts were lost with it.")]
    since: documents.Time
    until: Annotated[
        documents.Time, Meta(description="When it is another host's unless this one gives a sign of life.")
    ]
    queue: str


class ClusterState(documents.Document):
    """How a cluster is."""

    hosts: list[HostEntry]
    queues: list[QueueEntry]
    leases: list[LeaseEntry]


class Drain(documents.Given):
    """Whether a host is to take no more jobs."""

    drain: bool


async def greet(call: RouteCall) -> web.StreamResponse:
    """Take note of a host, and tell it whether it is to take jobs."""
    cluster, given = cluster_of(call), await documents.read(call, NewGreeting)
    greeting = Greeting(
        name=given.name,
        protocol=given.protocol,
        version=given.version,
        slots=given.slots,
        queues=given.queues,
        clock=given.clock,
    )
    drain = await call.state.hosts.work(lambda: cluster.hosts.greet(greeting, token=call.principal.token))
    return documents.answer(Greeted(drain=drain, greet_seconds=GREET_SECONDS))


async def claim_job(call: RouteCall) -> web.StreamResponse:
    """Give a job to a host, with its target data decrypted."""
    cluster = cluster_of(call)
    if not call.request[ORIGIN].is_private:
        raise RefusalError("target data are not sent over http: others could read them on their way", status=403)
    given = await documents.read(call, NewClaim)
    claim = Claim(attempt=given.attempt, id=given.claim, host=given.host, protocol=given.protocol)

    def give() -> ClaimAnswer:
        if not cluster.hosts.is_of(claim.host, call.principal.token):
            raise StaleError(f"another host is called {claim.host}: it has another token")
        return cluster.leases.claim(call.found.job, claim, is_draining=cluster.hosts.is_draining(claim.host))

    found = await call.state.hosts.claim(give)
    job = found.job
    answer = documents.answer(
        ClaimedUpload(
            lease_seconds=found.lease_seconds,
            beat_seconds=found.beat_seconds,
            grace_seconds=cluster.worker_settings().kill_grace_seconds,
            job=ClaimedJob(
                user=job.user or "",
                target=job.target or "",
                project=job.project,
                repository=job.repository,
                package=job.package,
                arch=job.arch,
                filename=job.filename,
                size=job.size,
                created=job.created,
                try_=job.try_,
            ),
            data=dict(found.values),
            secrets=list(found.secrets),
            image=ClaimedImage(size=found.image_bytes, sha256=found.sha256),
            journal=ClaimedJournal(key=found.key, files=dict(found.files)),
        )
    )
    answer.force_close()  # a kept connection keeps its last answer in memory, and this one has secrets
    return answer


async def beat(call: RouteCall) -> web.StreamResponse:
    """Renew a lease; the answer comes once the upload is to stop, or its time is over."""
    cluster, given = cluster_of(call), await documents.read(call, Beat)
    leases, name = cluster.leases, call.found.job
    loop, is_wanted = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(is_wanted.set)

    async def note(percent: int) -> None:
        with contextlib.suppress(ClouduploaderError):
            await call.state.hosts.work(lambda: leases.note_progress(name, given.attempt, given.claim, percent))

    with leases.beating(name, given.attempt, given.claim, wake) as beating, contextlib.ExitStack() as stack:
        if given.progress is not None and leases.is_news(name, given.progress):
            noting = asyncio.create_task(note(given.progress))  # the answer does not wait for a disk that hangs
            stack.callback(noting.cancel)
        if not beating.is_stopping():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(beating.seconds):
                    await is_wanted.wait()
        return documents.answer(BeatAnswer(stop=beating.is_stopping()))


async def append_log(call: RouteCall) -> web.StreamResponse:
    """Append to a job's log what its host sends of it."""
    cluster, given = cluster_of(call), documents.query(call, LogPiece)
    data = await _piece(call)
    offset = await call.state.hosts.work(
        lambda: cluster.leases.append_log(call.found.job, given.attempt, given.claim, given.offset, data)
    )
    return documents.answer(PieceAnswer(offset=offset))


async def append_journal(call: RouteCall) -> web.StreamResponse:
    """Append to a file of an upload's journal, replace it, or remove it.

    It is safely on the disk then; but what is appended to a file of the platform is so only with the next entry of the
    journal.
    """
    cluster, given = cluster_of(call), documents.query(call, JournalPiece)
    data = await _piece(call)

    def write() -> int:
        with cluster.leases.working(call.found.job, given.attempt, given.claim) as intake:
            if given.remove:
                intake.journal.remove(given.file)
                return 0
            if given.replace:
                return intake.journal.replace(given.file, data)
            return intake.journal.append(given.file, given.offset, data)

    return documents.answer(PieceAnswer(offset=await call.state.hosts.work(write)))


async def show_journal(call: RouteCall) -> web.StreamResponse:
    """Send what is here of a file of an upload's journal, from an offset on; nothing if there is none."""
    cluster, given = cluster_of(call), documents.query(call, JournalPlace)

    def read(start: int) -> tuple[bytes, int]:
        with cluster.leases.working(call.found.job, given.attempt, given.claim) as intake:
            data = intake.journal.read(given.file, start, protocol.MAX_PIECE_BYTES)
            return data, intake.journal.files().get(given.file, 0)

    data, end = await call.state.hosts.work(lambda: read(given.offset))
    answer = web.StreamResponse(headers={"Content-Type": BYTES_TYPE, **documents.HEADERS})
    answer.content_length = max(0, end - given.offset)
    answer.force_close()
    await answer.prepare(call.request)
    position = given.offset
    while data:
        await connections.connection_of(call.request).send(answer, data)
        position += len(data)
        try:
            more = functools.partial(read, position)
            data, _ = await call.state.hosts.work(more) if position < end else (b"", end)
        except ClouduploaderError as exc:  # the host sees that it is cut off, and asks again
            raise ConnectionResetError(exc.message) from exc
    await answer.write_eof()
    return answer


async def end_job(call: RouteCall) -> web.StreamResponse:
    """Record how an upload ended."""
    cluster, given = cluster_of(call), await documents.read(call, Done)
    await call.state.hosts.work(
        lambda: cluster.leases.done(call.found.job, given.attempt, given.claim, given.exit_code, given.result)
    )
    return documents.answer(Nothing())


async def release_job(call: RouteCall) -> web.StreamResponse:
    """Take a job back that a host has not begun with."""
    cluster, given = cluster_of(call), await documents.read(call, Release)
    await call.state.hosts.work(
        lambda: cluster.leases.release(call.found.job, given.attempt, given.claim, given.reason)
    )
    return documents.answer(Nothing())


async def show_cluster(call: RouteCall) -> web.StreamResponse:
    """Tell how the hosts, the queues and the leases are."""
    cluster = cluster_of(call)

    def look() -> ClusterState:
        held, waiting = cluster.leases.held(), cluster.waiting()
        claimed = [view for view in held if view.state is LeaseState.CLAIMED]
        hosts = cluster.hosts.hosts()
        return ClusterState(
            hosts=[_host(host, sum(view.host == host.greeting.name for view in claimed)) for host in hosts],
            queues=_queues(hosts, held, waiting),
            leases=[_lease(view) for view in claimed],
        )

    return documents.answer(await asyncio.to_thread(look))


async def drain_host(call: RouteCall) -> web.StreamResponse:
    """Let a host take no more jobs, or some again."""
    cluster, given = cluster_of(call), await documents.read(call, Drain)
    name = call.found.parts["host"]
    await asyncio.to_thread(lambda: cluster.hosts.drain(name, is_draining=given.drain))
    call.state.log.tell("drained" if given.drain else "undrained", host=name, user=call.principal.user)
    return documents.answer(Nothing())


def cluster_of(call: RouteCall) -> Cluster:
    """Return the cluster of the server.

    Raises:
        RefusalError: It has none.
    """
    if call.state.cluster is None:
        raise RefusalError("this server has no cluster", status=409)
    return call.state.cluster


async def _piece(call: RouteCall) -> bytes:
    """Read a piece of a log or journal.

    Raises:
        RefusalError: It is too long, or of another type.
    """
    if call.request.content_type != BYTES_TYPE:
        raise RefusalError(f"the body must be {BYTES_TYPE}", status=415)
    return await call.state.read(call.request, limit_bytes=protocol.MAX_PIECE_BYTES)


def _host(host: Host, busy: int) -> HostEntry:
    said = host.greeting
    return HostEntry(
        name=said.name,
        version=said.version,
        protocol=said.protocol,
        slots=said.slots,
        busy=busy,
        queues=list(said.queues),
        seen=_time(host.seen),
        skew_seconds=host.skew_seconds,
        draining=host.is_draining,
        gone=host.is_gone,
    )


def _queues(hosts: list[Host], held: list[LeaseView], waiting: Mapping[str, int]) -> list[QueueEntry]:
    """Return the queues that a host takes jobs from, or that have some."""
    published = [view for view in held if view.state is LeaseState.PUBLISHED]
    names = {queue for host in hosts for queue in host.greeting.queues}
    found = []
    for name in sorted(names.union(waiting, (view.queue for view in published))):
        since = [view.since for view in published if view.queue == name]
        found.append(
            QueueEntry(
                name=name,
                published=len(since),
                oldest=_time(min(since)) if since else None,
                waiting=waiting.get(name),
            )
        )
    return found


def _lease(view: LeaseView) -> LeaseEntry:
    return LeaseEntry(
        job=view.job,
        user=view.user,
        host=view.host or "",
        attempt=view.attempt,
        takeovers=view.takeovers,
        since=_time(view.since),
        until=_time(view.until),
        queue=view.queue,
    )


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


_host_route = functools.partial(endpoint, right=Right.WORK, methods=("POST",), refusals=(409,))

ROUTES: list[Endpoint] = [
    endpoint("/cluster", show_cluster, Right.SEE_SERVICE, answer=ClusterState, is_polled=True, refusals=(409,)),
    endpoint(
        "/cluster/hosts/$host/drain",
        drain_host,
        Right.SEE_SERVICE,
        methods=("POST",),
        body=Drain,
        answer=Nothing,
        refusals=(409,),
    ),
    _host_route("/cluster/hosts", greet, body=NewGreeting, answer=Greeted, is_polled=True),
    _host_route("/cluster/jobs/$job/claim", claim_job, body=NewClaim, answer=ClaimedUpload),
    _host_route("/cluster/jobs/$job/beat", beat, body=Beat, answer=BeatAnswer, is_polled=True),
    _host_route(
        "/cluster/jobs/$job/log", append_log, query=LogPiece, body_type=BYTES_TYPE, answer=PieceAnswer, is_polled=True
    ),
    _host_route(
        "/cluster/jobs/$job/journal",
        append_journal,
        query=JournalPiece,
        body_type=BYTES_TYPE,
        answer=PieceAnswer,
        is_polled=True,
    ),
    _host_route(
        "/cluster/jobs/$job/journal",
        show_journal,
        methods=("GET",),
        query=JournalPlace,
        answer_type=BYTES_TYPE,
        is_polled=True,
    ),
    _host_route("/cluster/jobs/$job/done", end_job, body=Done, answer=Nothing),
    _host_route("/cluster/jobs/$job/release", release_job, body=Release, answer=Nothing),
]
