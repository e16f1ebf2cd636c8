"""`clouduploader resume`: go on with an upload that died."""

import click

from clouduploader.cli import completion, uploading
from clouduploader.cli.options import json_option, pass_session
from clouduploader.cli.session import Session
from clouduploader.jobs import resume
from clouduploader.util import signals
from clouduploader.util.cancel import Cancel


@click.command("resume")
@click.argument("job", shell_complete=completion.job)
@json_option
@pass_session
def resume_command(session: Session, /, *, job: str) -> int:
    """Go on with JOB, whose uploader died, and print what came out.

    What is in the cloud already is made use of, as long as the cloud keeps what is not finished; where the platform
    sends an image in parts, only those that are missing are sent. The image must still be there. A job whose uploader
    lives is left alone. `upload` with the same arguments goes on as well, as a new job.

    With --json the data are those of `upload`.
    """
    cancel = Cancel()
    signals.listen(cancel)
    outcome = uploading.run_watched(session, resume.run, job, config=session.config, cancel=cancel)
    return uploading.print_outcome(session, outcome)
