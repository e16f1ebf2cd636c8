"""`clouduploader submit`: an image for the service."""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from clouduploader.cli import completion, following, output, target_values
from clouduploader.cli.options import (
    ImageFile,
    data_option,
    json_option,
    login,
    pass_session,
    server_option,
    user_option,
)
from clouduploader.cli.session import Session
from clouduploader.cli.target_command import TargetCommand
from clouduploader.cli.text import clean
from clouduploader.errors import (
    ClouduploaderError,
    ExitCode,
    StoppedError,
    TargetDataError,
    TransientError,
    UnavailableError,
)
from clouduploader.jobs import submit
from clouduploader.model.job import Job
from clouduploader.plugin import Event, JsonValue
from clouduploader.store import job_log
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel

WORKER_LOOK_SECONDS = 60.0  # soon enough to see a worker die before our job's turn


@click.command("submit", cls=TargetCommand, account_text="the account's")
@click.argument("image", type=ImageFile())
@completion.target_option
@data_option
@user_option
@click.option("--wait", is_flag=True, help="Follow the log until the job ends.")
@server_option
@json_option
@pass_session
def submit_command(
    session: Session,
    /,
    *,
    image: Path,
    target: str,
    data: Path | None,
    user: str | None,
    wait: bool,
    given: Mapping[str, JsonValue],
) -> int:
    """Hand IMAGE to the service, and print the job.

    The job goes to a server, or into the spool of this machine, and a worker uploads the image when its turn has
    come. What opens the user's account in the cloud is in the home, see `account`; what the options and --data say goes
    before it, and has to say it if there is no account.

    With --wait the log is shown on stderr, the result is printed behind the job, and the exit code is 76 if the
    job failed. Stopped while it waits, the job goes on; so it does if its server can't be asked any more for two
    minutes, and the exit code is 69: to submit the image again would upload it twice.

    An image that breaks off on its way goes on by itself, which a line on stderr tells, and if the program was ended,
    with the next `submit` of it: the server keeps what it has got for a day. OBS's server does not, and the job fails
    ("unexpected EOF").

    With --json the data are job, server (its URL, or null for the spool), state, details, and images, by region, as the
    job's log and journal tell (null without --wait).
    """
    server = session.server
    order = submit.SubmitRequest(
        user=user or login(),
        target=target,
        image_path=image.absolute(),
        targetdata=target_values.gather(session.config, target, data, given),
    )
    unknown = target_values.unknown_values(session.config, target, given)
    if unknown:  # only the cloud knows whether there is such a region, and only the service has an account there
        raise TargetDataError("; ".join(unknown), hint="If it is a new one, name it in the file of --data.")
    cancel = Cancel()
    signals.listen(cancel)
    job = _send(session, order, server or session.open_spool(), cancel)
    if user and server and server.keeps_accounts and job.user != user:
        output.warn(session, f"job {job.name} is a job of {job.user}: to the server that is who asks")
    if not session.is_json:
        click.echo(job.name)
    log: list[bytes] = []
    if wait:
        job = _wait(session, job, cancel, log.append if session.is_json else lambda _data: None)
        following.tell_outcome(session, job)
    code = following.outcome_code(job)
    if session.is_json:
        document = {
            "job": job.name,
            "server": server and server.url,
            "state": job.state,
            "details": job.details,
            "images": _images(session, job.name, b"".join(log)) if wait else None,
        }
        output.print_json(session, document, exit_code=code)
    elif wait and code == ExitCode.OK and job.details:
        click.echo(clean(job.details))
    return code


def _send(session: Session, order: submit.SubmitRequest, intake: submit.Sink, cancel: Cancel) -> Job:
    """Send the image, and show the progress on a terminal."""
    begun: list[Job | None] = []
    with contextlib.ExitStack() as views:

        def watch(job: Job | None) -> Callable[[Event], None]:
            begun.append(job)
            return _view(session, job, order.image_path.name, views)

        try:
            with cancel.interruptible():
                return submit.submit(
                    order, intake, config=session.config, watch=watch, warn=functools.partial(output.warn, session)
                )
        except StoppedError:
            for job in begun:
                if job is None:
                    output.warn(
                        session, "the server keeps what it has got of the image: submitted again, the rest is sent"
                    )
                else:
                    output.warn(session, f"job {job.name} has not got all of its image, and fails")
            raise


class _WorkerLook:
    """Check, while a job waits to be started, whether there is a worker; warn once if there is none.

    Args:
        session: Names the spool or server.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due = 0.0

    def __call__(self) -> None:
        """Check, if it is time to."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + WORKER_LOOK_SECONDS
        if self._is_missing():
            server, directory = self._session.server, self._session.config.spool.value
            place = f"for {server.url}" if server else f"on the spool {directory}"
            output.warn(self._session, f"no worker works {place}: the job waits until one is started")
            self._due = math.inf

    def _is_missing(self) -> bool:
        """Tell whether there is none, as far as that can be seen."""
        server, config = self._session.server, self._session.config
        if server:
            try:
                return not server.has_worker()
            except ClouduploaderError:
                return False  # what follows the job's log reports that the server does not answer
        from clouduploader.worker import settings

        return not submit.has_worker(self._session.open_spool(), settings.read(config).obs_lock)


def _wait(session: Session, job: Job, cancel: Cancel, keep: Callable[[bytes], None]) -> Job:
    """Show the log until the job ends, and pass it to `keep`; an error here does not touch the job."""
    follow = following.reader(session, job.name, lines=None)
    show = (lambda _data: None) if session.is_quiet else output.log_writer(sys.stderr)

    def write(data: bytes) -> None:
        keep(data)
        show(data)

    place = f"--server {session.server.url} " if session.server else ""
    hint = f"`clouduploader log --follow {place}{job.name}` goes on with it."
    try:
        with cancel.interruptible():
            return follow(write=write, is_following=True, while_waiting=_WorkerLook(session)).job
    except StoppedError:
        output.warn(session, f"job {job.name} goes on. {hint}")
        raise
    except TransientError as exc:  # with 75 a script would submit the image once more
        raise UnavailableError(f"the end of job {job.name} is not known: {exc.message}", hint=hint) from exc


def _images(session: Session, name: str, log: bytes) -> dict[str, str]:
    """Return the images of a job that has ended by region, from its log and, in the spool, its journal."""
    if session.server:
        told = job_log.read(log.decode(errors="replace").splitlines())
        return output.images([*told.found, *told.objects])
    from clouduploader.jobs import inspect

    jobs, state_dir = session.open_spool(), session.config.state.value
    return output.images(inspect.inspect_job(jobs, name, lines=0, state_dir=state_dir).objects)


def _view(session: Session, job: Job | None, name: str, views: contextlib.ExitStack) -> Callable[[Event], None]:
    if not session.is_quiet:
        text = f"job {job.name}: sending {clean(job.filename or '')}" if job else f"sending {clean(name)}"
        click.echo(text, err=True)
        if sys.stderr.isatty():
            from clouduploader.cli import progress

            return views.enter_context(progress.ProgressView())
    return lambda _event: None
