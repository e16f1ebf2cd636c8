"""A disk to upload, the job that it belongs to, and requests of platforms."""

import dataclasses
from pathlib import Path

from samples.minimal_disk import as_disk

from clouduploader.model.disk import Compression, Image
from clouduploader.model.job import Job, JobState
from clouduploader.plugin.testing import MemoryJournal, make_request

RAW = as_disk(b"0123456789abcdef" * 999)
JOB = Job(name="42", state=JobState.UPLOADING, arch="x86_64", filename="from-the-job.raw.xz")


def make_upload_request(path, work_dir, **changes):
    """A request for a raw image file that exists; everything can be given instead."""
    path = Path(path)
    image = Image(path, path.name, Compression.RAW, path.stat().st_size if path.is_file() else 0)
    journal = MemoryJournal(Path(f"{work_dir}.journal"))
    request = make_request(image, {}, work_dir)
    defaults = {"user": "tom", "job_name": None, "arch": None, "provenance": {}, "journal": journal}
    return dataclasses.replace(request, **(defaults | changes))
