"""Read the records of a spool, whatever is in their files."""

import os
from pathlib import Path

from clouduploader.errors import JobFileError, LocalIOError
from clouduploader.model import job_xml
from clouduploader.model.job import Job
from clouduploader.util import files

MAX_JOB_BYTES = 10_000_000  # what OBS takes from the network for one (bs_clouduploadserver)
READ_BYTES = 65_536  # a job has some hundred


def names(directory: Path) -> list[str]:
    """Return the names of the jobs whose records are in a directory.

    Raises:
        OSError: It can't be read.
    """
    is_name = job_xml.NAME.fullmatch
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if is_name(entry.name)]


def read_job(path: Path, name: str) -> Job:
    """Read the job of that name.

    Raises:
        FileNotFoundError: There is no such file.
        JobFileError, LocalIOError: See `Spool.read`.
    """
    data = _read_bytes(path)
    try:
        job = job_xml.parse(data)
    except JobFileError as exc:
        raise JobFileError(f"{path} is damaged: {exc.message}") from exc
    if job.name != name:
        raise JobFileError(f"{path} is damaged: it holds the job {job.name}")
    return job


def read_next(path: Path) -> int:
    """Read the id of the next job.

    Raises:
        FileNotFoundError: There is no such file.
        JobFileError, LocalIOError: It is damaged, or can't be read.
    """
    try:
        return job_xml.parse_next(_read_bytes(path))
    except JobFileError as exc:
        raise JobFileError(
            f"{path} is damaged: {exc.message}", hint="Remove it: it will be made anew from the jobs there are."
        ) from exc


def _read_bytes(path: Path) -> bytes:
    try:
        descriptor = files.open_regular(path, os.O_RDONLY)
        try:
            data = piece = os.read(descriptor, READ_BYTES)
            while len(piece) == READ_BYTES and len(data) <= MAX_JOB_BYTES:
                piece = os.read(descriptor, READ_BYTES)
                data += piece
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    if len(data) > MAX_JOB_BYTES:
        raise JobFileError(f"{path} is damaged: it is larger than {MAX_JOB_BYTES} bytes")
    return data
