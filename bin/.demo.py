"""What bin/demo runs in the sandbox: OBS's worker for job 1, the same image by EBS direct, and a look around."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3

from clouduploader.model.job import JobState
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


def upload_by_ebs_direct(image: Path, sandbox: dict[str, Any]) -> str:
    """Do as a person does who has an image: no helper instance, the blocks go straight into a snapshot."""
    command = ["clouduploader", "upload", str(image), "--method", "ebs-direct", "--name", "clouduploader-sample-2"]
    command += ["--region", sandbox["region"], "--arn", sandbox["role_arn"], "--external-id", sandbox["external_id"]]
    announce(*command)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bin/demo: the upload ended with {done.returncode}")
    sys.stdout.write(done.stdout)
    return done.stdout.strip()


def main() -> None:
    """Show it."""
    layout = Layout(Path(os.environ[VARIABLE]))
    sandbox = json.loads(layout.description.read_text())
    began = time.monotonic()
    first_id = upload_as_obs(spool.Spool(layout.spool))
    first_seconds = time.monotonic() - began
    began = time.monotonic()
    second_id = upload_by_ebs_direct(layout.sample, sandbox)
    second_seconds = time.monotonic() - began
    show("clouduploader", "list")
    show("clouduploader", "inspect", JOB)
    show("clouduploader", "log", JOB, "--lines", "5")
    sys.stdout.write("\nThe images, as the sandbox's AWS reports them:\n")
    ec2 = boto3.client("ec2")
    images = [ec2.describe_images(ImageIds=[image_id])["Images"][0] for image_id in (first_id, second_id)]
    for key in ("ImageId", "Name", "State", "Architecture", "EnaSupport", "RootDeviceName"):
        sys.stdout.write(f"  {key:15} {images[0].get(key)!s:25} {images[1].get(key)}\n")
    sys.stdout.write(f"  {'method':15} {'ec2uploadimg':25} ebs-direct\n")
    sys.stdout.write(f"  {'seconds':15} {first_seconds:<25.1f} {second_seconds:.1f}\n")
    sys.stdout.write(f"  (What ec2uploadimg sleeps is multiplied by {sandbox['wait_factor']} here.)\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
