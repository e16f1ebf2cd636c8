"""A disk to upload, and the job that it belongs to."""

from samples.minimal_disk import as_disk

from clouduploader.model.job import Job, JobState

RAW = as_disk(b"0123456789abcdef" * 999)
JOB = Job(name="42", state=JobState.UPLOADING, arch="x86_64", filename="from-the-job.raw.xz")
