"""By what the processes that work on a job are known."""

from clouduploader.model.job import Job, JobState
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util.processes import ProcessMatch


def process_match(paths: SpoolPaths, job: Job) -> ProcessMatch:
    """Return what the processes that work on a job can be known by: where they start, and what they write.

    The log of a job that a host of a cluster has is written by the server, which is no process of the job.
    """
    has_lease = job.pid is None and paths.lease_path(job.name).exists()
    written = [] if has_lease else [paths.log_path(job.name), paths.done_log_path(job.name)]
    if job.state is JobState.RECEIVING:
        written.append(paths.received_path(job))
    return ProcessMatch(work_dir=paths.work_dir(job.name), written_paths=tuple(written))
