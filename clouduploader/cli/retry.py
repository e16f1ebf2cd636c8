"""`clouduploader retry`: run a job again."""

import click

from clouduploader.cli import completion, output, uploading
from clouduploader.cli.options import json_option, pass_session, server_option
from clouduploader.cli.session import Session
from clouduploader.errors import ExitCode
from clouduploader.jobs import retry
from clouduploader.jobs.run_job import UploadOutcome
from clouduploader.model.job import Job
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel


@click.command("retry")
@click.argument("job", shell_complete=completion.job)
@server_option
@json_option
@pass_session
def retry_command(session: Session, /, *, job: str) -> int:
    """Run JOB again, which has failed, or waits for another try.

    A job that waits is started by the worker without further delay. A failed upload by hand is done again here, as
    a new job, if its image is still there and the same. The image of a failed job of the service is gone: hand it in
    again. A server is asked to start a job that waits; OBS's server can't do that.

    With --json the data of a new job are those of `upload`; of one that waited they are job and state.
    """
    outcome = session.server.retry(job) if session.server else _run_here(session, job)
    if not isinstance(outcome, Job):
        return uploading.print_outcome(session, outcome)
    if session.is_json:
        output.print_json(session, {"job": outcome.name, "state": outcome.state})
    elif not session.is_quiet:
        click.echo(f"job {outcome.name}: {outcome.state}", err=True)
    return ExitCode.OK


def _run_here(session: Session, job: str) -> Job | UploadOutcome:
    cancel = Cancel()
    signals.listen(cancel)
    return uploading.run_watched(session, retry.run, job, config=session.config, cancel=cancel)
