"""The paths of a spool's files, and the jobs that their names tell of."""

import os
import re
from pathlib import Path

from clouduploader.errors import CannotCreateError, LocalIOError, MissingFileError, NoSuchJobError
from clouduploader.model.job import Job

_SPOOL_HINT = (
    "A server makes it when it starts, and a plain user's own is made where that user's home can be written; "
    "--spool or CLOUDUPLOADER_SPOOL name another one."
)
_IMAGE_NAME = re.compile(r"([0-9]+)\.file")
_LOG_NAME = re.compile(r"([0-9]+)\.log")
_CLEANUP_NAME = re.compile(r"\.([0-9]{1,18})\.cleanup")
_LEASE_NAME = re.compile(r"\.([0-9]{1,18})\.lease")
_STORED_NAME = re.compile(r"\.([0-9]{1,18})\.stored")
_PART_NAME = re.compile(
    r"\.?([0-9]{1,18})\.(?:data|file[0-9]*)|\.{1,2}([0-9]{1,18})\.lease(?:\.new)?|\.\.([0-9]{1,18})\.stored\.new"
    r"|\.([0-9]{1,18}|next)(?:\.data)?\.new(?:\.[0-9a-z_]+)?"
)


def job_of_image(image_path: Path) -> tuple[Path, str] | None:
    """Return the spool's directory and the job's name for an image that is called as OBS does; None for others."""
    found = _IMAGE_NAME.fullmatch(image_path.name)
    return (image_path.parent, found[1]) if found else None


def job_of_log(log_path: Path) -> str | None:
    """Return the job's name for a log that is called as OBS does; None for others."""
    found = _LOG_NAME.fullmatch(log_path.name)
    return found[1] if found else None


def job_of_part(filename: str) -> str | None:
    """Return to which job a file in a spool's directory belongs that is left when its record is missing.

    That is what is written before the record, what is left when only that got lost, and a file that was never moved to
    its place.

    Returns:
        The job's name, or "next" for the file `next`; None for other files.
    """
    found = _PART_NAME.fullmatch(filename)
    return next(filter(None, found.groups())) if found else None


class SpoolPaths:
    """The paths in one spool directory.

    Args:
        directory: Absolute.

    Attributes:
        directory: See Args.
        done_dir: The archive.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.done_dir = directory / "done"

    def job_path(self, name: str) -> Path:
        """Return the path of a running job's XML."""
        return self.directory / name

    def data_path(self, name: str) -> Path:
        """Return the path of a running job's target data."""
        return self.directory / f"{name}.data"

    def file_path(self, name: str) -> Path:
        """Return the path of a running job's image."""
        return self.directory / f"{name}.file"

    def log_path(self, name: str) -> Path:
        """Return the path of a running job's log."""
        return self.directory / f"{name}.log"

    def result_path(self, name: str) -> Path:
        """Return the path to which a running job's uploader writes its result."""
        return self.directory / f"{name}.result"

    def work_dir(self, name: str) -> Path:
        """Return the directory in which a running job's uploader starts."""
        return self.directory / f"{name}.dir"

    def prepared_dir(self, name: str) -> Path:
        """Return what becomes `work_dir` on the line before the uploader is executed; while it is there, none was."""
        return self.directory / f".{name}.dir"

    def done_path(self, name: str) -> Path:
        """Return the path of an archived job's XML."""
        return self.done_dir / name

    def done_log_path(self, name: str) -> Path:
        """Return the path of an archived job's log."""
        return self.done_dir / f"{name}.log"

    @property
    def ping_path(self) -> Path:
        """The fifo by which OBS's server wakes the worker."""
        return self.directory.parent / "events" / "clouduploadworker" / ".ping"

    def received_path(self, job: Job) -> Path:
        """Return the path to which OBS's server writes the image of a job while it receives it."""
        return self.directory / f".{job.name}.file{job.pid}"

    def cleanup_path(self, name: str) -> Path:
        """Return the path of the file that says that the worker has to clean up in the cloud after a job."""
        return self.directory / f".{name}.cleanup"

    def pending_cleanups(self) -> list[str]:
        """Return the jobs, archived or not, after which the worker has to clean up in the cloud."""
        found = (_CLEANUP_NAME.fullmatch(path.name) for path in self.directory.glob(".*.cleanup"))
        return [match[1] for match in found if match]

    def lease_path(self, name: str) -> Path:
        """Return the path of the file that says which host of a cluster has a job."""
        return self.directory / f".{name}.lease"

    def leased_names(self) -> list[str]:
        """Return the jobs, archived or not, that have such a file."""
        found = (_LEASE_NAME.fullmatch(path.name) for path in self.directory.glob(".*.lease"))
        return [match[1] for match in found if match]

    def stored_path(self, name: str) -> Path:
        """Return the path of the file that says where in an object store a job's image is."""
        return self.directory / f".{name}.stored"

    def stored_names(self) -> list[str]:
        """Return the jobs, archived or not, that have such a file."""
        found = (_STORED_NAME.fullmatch(path.name) for path in self.directory.glob(".*.stored"))
        return [match[1] for match in found if match]

    def free_bytes(self) -> int:
        """Return how many bytes are free in the spool for users other than root.

        Raises:
            LocalIOError: It can't be seen.
        """
        status = self._file_system()
        return status.f_bavail * status.f_frsize

    def free_inodes(self) -> int | None:
        """Return how many files users other than root can make in the spool; None if there is no such limit.

        Raises:
            LocalIOError: It can't be seen.
        """
        status = self._file_system()
        return status.f_favail if status.f_files else None  # Btrfs, for one, has none

    def _file_system(self) -> os.statvfs_result:
        try:
            return os.statvfs(self.directory)
        except OSError as exc:
            raise LocalIOError(f"the spool {self.directory} can't be looked at: {exc.strerror}") from exc

    def no_such_job(self, name: str) -> NoSuchJobError:
        """Make the error for a job that is not there."""
        if not self.directory.is_dir():
            return NoSuchJobError(f"there is no job {name}: there is no spool {self.directory}", hint=_SPOOL_HINT)
        return NoSuchJobError(
            f"there is no job {name} in {self.directory}", hint="`clouduploader list` shows the jobs."
        )

    def missing(self) -> MissingFileError:
        """Make the error where there is no spool."""
        return MissingFileError(f"there is no spool {self.directory}", hint=_SPOOL_HINT)

    def cannot_create(self, path: Path, exc: OSError) -> CannotCreateError | MissingFileError:
        """Make the error for a file that could not be written."""
        if not self.directory.is_dir():
            return self.missing()
        return CannotCreateError(f"{path} can't be written: {exc.strerror}")
