"""`clouduploader worker`: run the jobs of the spool."""

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from clouduploader.cli import collector
from clouduploader.cli.options import pass_session
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode, NotOwnerError
from clouduploader.util import privileges, systemd

if TYPE_CHECKING:
    from clouduploader.worker.control import WorkerControl
    from clouduploader.worker.events import WorkerEvent


@click.command("worker")
@click.option("--user", "account", metavar="USER", help="Give up root's rights for those of USER, as OBS for obsrun.")
@click.option("--drain", is_flag=True, help="When asked to stop, start no more uploads, and wait for the last one.")
@pass_session
def worker_command(session: Session, /, *, account: str | None, drain: bool) -> int:
    """Run the jobs of the spool, in the place of OBS's bs_clouduploadworker.

    Jobs are uploaded in the order of their ids, as many at once as section [worker] of clouduploader.conf
    allows, each by `clouduploader` with OBS's six arguments. Events go to stderr, a line of logfmt
    each, as by `serve`. An upload that fails for the moment (exit code 75) is tried again later.

    SIGTERM and SIGINT stop the worker. The uploads go on without it, and end their jobs themselves; the next
    worker finds them. With --drain it waits for them, and a second signal hands them over. SIGHUP reads the
    settings again. After a crash of worker or machine no upload is started twice: one that was interrupted is
    failed, and what it left in the cloud is removed.

    Only one worker, ours or OBS's, can work on a spool.
    """
    if account:
        privileges.become(account)
        if not os.access(sys.executable, os.X_OK, effective_ids=True):
            raise NotOwnerError(
                f"{account} may not execute {sys.executable}",
                hint="Install clouduploader, and the Python that it uses, where every user may read them.",
            )
    privileges.hide_memory()
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
