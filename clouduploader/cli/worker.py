"""`clouduploader worker`: run the jobs of the spool."""

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from clouduploader.cli import collector
from clouduploader.cli.options import pass_session, tls_options
from clouduploader.cli.session import (
    CA_VARIABLE,
    CERT_VARIABLE,
    KEY_VARIABLE,
    SERVER_VARIABLE,
    TOKEN_VARIABLE,
    Session,
)
from clouduploader.errors import ConfigError, ExitCode, NotOwnerError, UnavailableError, UsageError
from clouduploader.util import privileges, systemd

if TYPE_CHECKING:
    from clouduploader.worker.control import WorkerControl
    from clouduploader.worker.events import WorkerEvent


@click.command("worker")
@click.option("--user", "account", metavar="USER", help="Give up root's rights for those of USER, as OBS for obsrun.")
@click.option("--drain", is_flag=True, help="When asked to stop, start no more uploads, and wait for the last one.")
@click.option("--cluster", is_flag=True, help="Run jobs of a server's cluster as one of its upload hosts.")
@click.option("--server", metavar="URL", help=f"The server of the cluster.  [{SERVER_VARIABLE}; `server` in [cluster]]")
@click.option("--broker", metavar="URL", help="RabbitMQ, as amqps://USER@HOST/VHOST.  [`broker` in [cluster]]")
@click.option("--host", metavar="NAME", help="What this host is called.  [`host` in [cluster]; the machine's name]")
@click.option("--slots", type=int, metavar="N", help="How many uploads at once.  [`slots` in [cluster]; 2]")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="A queue to take jobs from; can be repeated.  [`serves` in [cluster]; uploads]",
)
@tls_options
@pass_session
def worker_command(
    session: Session,
    /,
    *,
    account: str | None,
    drain: bool,
    cluster: bool,
    server: str | None,
    broker: str | None,
    host: str | None,
    slots: int | None,
    queues: tuple[str, ...],
) -> int:
    """Run the jobs of the spool, in the place of OBS's bs_clouduploadworker.

    Jobs are uploaded in the order of their ids, as many at once as section [worker] of clouduploader.conf
    allows, each by `clouduploader` with OBS's six arguments. Events go to stderr, a line of logfmt
    each, as by `serve`. An upload that fails for the moment (exit code 75) is tried again later.

    SIGTERM and SIGINT stop the worker. The uploads go on without it, and end their jobs themselves; the next
    worker finds them. With --drain it waits for them, and a second signal hands them over. SIGHUP reads the
    settings again. After a crash of worker or machine no upload is started twice: one that was interrupted is
    failed, and what it left in the cloud is removed.

    Only one worker, ours or OBS's, can work on a spool.

    With --cluster it takes jobs from RabbitMQ, claims them at the server, fetches their images into its own spool,
    and uploads them; any number of hosts can do so. It needs a token of the role `worker`, and the password of the
    broker in CLOUDUPLOADER_BROKER_PASSWORD or the file `broker-password` in the home. SIGTERM lets it take no more
    jobs and wait for the last upload; a second one kills the uploads, and other hosts go on with them. A server or
    broker that can't be reached is asked again until it answers. An uploader is handed no secrets but those of its job;
    it runs as this user, who can read the token and the password.
    """
    given = {"--server": server, "--broker": broker, "--host": host, "--slots": slots, "--queue": queues}
    if not cluster and (names := [name for name, value in given.items() if value not in (None, ())]):
        raise UsageError(f"{names[0]} is for an upload host", hint="Give --cluster too.")
    if cluster and drain:
        raise UsageError(
            "--drain is not for an upload host", hint="It always waits for its uploads when it is stopped."
        )
    if account:
        privileges.become(account)
        if not os.access(sys.executable, os.X_OK, effective_ids=True):
            raise NotOwnerError(
                f"{account} may not execute {sys.executable}",
                hint="Install clouduploader, and the Python that it uses, where every user may read them.",
            )
    privileges.hide_memory()
    if cluster:
        _run_host(session, server=server, broker=broker, host=host, slots=slots, queues=queues)
        return ExitCode.OK
    from clouduploader import worker
    from clouduploader.util import service_log
    from clouduploader.worker import control, settings
    from clouduploader.worker.events import WorkerEventKind

    told = systemd.Readiness(os.environ)
    log = service_log.ServiceLog(sys.stderr)

    def note(event: "WorkerEvent") -> None:
        event.log_to(log)
        if event.kind is WorkerEventKind.READY:
            told.ready(event.text)

    with contextlib.closing(control.WorkerControl()) as requests:
        _listen(requests, is_draining=drain)
        collector.collect_as_usual()
        worker.run(
            session.config,
            settings=lambda: settings.read(session.read_config()),
            control=requests,
            on_event=note,
        )
    return ExitCode.OK


def _listen(requests: "WorkerControl", *, is_draining: bool) -> None:
    def stop(_number: int, _frame: object) -> None:
        if is_draining and not requests.is_draining:
            requests.drain()
        else:
            requests.leave()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, lambda _number, _frame: requests.reload())


def _run_host(
    session: Session,
    *,
    server: str | None,
    broker: str | None,
    host: str | None,
    slots: int | None,
    queues: tuple[str, ...],
) -> None:
    """Work as an upload host."""
    from clouduploader.cluster import settings
    from clouduploader.worker import settings as worker_settings

    config = session.config
    found = settings.read(
        config,
        broker=broker,
        server=server or os.environ.get(SERVER_VARIABLE),
        host=host,
        slots=slots,
        serves=queues,
    )
    for name, value in (("broker", found.broker), ("server", found.server)):
        if not value:
            raise ConfigError(
                f"an upload host needs the URL of the {name}",
                hint=f"Give --{name}, or set {name} in [cluster] of {config.path}.",
            )
    if os.geteuid() == 0 and privileges.owner_of(config.spool.value):
        raise NotOwnerError(
            f"the spool {config.spool.value} is another user's: an upload host can't work there as root",
            hint="Give --user with its owner, or --spool with another directory.",
        )
    try:
        from clouduploader.cluster.host import host as upload_host
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            f"the package {exc.name} is not installed", hint="Install clouduploader with the extra `cluster`."
        ) from exc
    from clouduploader.util import masking, service_log

    password = settings.password(config)
    if password:
        masking.hide(password)
    of_worker = worker_settings.read(config)
    if of_worker.program != worker_settings.PROGRAM:
        privileges.check_program(config.path, of_worker.program)
    told = systemd.Readiness(os.environ)
    log = service_log.ServiceLog(sys.stderr)
    if password and found.is_in_clear:
        log.tell("warning", text=settings.IN_CLEAR)

    def announce(text: str) -> None:
        log.tell("ready", text=text)
        told.ready(text)

    collector.collect_as_usual()
    upload_host.run(
        found,
        session.cluster_server(found.server),
        password=password,
        spool=config.spool.value,
        program=worker_settings.find_program(of_worker.program, config.environment),
        environment={
            name: value
            for name, value in worker_settings.upload_environment(config, of_worker).items()
            if name not in {TOKEN_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, CA_VARIABLE, settings.PASSWORD_VARIABLE}
        },
        log=log,
        on_ready=announce,
    )
