"""`clouduploader serve`."""

import os
import signal
import sys
from pathlib import Path

import click

from clouduploader.cli import collector
from clouduploader.cli.options import FILE, pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode, UnavailableError


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
    """
    try:
        from clouduploader.server import service, settings, worker_thread
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"the package {exc.name} is not installed", hint="Install clouduploader with the extra `server`."
        ) from exc
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

    privileges.hide_memory()
    config = session.config
    source = settings.SettingsSource(read)
    cancel = Cancel()
    log = service_log.ServiceLog(sys.stderr)
    told = systemd.Readiness(os.environ)
    own = worker_thread.WorkerThread(session.read_config, cancel=cancel, log=log) if worker else None

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
    service.run(config, source, cancel=cancel, announce=announce, log=log, worker=own)
    log.tell("stopped")
    return ExitCode.OK
