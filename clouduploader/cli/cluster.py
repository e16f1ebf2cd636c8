"""`clouduploader cluster`: the hosts that upload for the service."""

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from clouduploader.cli import output, table
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.parsing import CommandGroup
from clouduploader.cli.session import Session
from clouduploader.cli.text import age, clean, moment

if TYPE_CHECKING:
    from clouduploader.client.cluster_status import ClusterHost, ClusterLease, ClusterQueue, ClusterStatus

GONE, DRAINING, UNREADY, READY = "gone", "draining", "not ready", "ready"
HOST_COLUMNS = (
    table.Column("host"),
    table.Column("state"),
    table.Column("busy"),
    table.Column("slots"),
    table.Column("seen", rank=2),
    table.Column("version", rank=3),
    table.Column("protocol", rank=4),
    table.Column("skew", rank=5),
    table.Column("queues", least=8, rank=1),
)
QUEUE_COLUMNS = (
    table.Column("queue"),
    table.Column("published"),
    table.Column("oldest"),
    table.Column("at broker", rank=1),
)
LEASE_COLUMNS = (
    table.Column("job"),
    table.Column("host"),
    table.Column("since"),
    table.Column("attempt", rank=1),
    table.Column("lost hosts", rank=4),
    table.Column("left", rank=2),
    table.Column("user", least=8, rank=3),
    table.Column("queue", rank=5),
)


@click.group("cluster", cls=CommandGroup)
def cluster_command() -> None:
    """See the hosts that upload for the service, and stop them from taking jobs.

    They ask the server of --server; or that of CLOUDUPLOADER_SERVER; or over the socket that is set in section
    [server]; or the server that is set in section [cluster]. It has to know an administrator: over the socket
    root and the user of the service are, elsewhere the holder of a token of the role admin is.
    """


@cluster_command.command("status")
@server_option
@json_option
@pass_session
def status_command(session: Session, /) -> None:
    """Show hosts, queues, and which host has which job.

    A host is ready, draining (it takes no more jobs), not ready (it has no broker, or is being stopped), or gone (it
    was not heard of for as long as a lease lasts). A queue has jobs that are published and that no host has claimed
    yet; the oldest tells how long hosts let them wait. The broker may have more messages than that: those of jobs
    that were published again, or killed, are dropped by the host that gets them; a question mark stands there if it
    can't be asked. What is left of a lease is the time after which its job goes to another host, unless this one is
    heard of.

    With --json the data are {"hosts": [...], "queues": [...], "leases": [...]}.
    """
    found = session.find_service().cluster_status()
    if session.is_json:
        output.print_json(session, _document(found))
        return
    now = datetime.datetime.now(datetime.UTC)
    table.print_table(HOST_COLUMNS, (_host_row(one, now) for one in found.hosts))
    click.echo()
    table.print_table(QUEUE_COLUMNS, (_queue_row(one, now) for one in found.queues))
    click.echo()
    table.print_table(LEASE_COLUMNS, (_lease_row(one, now) for one in found.leases))


@cluster_command.command("drain")
@click.argument("host")
@click.option("--wait", is_flag=True, help="Wait until the host works on no job.")
@server_option
@json_option
@pass_session
def drain_command(session: Session, /, *, host: str, wait: bool) -> None:
    """Let HOST take no more jobs.

    What it works on goes on, and jobs that wait go to other hosts. It stays so, over restarts of host and server,
    until `cluster undrain`. A host that is not there yet can be drained, too.

    With --json the data are {"host", "draining", "jobs"}, these being what it still works on.
    """
    _drain(session, host, is_draining=True, is_waiting=wait)


@cluster_command.command("undrain")
@click.argument("host")
@server_option
@json_option
@pass_session
def undrain_command(session: Session, /, *, host: str) -> None:
    """Let HOST take jobs again.

    With --json the data are as of `cluster drain`.
    """
    _drain(session, host, is_draining=False, is_waiting=False)


def _drain(session: Session, host: str, *, is_draining: bool, is_waiting: bool) -> None:
    from clouduploader.admin import cluster

    found = cluster.drain(session.find_service(), host, is_draining=is_draining, is_waiting=is_waiting)
    if not found.is_known:
        output.warn(session, f"the server has not heard of a host {host} yet")
    if session.is_json:
        output.print_json(session, {"host": found.host, "draining": found.is_draining, "jobs": list(found.jobs)})
        return
    jobs = f"job{'s' * (len(found.jobs) > 1)} {', '.join(found.jobs)}" if found.jobs else "no job"
    does = "takes no more jobs" if found.is_draining else "takes jobs"
    click.echo(clean(f"host {found.host}: {does}, and works on {jobs}"))


def _host_row(host: "ClusterHost", now: datetime.datetime) -> list[object]:
    state = GONE if host.gone else DRAINING if host.draining else READY if host.queues else UNREADY
    seen, skew = _age(host.seen, now), f"{host.skew_seconds:+.1f}s"
    queues = " ".join(host.queues)
    return [host.name, state, host.busy, host.slots, seen, host.version, host.protocol, skew, queues]


def _queue_row(queue: "ClusterQueue", now: datetime.datetime) -> list[object]:
    waiting = "?" if queue.waiting is None else queue.waiting
    return [queue.name, queue.published, queue.oldest and _age(queue.oldest, now), waiting]


def _lease_row(lease: "ClusterLease", now: datetime.datetime) -> list[object]:
    left = f"{(lease.until - now).total_seconds():.0f}s"
    since = _age(lease.since, now)
    return [lease.job, lease.host, since, lease.attempt, lease.takeovers, left, lease.user, lease.queue]


def _age(then: datetime.datetime, now: datetime.datetime) -> str:
    return age((now - then).total_seconds())


def _document(found: "ClusterStatus") -> dict[str, Any]:
    def entries(things: Iterable[object]) -> list[dict[str, Any]]:
        return [{key: _shown(value) for key, value in vars(thing).items()} for thing in things]

    return {"hosts": entries(found.hosts), "queues": entries(found.queues), "leases": entries(found.leases)}


def _shown(value: object) -> object:
    return moment(value) if isinstance(value, datetime.datetime) else value
