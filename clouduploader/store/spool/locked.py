"""A running job whose lock is held: replaced, or archived."""

import contextlib
import errno
from collections.abc import Callable

from clouduploader.errors import JobFileError, LocalIOError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store.spool import records
from clouduploader.store.spool.paths import SpoolPaths
from clouduploader.util import files, privileges


class LockedJob:
    """A running job whose lock we hold; made by `Spool.lock` and good inside its block.

    Attributes:
        job: As it was when the lock was taken.
        directory: The spool.
    """

    def __init__(self, places: SpoolPaths, job: Job) -> None:
        self.job = job
        self.directory = places.directory
        self._places = places

    @privileges.works_as_owner
    def replace(self, job: Job, *, announce: Callable[[], None] | None = None) -> None:
        """Write the job's new state, as the last thing in the block: it ends the lock.

        The lock stays on the old file, which has no name any more; those who wait for it see that.

        Args:
            job: As it is now.
            announce: See `files.replace_file`.

        Raises:
            CannotCreateError: It can't be written; the old state is still there.
        """
        path = self._places.job_path(self.job.name)
        try:
            files.replace_file(path, job_xml.serialize(job), mode=files.PUBLIC_MODE, announce=announce)
        except OSError as exc:
            raise self._places.cannot_create(path, exc) from exc

    @privileges.works_as_owner
    def archive(self, job: Job) -> None:
        """Move the job to the archive, and remove its files; as OBS does it, and in its order.

        On a disk without room, or where no more files can be made, image and target data go first: the archive needs
        both, and nobody needs these any more.

        Args:
            job: In its final state.

        Raises:
            CannotCreateError: The archive can't be written; the job is still running.
            LocalIOError: A file can't be removed; the next `Spool.lock` tries again.
        """
        places = self._places
        try:
            try:
                self._write_archive(job)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._remove_inputs()
                self._write_archive(job)
        except OSError as exc:
            raise places.cannot_create(places.done_path(job.name), exc) from exc
        self.clear()

    def _write_archive(self, job: Job) -> None:
        places, name = self._places, job.name
        files.make_directory(places.done_dir, mode=files.PUBLIC_DIRECTORY_MODE)
        with contextlib.suppress(FileNotFoundError):
            places.log_path(name).replace(places.done_log_path(name))
        files.replace_file(places.done_path(name), job_xml.serialize(job), mode=files.PUBLIC_MODE)

    def _remove_inputs(self) -> None:
        """Remove what only an upload needs."""
        places, name = self._places, self.job.name
        for path in (places.data_path(name), places.file_path(name)):
            path.unlink(missing_ok=True)
        if self.job.state is JobState.RECEIVING:
            places.received_path(self.job).unlink(missing_ok=True)

    @privileges.works_as_owner
    def is_archive_written(self) -> bool:
        """Whether the archive has this job already: somebody who archived it did not get to the end."""
        try:
            return records.read_job(self._places.done_path(self.job.name), self.job.name).state.is_final
        except (FileNotFoundError, JobFileError, LocalIOError):
            return False

    @privileges.works_as_owner
    def clear(self) -> None:
        """Remove what an archived job leaves in the spool, its own file last.

        Raises:
            LocalIOError: Something can't be removed.
        """
        places, name = self._places, self.job.name
        try:
            self._remove_inputs()
            result_path = places.result_path(name)
            beside = (files.new_path(path) for path in (places.job_path(name), result_path))  # of a crash
            for path in (places.log_path(name), result_path, *beside):
                path.unlink(missing_ok=True)
            for directory in (places.work_dir(name), places.prepared_dir(name)):
                files.remove_tree(directory)
            places.job_path(name).unlink(missing_ok=True)
        except OSError as exc:
            raise LocalIOError(f"{exc.filename} can't be removed: {exc.strerror}") from exc
