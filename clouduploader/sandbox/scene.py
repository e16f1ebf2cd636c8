"""What stands ready in a sandbox besides the account: home, spool, a job, a fast ec2uploadimg."""

import hashlib
import importlib.metadata
import json
import lzma
import os
import random
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Any

from clouduploader.errors import MissingProgramError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.sandbox.layout import EBS_ENDPOINT, ENDPOINT, Layout, environment

SAMPLE_NAME = "clouduploader-sample.x86_64-1.0.0-Build1.1.raw.xz"
SAMPLE_BYTES = 16 << 20  # unpacked; large enough to have holes and several SFTP windows of 2 MiB
SAMPLE_NOISE_BYTES = 3 << 20  # what xz can't shrink
SECTOR = 512

EC2UPLOADIMG = """\
#!{python}
# The real ec2uploadimg; only its waiting times are multiplied by {factor}.
import runpy
import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(seconds * {factor})
runpy.run_path({script!r}, run_name="__main__")
"""


def prepare(layout: Layout, described: dict[str, Any], wait_factor: float) -> None:
    """Make all files as at the start, whatever was there; sandbox.json comes last.

    Args:
        layout: Where.
        described: What sandbox.json says about the account.
        wait_factor: See the package.

    Raises:
        MissingProgramError: No ec2uploadimg that this Python could run.
    """
    for directory in (layout.home, layout.spool, layout.auditor, layout.volumes, layout.instances, layout.bin):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    layout.calls.write_text("")
    sample = _sample()
    if not layout.sample.exists():
        layout.sample.write_bytes(lzma.compress(sample, preset=0))
    _write_home(layout, described)
    _write_credentials(layout.auditor / "credentials", described["auditor"])
    (layout.auditor / "config").write_text(f"[default]\nregion = {described['region']}\n")
    _write_spool(layout, described)
    _write_ec2uploadimg(layout.bin / "ec2uploadimg", wait_factor)
    description = described | {
        "endpoint": ENDPOINT,
        "ebs_endpoint": EBS_ENDPOINT,
        "ca": str(layout.ca),
        "home": str(layout.home),
        "spool": str(layout.spool),
        "calls": str(layout.calls),
        "volumes": str(layout.volumes),
        "wait_factor": wait_factor,
        "sample": {"size_bytes": len(sample), "sha256": hashlib.sha256(sample).hexdigest()},
    }
    _write_private(layout.description, json.dumps(description, indent=2) + "\n")


def target_data(described: dict[str, Any]) -> dict[str, Any]:
    """Make what OBS would send for an upload into the sandbox's region."""
    return {
        "user_id": 7,
        "external_id": described["external_id"],
        "arn": described["role_arn"],
        "region": described["region"],
        "ami_name": "clouduploader-sample",
        "vpc_subnet_id": "",  # OBS's form sends it empty
    }


def _sample() -> bytes:
    """Noise, a hole, and a last sector that says so: a lost or cut piece shows."""
    noise = random.Random(1).randbytes(SAMPLE_NOISE_BYTES)  # noqa: S311
    end = b"The last sector of the image.".ljust(SECTOR, b".")
    partition = struct.pack("<B3xB3xII", 0, 0x83, 1, SAMPLE_BYTES // SECTOR - 1)
    table = partition.ljust(64, b"\0") + b"\x55\xaa"  # an MBR, for what has none is no disk
    start = noise[: SECTOR - len(table)] + table + noise[SECTOR:]
    return start + bytes(SAMPLE_BYTES - len(noise) - SECTOR) + end


def _write_home(layout: Layout, described: dict[str, Any]) -> None:
    (layout.home / ".aws").mkdir(mode=0o700)
    _write_credentials(layout.home / ".aws" / "credentials", described["obs"])
    sections = [
        f"[region-{region}]\nami = {ami}\ninstance_type = t2.micro\nuser = ec2-user\n"
        for region, ami in described["helper_amis"].items()
    ]
    (layout.home / ".ec2utils.conf").write_text("\n".join(sections))
    # `worker` and `serve` hand little of their environment on to uploads: not where the AWS is, for there is only one
    names = [name for name in environment(layout, {}) if name.startswith("AWS_ENDPOINT_URL")]
    (layout.home / "clouduploader.conf").write_text(f"[worker]\npass_environment = {' '.join(names)}\n")


def _write_credentials(path: Path, key: dict[str, str]) -> None:
    _write_private(
        path,
        f"[default]\naws_access_key_id = {key['access_key_id']}\naws_secret_access_key = {key['secret_access_key']}\n",
    )


def _write_spool(layout: Layout, described: dict[str, Any]) -> None:
    """Lay down job 1 as OBS's server does when the image has come in."""
    (layout.spool / "done").mkdir()
    os.link(layout.sample, layout.spool / "1.file")
    (layout.spool / "1.data").write_text(json.dumps(target_data(described)))
    job = Job(
        name="1",
        state=JobState.SCHEDULED,
        created=int(time.time()),
        user="sandbox",
        target="ec2",
        project="home:sandbox",
        repository="images",
        package="clouduploader-sample",
        arch="x86_64",
        filename=SAMPLE_NAME,
        size=layout.sample.stat().st_size,
    )
    (layout.spool / "1").write_bytes(job_xml.serialize(job))
    (layout.spool / "next").write_bytes(job_xml.serialize_next(2))


def _write_ec2uploadimg(path: Path, wait_factor: float) -> None:
    path.write_text(EC2UPLOADIMG.format(python=sys.executable, factor=wait_factor, script=str(_installed_script())))
    path.chmod(0o755)


def _installed_script() -> Path:
    files = importlib.metadata.distribution("ec2imgutils").files or []
    for file in files:
        if file.name == "ec2uploadimg":
            return Path(str(file.locate())).resolve()
    found = shutil.which("ec2uploadimg")
    if found is None:
        raise MissingProgramError(
            "ec2imgutils is installed, but its program ec2uploadimg is not to be found",
            hint="pip install --force-reinstall ec2imgutils",
        )
    return Path(found)


def _write_private(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
