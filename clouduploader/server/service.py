"""Run the server: listen, serve, expire old jobs, and end when asked to."""

import asyncio
import contextlib
import logging
import resource
import socket
from asyncio import sslproto
from collections.abc import Callable, Iterator

from aiohttp import web

from clouduploader.cluster.dispatch.cluster import Cluster
from clouduploader.errors import UnavailableError
from clouduploader.server import app, housekeeping
from clouduploader.server.network import unix_socket
from clouduploader.server.network.connections import (
    Acceptor,
    ClientConnection,
    ConnectionTable,
)
from clouduploader.server.network.origin import client_of
from clouduploader.server.network.tls import CONNECTION_BYTES as TLS_CONNECTION_BYTES
from clouduploader.server.network.tls import READ_BYTES as TLS_READ_BYTES
from clouduploader.server.network.tls import TlsContext
from clouduploader.server.settings import ServerSettings, SettingsSource
from clouduploader.server.state import ServerState
from clouduploader.server.worker_thread import WorkerThread
from clouduploader.store import spool
from clouduploader.store.config import Config
from clouduploader.util import service_log
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen
from clouduploader.util.service_log import ServiceLog
from clouduploader.worker.base import SpoolWorker

LOG = logging.getLogger("clouduploader.server")
HEADER_SECONDS = 60.0  # as long OBS waits for a request (BSServer.pm); for connections without one, kept ones too
POLL_SECONDS = 0.2  # how often to look at what signal handlers have set
SHUTDOWN_SECONDS = 2.0  # for answers that are nearly there
BACKLOG = 512  # as OBS
MAX_LINE_BYTES = 131_072  # of a request: a list of some 10,000 jobs by name
MAX_FIELD_BYTES = 8190  # of a header; Apache's limit, like that of their number
MAX_HEADERS = 100
READ_BYTES = 65_536  # how much of a body aiohttp holds


def run(
    config: Config,
    source: SettingsSource,
    *,
    cancel: Cancel,
    announce: Callable[[str], None],
    log: ServiceLog,
    worker: WorkerThread[SpoolWorker] | None,
    cluster: Cluster | None = None,
) -> None:
    """Serve until `cancel` is requested. Blocks.

    The jobs of images that are being received then fail; uploads go on.

    Args:
        config: Home and spool; the spool is made if there is none.
        source: The settings of the server; may be read again.
        cancel: Looked at a few times a second.
        announce: Called with the URL once it can be reached; with "and" between them if there are two.
        log: Gets what happens.
        worker: Starts and ends with the server; None if the spool's worker is another process.
        cluster: What `worker` publishes for; None if the uploads are this host's.

    Raises:
        ClouduploaderError: The worker can't work, see `SpoolWorker.run`.
        CannotCreateError: There is no spool, and none can be made.
        UnavailableError: The address can't be listened on.
        ConfigError: The certificate can't be used, see `tls.create_context`.
    """
    tls = TlsContext(source)
    sslproto.SSLProtocol.max_size = TLS_READ_BYTES  # asyncio has no other way to say it
    jobs = spool.Spool(config.spool.value)
    jobs.make(has_parents=False)
    settings = source.current
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(_listen(settings.host, settings)) if settings.host is not None else None
        unix = stack.enter_context(unix_socket.listen(settings.socket, backlog=BACKLOG)) if settings.socket else None
        stack.enter_context(_logging(log))
        urls = [_url(tcp, has_tls=tls.current is not None)] if tcp else []
        urls += [f"{unix_socket.SCHEME}{settings.socket}"] if unix else []
        state = ServerState(config, source, jobs, log, worker, cluster)
        listeners = Listeners(tcp=tcp, unix=unix)
        asyncio.run(_serve(state, tls, listeners, cancel, lambda: announce(" and ".join(urls))))


@frozen(kw_only=True)
class Listeners:
    """Where the server listens; there is one of both at least.

    Attributes:
        tcp: A network.
        unix: A Unix socket.
    """

    tcp: socket.socket | None
    unix: socket.socket | None


def _url(listener: socket.socket, *, has_tls: bool) -> str:
    address, port = listener.getsockname()[:2]
    scheme = "https" if has_tls else "http"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _descriptor_limit() -> int:
    """Raise the limit of open files to the hard limit, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def _listen(host: str, settings: ServerSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, settings.port), family=family, backlog=BACKLOG)
        _set_user_timeout(listener, settings)
    except OSError as exc:
        raise UnavailableError(
            f"{host}:{settings.port} can't be listened on: {exc.strerror or exc}",
            hint="OBS's own server may be running; --listen names another address.",
        ) from exc
    with listener:
        yield listener


@contextlib.contextmanager
def _logging(log: ServiceLog) -> Iterator[None]:
    """Send what the standard logger of the server gets to the service's log, inside the block; one server at a time."""
    handler = service_log.Handler(log)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)


