"""A home, a spool with a job that has a log, and an image beside it."""

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState


def lay_out(place):
    """Make `home`, `spool` and `a.raw` in a directory; the job is 1."""
    done = place / "spool" / "done"
    done.mkdir(parents=True)
    (place / "home").mkdir()
    job = Job(name="1", state=JobState.SUCCEEDED, created=1795361942, user="tom", target="ec2", filename="a.raw")
    (done / "1").write_bytes(job_xml.serialize(job))
    (done / "1.log").write_text("Phase: upload\n")
    (place / "a.raw").write_bytes(bytes(510) + b"\x55\xaa")
