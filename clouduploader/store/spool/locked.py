"""Replace or archive a running job whose lock is held."""

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
    """A running job whose lock is held; made by `Spool.lock` and good inside its block.

    Attributes:
        job: As it was when the lock was taken.
        directory: The spool.
    """

    def __init__(self, paths: SpoolPaths, job: Job) -> None:
        self.job = job
        self.directory = paths.directory
        self._paths = paths

    @privileges.works_as_owner
    def replace(self, job: Job, *, announce: Callable[[], None] | None = None) -> None:
        """Write the job's new state, as the last thing in the block: it ends the lock.

        The lock stays on the old file, which has no name any more; processes that wait for it see that.

        Args:
            job: As it is now.
            announce: See `files.replace_file`.

        Raises:
            CannotCreateError: It can't be written; the old state is still there.
        """
        path = self._paths.job_path(self.job.name)
        try:
            files.replace_file(path, job_xml.serialize(job), mode=files.GROUP_MODE, announce=announce)
        except OSError as exc:
            raise self._paths.cannot_create(path, exc) from exc

    @privileges.works_as_owner
    def archive(self, job: Job) -> None:
        """Move the job to the archive, and remove its files; as OBS does it, and in its order.

        On a disk without room, or where no more files can be made, image and target data go first: the archive needs
        both, and no process needs these any more.

        Args:
            job: In its final state.

        Raises:
            CannotCreateError: The archive can't be written; the job is still running.
            LocalIOError: A file can't be removed; the next `Spool.lock` tries again.
        """
        paths = self._paths
        try:
            try:
                self._write_archive(job)
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._remove_inputs()
                self._write_archive(job)
        except OSError as exc:
            raise paths.cannot_create(paths.done_path(job.name), exc) from exc
        self.clear()

    def _write_archive(self, job: Job) -> None:
        paths, name = self._paths, job.name
        files.make_directory(paths.done_dir, mode=files.GROUP_DIRECTORY_MODE)
        with contextlib.suppress(FileNotFoundError):
            paths.log_path(name).replace(paths.done_log_path(name))
        files.replace_file(paths.done_path(name), job_xml.serialize(job), mode=files.GROUP_MODE)

    def _remove_inputs(self) -> None:
        """Remove what only an upload needs."""
        paths, name = self._paths, self.job.name
        for path in (paths.data_path(name), paths.file_path(name)):
            path.unlink(missing_ok=True)
        if self.job.state is JobState.RECEIVING:
            paths.received_path(self.job).unlink(missing_ok=True)

    @privileges.works_as_owner
    def is_archive_written(self) -> bool:
        """Tell whether the archive has this job already: a process that archived it did not get to the end."""
        try:
            return records.read_job(self._paths.done_path(self.job.name), self.job.name).state.is_final
        except (FileNotFoundError, JobFileError, LocalIOError):
            return False

    @privileges.works_as_owner
    def clear(self) -> None:
        """Remove what an archived job leaves in the spool, its own file last.

        Raises:
            LocalIOError: Something can't be removed.
        """
        paths, name = self._paths, self.job.name
        try:
            self._remove_inputs()
            result_path = paths.result_path(name)
            beside = (files.new_path(path) for path in (paths.job_path(name), result_path))  # of a crash
            for path in (paths.log_path(name), result_path, *beside):
                path.unlink(missing_ok=True)
            for directory in (paths.work_dir(name), paths.prepared_dir(name)):
                files.remove_tree(directory)
            paths.job_path(name).unlink(missing_ok=True)
        except OSError as exc:
            raise LocalIOError(f"{exc.filename} can't be removed: {exc.strerror}") from exc
