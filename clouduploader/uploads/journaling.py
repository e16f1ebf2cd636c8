"""The journal of one upload: which one it is, where it lies, and how an upload is written into it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError, LocalIOError, StoppedError, TransientError
from clouduploader.plugin import Event, UploadResult
from clouduploader.store import job_log, journal, workspace
from clouduploader.store.config import STATE_NAME, Config
from clouduploader.store.job_log import JobLog
from clouduploader.store.spool import paths
from clouduploader.uploads.task import UploadTask


class JournalWriter:
    """Writes into a journal from where an error must not be raised: it is logged as a warning instead.

    Args:
        opened: The journal, locked for us.
        log: Where a warning goes.
    """

    def __init__(self, opened: journal.UploadJournal, log: JobLog) -> None:
        self._journal, self._log = opened, log

    def take(self, event: Event) -> None:
        """Write down what was made or removed; a listener of `JobLog`."""
        with self._warned():
            self._journal.take(event)

    def end(self, outcome: journal.AttemptOutcome, result: UploadResult | None = None) -> None:
        """End the attempt; see `UploadJournal.end`."""
        with self._warned():
            self._journal.end(outcome, result)

    @contextlib.contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except ClouduploaderError as exc:
            self._log.line(f"Warning: {exc.message}")


def start_of(task: UploadTask, *, filename: str, work_dir: Path) -> journal.UploadStart:
    """Return the journal's first entry about an attempt.

    Args:
        task: The upload.
        filename: The image's real name.
        work_dir: Private to this attempt.
    """
    return journal.UploadStart(
        job=task.job.name if task.job else None,
        user=task.user,
        target=task.target,
        filename=filename,
        image_path=task.image_path.absolute(),
        is_by_hand=task.is_by_hand,
        work_dir=work_dir,
    )


@contextlib.contextmanager
def journalled(
    start: journal.UploadStart,
    *,
    key: str,
    targetdata: bytes | None,
    state_dir: Path,
    log: JobLog,
    witness: journal.Witness | None = None,
) -> Iterator[tuple[journal.UploadJournal, Callable[[UploadResult], None]]]:
    """Write down what is done inside, for the time after a crash; its end too, whatever it is.

    Args:
        start: Whose attempt it is.
        key: See `journal.key_of`.
        targetdata: As they came; None if they are not to lie beside the journal.
        state_dir: See `state_dir_of`; where it can't be written, the journal is a private one, and the log says so.
        log: Its events go into the journal.
        witness: Confirms each entry; with it, there is no private journal. None for none.

    Yields:
        The journal, and what to call with the result.

    Raises:
        LockedError: The same upload is under way already.
        TransientError: The journal of which there is a witness can't be written.
    """
    with _begun(start, key=key, targetdata=targetdata, state_dir=state_dir, log=log, witness=witness) as opened:
        writer = JournalWriter(opened, log)
        try:
            with log.listening(writer.take):
                yield opened, lambda result: writer.end(journal.AttemptOutcome.SUCCEEDED, result)
        except StoppedError:
            writer.end(journal.AttemptOutcome.STOPPED)
            raise
        except BaseException:
            writer.end(journal.AttemptOutcome.FAILED)
            raise


def state_dir_of(task: UploadTask, config: Config) -> Path:
    """Return where a task's journal lies: unless it is set, in the spool that has the job."""
    found = paths.job_of_image(task.image_path) if task.job else None
    if found and config.state.source == "default":
        return found[0] / STATE_NAME
    return config.state.value


@contextlib.contextmanager
def _begun(
    start: journal.UploadStart,
    *,
    key: str,
    targetdata: bytes | None,
    state_dir: Path,
    log: JobLog,
    witness: journal.Witness | None,
) -> Iterator[journal.UploadJournal]:
    """Open the journal, in the state directory if it can be, and begin an attempt in it."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(journal.open_journal(state_dir, key, witness))
            opened.begin(start, targetdata)
        except (CannotCreateError, LocalIOError) as exc:
            if witness:
                raise TransientError(exc.message, hint="Another host may have room for it.") from exc
            log.line(f"Warning: {exc.message}; if this upload is killed, it can't be resumed.")
            private = stack.enter_context(workspace.private_directory())
            opened = stack.enter_context(journal.open_journal(private, key))
            opened.begin(start, targetdata)
        else:
            job_log.tell_journal(log, key)
        yield opened
