"""What bin/demo runs in the sandbox: OBS's worker for job 1, the same image by hand, and a look around."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from clouduploader.model.job import JobState
from clouduploader.sandbox import registry
from clouduploader.sandbox.layout import VARIABLE, Layout
from clouduploader.store import spool

JOB = "1"


def announce(*command: str) -> None:
    """Print a command as a user would type it."""
    sys.stdout.write(f"\n$ {shlex.join(command)}\n")
    sys.stdout.flush()


def show(*command: str) -> None:
    """Run a command in sight of the reader."""
    announce(*command)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"bin/demo: that ended with {code}")


def upload_as_obs(jobs: spool.Spool) -> str:
    """Do as OBS's worker does: mark the job, call clouduploader, archive the job with its result."""
    job, _is_archived = jobs.read(JOB)
    paths = [jobs.file_path(JOB), jobs.data_path(JOB), jobs.log_path(JOB)]
    sys.stdout.write(f"\nJob {JOB}, of the user '{job.user}', as OBS's worker has it uploaded:\n")
    command = ["clouduploader", str(job.user), str(job.target), *map(str, paths)]
    announce(*command)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        with jobs.lock(JOB) as locked:
            locked.replace(dataclasses.replace(job, state=JobState.UPLOADING, pid=process.pid))
        result = process.communicate()[0].strip()
    if process.returncode != 0:
        sys.exit(f"bin/demo: the upload ended with {process.returncode}")
    sys.stdout.write(f"{result}\n")
    with jobs.lock(JOB) as locked:
        locked.archive(job.ended(JobState.SUCCEEDED, result))
    return result


def upload_by_hand(command: str) -> str:
    """Do as a person does who has an image."""
    words = shlex.split(command)
    sys.stdout.write("\nThe same image by hand:\n")
    announce(*words)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bin/demo: the upload ended with {done.returncode}")
    sys.stdout.write(done.stdout)
    return done.stdout.strip()


def main() -> None:
    """Show it."""
    cloud = registry.CLOUDS[sys.argv[1]]()
    layout = Layout(Path(os.environ[VARIABLE]))
    sandbox = json.loads(layout.description.read_text())
    began = time.monotonic()
    first_id = upload_as_obs(spool.Spool(layout.spool))
    first_seconds = time.monotonic() - began
    began = time.monotonic()
    second_id = upload_by_hand(cloud.examples(layout)[0])
    second_seconds = time.monotonic() - began
    show("clouduploader", "list")
    show("clouduploader", "inspect", JOB)
    show("clouduploader", "log", JOB, "--lines", "5")
    sys.stdout.write("\nThe images, as the sandbox's cloud reports them:\n")
    for result, seconds in ((first_id, first_seconds), (second_id, second_seconds)):
        sys.stdout.write("\n")
        for name, value in {**cloud.describe(sandbox, result), "uploaded in": f"{seconds:.1f} s"}.items():
            sys.stdout.write(f"  {name:24} {value}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
