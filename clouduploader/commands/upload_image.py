"""An upload that a person starts: a job of the spool like OBS's own, but without OBS."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clouduploader import joblog, runner
from clouduploader.config import Config
from clouduploader.errors import ClouduploaderError, NoSuchJobError, StoppedError
from clouduploader.image import packing
from clouduploader.job import Details, Job, JobState
from clouduploader.platform import UploadResult
from clouduploader.spool import Spool
from clouduploader.stop import Stop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What a person wants.

    Attributes:
        user: Whose job it is.
        target: The platform's name.
        image_path: The image.
        targetdata: The bytes of the target data.
        events_path: Where the events go, or None.
    """

    user: str
    target: str
    image_path: Path
    targetdata: bytes = dataclasses.field(repr=False)
    events_path: Path | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished upload.

    Attributes:
        job: As it is archived.
        result: What the cloud gave.
    """

    job: Job
    result: UploadResult


def check(order: Order, *, config: Config, log: joblog.JobLog, stop: Stop) -> list[str]:
    """Say what `run` would do, having checked all that can be checked without a change.

    Raises:
        ClouduploaderError: `run` would fail with this.
    """
    return runner.plan(_task(order, job=None), config=config, log=log, stop=stop)


def run(
    order: Order,
    *,
    config: Config,
    stop: Stop,
    sinks: Sequence[joblog.Sink],
    is_verbose: bool,
    watch: Callable[[Job, joblog.JobLog], None],
) -> Outcome:
    """Enter a job into the spool, upload, and archive it.

    Args:
        order: See Order.
        config: See Config.
        stop: See Stop.
        sinks: Where the log goes, besides the job's file.
        is_verbose: Whether it has what somebody who debugs wants to see.
        watch: Called once with the job and its log, before anything is done; may listen to its events.

    Raises:
        StoppedError: It was stopped; all is cleaned up, the job is archived.
        ClouduploaderError: It failed; all is cleaned up, the job is archived. Where image or target data could not be
            read to begin with, there is no job.
    """
    image = packing.describe(order.image_path, order.image_path.name, stop)
    runner.check_targetdata(_task(order, job=None), config=config)  # what is wrong before the job is no job's failure
    spool = Spool(config.spool.value)
    job = Job(
        name=spool.allocate(),
        state=JobState.UPLOADING,
        created=int(time.time()),
        user=order.user,
        target=order.target,
        filename=order.image_path.name,
        size=image.size_bytes,
        pid=os.getpgrp(),
    )
    file = spool.register(job, targetdata=order.targetdata, image_path=order.image_path)
    with contextlib.closing(file):
        log = joblog.JobLog([file, *sinks], is_verbose=is_verbose)
        try:
            watch(job, log)
            result = runner.run(_task(order, job=job), config=config, log=log, stop=stop, events_path=order.events_path)
        except StoppedError as exc:
            runner.tell_failure(log, exc, exc)
            _archive(spool, job.ended(JobState.FAILED, Details.KILLED))
            raise
        except BaseException as exc:
            error = exc if isinstance(exc, ClouduploaderError) else ClouduploaderError(f"bug: {type(exc).__name__}")
            _archive(spool, job.ended(JobState.FAILED, runner.tell_failure(log, exc, error)))
            raise
        return Outcome(_archive(spool, job.ended(JobState.SUCCEEDED, joblog.one_line(result.id))), result)


def _archive(spool: Spool, job: Job) -> Job:
    """Archive a job that has ended, unless somebody who killed it has done so already."""
    with contextlib.suppress(NoSuchJobError), spool.lock(job.name) as locked:
        locked.archive(job)
    return job


def _task(order: Order, *, job: Job | None) -> runner.Task:
    return runner.Task(
        user=order.user,
        target=order.target,
        image_path=order.image_path,
        targetdata=order.targetdata,
        filename=None,
        job=job,
        is_by_hand=True,
    )
