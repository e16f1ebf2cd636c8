"""The files of a sandbox at its start: an image, a spool with a job, and the description of it all."""

import hashlib
import json
import lzma
import os
import random
import shutil
import struct
import time

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.sandbox.cloud import InitialState
from clouduploader.sandbox.layout import Layout

SAMPLE_NAME = "clouduploader-sample.x86_64-1.0.0-Build1.1.raw.xz"
SAMPLE_BYTES = 16 << 20  # unpacked; large enough to have holes and several SFTP windows of 2 MiB
SAMPLE_NOISE_BYTES = 3 << 20  # what xz can't shrink
SECTOR = 512


def clear(layout: Layout) -> None:
    """Create the directories that every cloud has, or empty them."""
    for directory in (layout.home, layout.spool, layout.bin):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    layout.calls.write_text("")


def write(layout: Layout, state: InitialState) -> None:
    """Write the sample image, job 1, and at last sandbox.json.

    Args:
        layout: Where; as `clear` left it, and with the files of the cloud.
        state: What the cloud begins with.
    """
    sample = _sample()
    if not layout.sample.exists():
        layout.sample.write_bytes(lzma.compress(sample, preset=0))
    _write_spool(layout, state)
    description = {
        **state.description,
        "ca": str(layout.ca),
        "home": str(layout.home),
        "spool": str(layout.spool),
        "calls": str(layout.calls),
        "sample": {"size_bytes": len(sample), "sha256": hashlib.sha256(sample).hexdigest()},
    }
    new = layout.description.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(description, indent=2) + "\n")
    new.rename(layout.description)


def _sample() -> bytes:
    """Return noise, a hole, and a last sector that says so: a lost or cut piece shows."""
    noise = random.Random(1).randbytes(SAMPLE_NOISE_BYTES)  # noqa: S311
    end = b"The last sector of the image.".ljust(SECTOR, b".")
    partition = struct.pack("<B3xB3xII", 0, 0x83, 1, SAMPLE_BYTES // SECTOR - 1)
    table = partition.ljust(64, b"\0") + b"\x55\xaa"  # an MBR, for what has none is no disk
    start = noise[: SECTOR - len(table)] + table + noise[SECTOR:]
    return start + bytes(SAMPLE_BYTES - len(noise) - SECTOR) + end


def _write_spool(layout: Layout, state: InitialState) -> None:
    """Write job 1 as OBS's server does when the image has come in."""
    (layout.spool / "done").mkdir()
    os.link(layout.sample, layout.spool / "1.file")
    (layout.spool / "1.data").write_text(json.dumps(state.target_data))
    job = Job(
        name="1",
        state=JobState.SCHEDULED,
        created=int(time.time()),
        user="sandbox",
        target=state.target,
        project="home:sandbox",
        repository="images",
        package="clouduploader-sample",
        arch="x86_64",
        filename=SAMPLE_NAME,
        size=layout.sample.stat().st_size,
    )
    (layout.spool / "1").write_bytes(job_xml.serialize(job))
    (layout.spool / "next").write_bytes(job_xml.serialize_next(2))