def _set_user_timeout(listener: socket.socket, settings: ServerSettings) -> None:
    """Drop clients that take no answer, as those that send nothing; new connections inherit it from the listener."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.idle_seconds * 1000)


async def _serve(
    state: ServerState, tls: TlsContext, listeners: Listeners, cancel: Cancel, announce: Callable[[], None]
) -> None:
    """Serve, with the worker if there is one: it starts first, and ends last."""
    worker = state.worker
    if worker is None:
        await _answer_all(state, tls, listeners, cancel, announce)
        return
    await asyncio.to_thread(worker.start, state.metrics)
    try:
        await _answer_all(state, tls, listeners, cancel, announce)
    finally:
        await asyncio.to_thread(worker.close)


async def _answer_all(
    state: ServerState, tls: TlsContext, listeners: Listeners, cancel: Cancel, announce: Callable[[], None]
) -> None:
    connections = ConnectionTable(
        _descriptor_limit(),
        lambda: state.settings.max_memory_bytes,
        idle_bytes=lambda: TLS_CONNECTION_BYTES if tls.current else 0,
    )
    runner = web.AppRunner(
        app.create_app(state, connections),
        handler_cancellation=True,  # closes the log of a follower that left
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 set up on the line before
    works = (
        state.logs.refresh_forever(),
        state.places.measure_forever(),
        housekeeping.expire_forever(state),
        housekeeping.renew_forever(state, connections, tls),
        housekeeping.end_forever(state, connections),
    )
    tasks = [asyncio.create_task(work) for work in works]
    acceptors = _acceptors(state, tls, listeners, connections, server)
    for acceptor in acceptors:
        acceptor.open()
    announce()

    def warn() -> None:
        if listeners.tcp and (text := state.settings.warning(listeners.tcp.getsockname()[0])):
            state.log.tell("warning", text=text)

    warn()
    try:
        while not cancel.is_requested:
            for task in (await asyncio.wait(tasks, timeout=POLL_SECONDS))[0]:
                task.result()  # raises: these tasks end by a failure only
            if text := state.source.reload_if_requested():
                if listeners.tcp:
                    _set_user_timeout(listeners.tcp, state.settings)
                state.log.tell("settings", text=text)
                connections.end_kept()
                tls.request_reload()
                warn()
    finally:
        for acceptor in acceptors:
            acceptor.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        state.logs.close()
        if state.cluster:
            await asyncio.to_thread(state.cluster.leases.close)
        await state.receiver.stop()
        await state.pieces.stop()
        state.clouds.close()
        connections.close()
        await runner.cleanup()
        state.hosts.close()
        state.copier.close()
        state.sender.close()


def _acceptors(
    state: ServerState, tls: TlsContext, listeners: Listeners, connections: ConnectionTable, server: web.Server
) -> list[Acceptor]:
    """Return what accepts connections, for each listener one; not open yet."""
    loop = asyncio.get_running_loop()

    def connect(client: str) -> ClientConnection:
        return connections.admit(
            ClientConnection(
                server,
                client=client,
                connections=connections,
                loop=loop,
                access_log=None,  # aiohttp's own way to have none
                logger=LOG,
                keepalive_timeout=min(HEADER_SECONDS, state.settings.idle_seconds),  # from the start or an answer
                auto_decompress=False,  # Content-Encoding is not an image's compression
                read_bufsize=READ_BYTES,
                max_line_size=MAX_LINE_BYTES,
                max_field_size=MAX_FIELD_BYTES,
                max_headers=MAX_HEADERS,
            )
        )

    def is_client(address: str) -> bool:
        return state.settings.is_client(address) or state.settings.is_proxy(address)

    acceptors = []
    if listeners.tcp:
        acceptors.append(
            Acceptor(
                listeners.tcp,
                lambda address: connect(client_of(address)),
                is_client=is_client,
                context=lambda: tls.current,
            )
        )
    if listeners.unix:
        acceptors.append(Acceptor(listeners.unix, connect, is_client=lambda _: True, context=lambda: None))
    return acceptors
