"""An upload that a person starts: a job of the spool like OBS's own, but without OBS."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clouduploader import joblog, runner
from clouduploader.config import Config
from clouduploader.errors import CannotCreateError, ClouduploaderError, NoSuchJobError, StoppedError
from clouduploader.frozen import frozen
from clouduploader.image import packing
from clouduploader.job import Details, Job, JobState
from clouduploader.platform import Plan, UploadResult
from clouduploader.spool import Spool
from clouduploader.stop import Stop


@frozen(kw_only=True)
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


@frozen()
class Outcome:
    """A finished upload.

    Attributes:
        job: As it is archived.
        result: What the cloud gave.
        warning: What went wrong on this machine once it had, or None.
    """

    job: Job
    result: UploadResult
    warning: str | None = None


def check(order: Order, *, config: Config, log: joblog.JobLog, stop: Stop) -> Plan:
    """Say what `run` would do, having checked all that can be checked without a change.

    Raises:
        ClouduploaderError: `run` would fail with this.
    """
    _check_events(order)
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
    _check_events(order)
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
        log = joblog.JobLog([file, *sinks], is_verbose=is_verbose, has_times=True)
        try:
            watch(job, log)
            joblog.tell_beginning(log, user=order.user, target=order.target)
            result = runner.run(_task(order, job=job), config=config, log=log, stop=stop, events_path=order.events_path)
        except StoppedError as exc:
            runner.tell_failure(log, exc, exc)
            archive(spool, job.ended(JobState.FAILED, Details.KILLED), log)
            raise
        except BaseException as exc:
            error = exc if isinstance(exc, ClouduploaderError) else ClouduploaderError(f"bug: {type(exc).__name__}")
            archive(spool, job.ended(JobState.FAILED, runner.tell_failure(log, exc, error)), log)
            raise
        job = job.ended(JobState.SUCCEEDED, joblog.one_line(result.id))
        return Outcome(job, result, archive(spool, job, log))


def _check_events(order: Order) -> None:
    if order.events_path and not order.events_path.parent.is_dir():
        raise CannotCreateError(f"the events file {order.events_path} can't be written: there is no such directory")


def archive(spool: Spool, job: Job, log: joblog.JobLog) -> str | None:
    """Archive a job that has ended, unless whoever killed it has done so.

    Returns:
        Why it can't be archived, or None; that changes nothing in how the upload ended.
    """
    try:
        with spool.lock(job.name) as locked:
            locked.archive(job)
    except NoSuchJobError:
        pass
    except ClouduploaderError as exc:
        warning = f"the job {job.name} can't be archived: {exc.message}"
        log.line(f"Warning: {warning}")
        return warning
    return None


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
