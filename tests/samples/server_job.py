"""A job as a job server has it."""

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

JOB = Job(
    name="7", state=JobState.CREATED, user="o'brien & <sons>", target="ec2", filename="a.raw", size=5, details="w"
)
XML = job_xml.serialize(JOB)
