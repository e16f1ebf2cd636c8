"""What bin/demo runs in the sandbox: it plays OBS's worker for job 1, and then looks around."""

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

import boto3

from clouduploader import spool
from clouduploader.job import JobState

JOB = "1"


def announce(*command: str) -> None:
    """Print a command as somebody would type it."""
    sys.stdout.write(f"\n$ {shlex.join(command)}\n")
    sys.stdout.flush()


def show(*command: str) -> None:
    """Run a command in sight of the reader."""
    announce(*command)
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"bin/demo: that ended with {code}")


def upload(jobs: spool.Spool) -> str:
    """Do as OBS's worker does: mark the job, call clouduploader, archive the job with its result."""
    job, _is_archived = jobs.read(JOB)
    paths = [jobs.file_path(JOB), jobs.data_path(JOB), jobs.log_path(JOB)]
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


def main() -> None:
    """Show it."""
    image_id = upload(spool.Spool(Path(os.environ["CLOUDUPLOADER_SPOOL"])))
    show("clouduploader", "list")
    show("clouduploader", "inspect", JOB)
    show("clouduploader", "log", JOB, "--lines", "5")
    sys.stdout.write("\nThe image, as the sandbox's AWS reports it:\n")
    (image,) = boto3.client("ec2").describe_images(ImageIds=[image_id])["Images"]
    for key in ("ImageId", "Name", "State", "Architecture", "EnaSupport", "RootDeviceName", "Description"):
        sys.stdout.write(f"  {key:15} {image.get(key)}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
