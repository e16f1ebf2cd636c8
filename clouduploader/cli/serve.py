"""`clouduploader serve`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clouduploader.cli import collector
from clouduploader.cli.options import FILE, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import ConfigError, ExitCode, UnavailableError, UsageError

if TYPE_CHECKING:
    from clouduploader.cluster.dispatch.dispatcher import Dispatcher
    from clouduploader.cluster.settings import ClusterSettings
    from clouduploader.server.worker_thread import WorkerThread
    from clouduploader.store.config import Config
    from clouduploader.util.cancel import Cancel
    from clouduploader.util.service_log import ServiceLog
    from clouduploader.worker.base import SpoolWorker
    from clouduploader.worker.worker import Worker


@click.command("serve")
@click.option("--listen", metavar="ADDR:PORT", help="Where to listen; none: on the socket alone.  [127.0.0.1:5452]")
@click.option(
    "--allow",
    "networks",
    multiple=True,
    metavar="NET",
    help="Networks that may do everything without a token, such as 10.1.0.0/16; can be repeated.  [127.0.0.0/8 ::1]",
)
@click.option("--tls-cert", type=FILE, metavar="FILE", help="The certificate, in PEM, for https.")
@click.option("--tls-key", type=FILE, metavar="FILE", help="Its key.")
@click.option("--socket", type=FILE, metavar="PATH", help="A Unix socket to listen on as well, for users of this host.")
@click.option("--worker/--no-worker", default=True, help="Whether to start uploads too, as `worker` does.  [--worker]")
@click.option("--broker", metavar="URL", help="RabbitMQ, by which the hosts of a cluster get the uploads.")
@click.option("--server", metavar="URL", help="This server, as those hosts reach it.")
@click.option("--drain", is_flag=True, help="When asked to stop, start no more uploads, and serve until the last ends.")
@pass_session
def serve_command(
    session: Session,
    /,
    *,
    listen: str | None,
    networks: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    socket: Path | None,
    worker: bool,
    broker: str | None,
    server: str | None,
    drain: bool,
) -> int:
    """Take jobs and images over HTTP, as OBS's upload server, and start the uploads, as its worker.

    It answers the requests that bs_clouduploadserver does, on the same spool, so that OBS's source server can be
    pointed at it: $clouduploadserver in BSConfig.pm. What else can be set is in the section [server] of
    clouduploader.conf.

    Every client in a network of --allow may do everything, for any user, as OBS has it. Others that the settings name
    need a token, see `token`, and its user is whose jobs they see and make. With a certificate it speaks TLS alone; a
    new one is taken when the files change. Who asks over the socket is told by the kernel: root and the user of the
    service may do everything, and members of the group that the settings name are users with their login.

    SIGTERM stops it; images that are on their way in then fail, uploads go on, and the next worker finds them. With
    --drain it goes on until the last upload has ended; a second signal stops it. SIGHUP reads the sections [server]
    and [worker] again, but where to listen; a section that is wrong changes nothing. Events go to stderr, a line of
    logfmt for each request and each change of a job. With --no-worker the uploads are left to `clouduploader
    worker`, or to OBS's own.

    With a broker, here or in section [cluster], this host starts no uploads: they are published by RabbitMQ for the
    hosts on which `clouduploader worker --cluster` runs. Those that are under way when it stops go on, and are taken
    up by the next server, if it starts in time. Broker and server are read when it starts.
    """
    try:
        from clouduploader.server import service, settings, worker_thread
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"the package {exc.name} is not installed", hint="Install clouduploader with the extra `server`."
        ) from exc
    from clouduploader.cluster import settings as cluster_settings
    from clouduploader.util import privileges, service_log, systemd
    from clouduploader.util.cancel import Cancel

    def read() -> settings.ServerSettings:
        found = session.read_config()
        return settings.load(
            found.server,
            found.path,
            listen=listen,
            allow=networks,
            tls_cert=tls_cert,
            tls_key=tls_key,
            socket=socket,
        )

    if broker and not worker:
        raise UsageError("--broker needs the worker that publishes", hint="Leave out --no-worker.")
    privileges.hide_memory()
    config = session.config
    source = settings.SettingsSource(read)
    cancel = Cancel()
    log = service_log.ServiceLog(sys.stderr)
    told = systemd.Readiness(os.environ)

    def read_cluster() -> cluster_settings.ClusterSettings:
        return cluster_settings.read(session.read_config(), broker=broker, server=server)

    own: worker_thread.WorkerThread[SpoolWorker] | None = None
    cluster = None
    if worker and read_cluster().broker:
        dispatching = _dispatcher(session.read_config, read_cluster, cancel=cancel, log=log)
        own, cluster = dispatching, dispatching.worker.cluster
    elif worker:
        own = _worker(session.read_config, cancel=cancel, log=log)

    def announce(url: str) -> None:
        log.tell("serving", url=url, spool=str(config.spool.value))
        told.ready(f"the spool {config.spool.value} is served at {url}")

    def end(number: int, _frame: object) -> None:
        if not (drain and own and own.drain()):
            cancel.request(number)

    def reload(_number: int, _frame: object) -> None:
        source.request_reload()
        if own:
            own.reload()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, reload)
    collector.collect_as_usual()
    service.run(config, source, cancel=cancel, announce=announce, log=log, worker=own, cluster=cluster)
    log.tell("stopped")
    return ExitCode.OK


def _worker(read_config: "Callable[[], Config]", *, cancel: "Cancel", log: "ServiceLog") -> "WorkerThread[Worker]":
    """Return what starts uploads on this host.

    Raises:
        ClouduploaderError: It can't work.
    """
    from clouduploader.server.worker_thread import WorkerThread
    from clouduploader.worker import settings
    from clouduploader.worker.worker import Worker

    return WorkerThread(
        lambda control, on_event: Worker(
            read_config(), read_settings=lambda: settings.read(read_config()), control=control, on_event=on_event
        ),
        cancel=cancel,
        log=log,
    )


def _dispatcher(
    read_config: "Callable[[], Config]",
    read_cluster: "Callable[[], ClusterSettings]",
    *,
    cancel: "Cancel",
    log: "ServiceLog",
) -> "WorkerThread[Dispatcher]":
    """Return what publishes uploads for other hosts.

    Raises:
        UnavailableError: Celery is not installed.
        ClouduploaderError: It can't work.
    """
    from clouduploader.cluster import settings as cluster_settings
    from clouduploader.cluster.dispatch.dispatcher import Dispatcher
    from clouduploader.server.worker_thread import WorkerThread
    from clouduploader.worker import settings

    try:
        from clouduploader.cluster.broker import Publisher
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"the package {exc.name} is not installed", hint="Install clouduploader with the extra `cluster`."
        ) from exc
    found = read_cluster()
    if not found.server:
        raise ConfigError(
            "there is a broker, but no URL by which hosts reach this server",
            hint="Give it by --server, or as server in section [cluster].",
        )
    password = cluster_settings.password(read_config())
    if password and found.is_in_clear:
        log.tell("warning", text=cluster_settings.IN_CLEAR)
    publisher = Publisher(found, password)
    return WorkerThread(
        lambda control, on_event: Dispatcher(
            read_config(),
            read_settings=lambda: settings.read(read_config()),
            read_cluster=read_cluster,
            publisher=publisher,
            control=control,
            on_event=on_event,
        ),
        cancel=cancel,
        log=log,
    )
