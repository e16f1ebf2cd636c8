"""One job, from request to result: target data, link, platform, log, clean-up."""

import contextlib
import dataclasses
import functools
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ExitCode,
    ImageError,
    LocalIOError,
    MissingFileError,
    StoppedError,
    TargetDataError,
    TransientError,
    UnavailableError,
)
from clouduploader.image import open as image_open
from clouduploader.model.disk import BlockSource, Image, ImageFacts, ImageStream, ZeroBlocks
from clouduploader.model.job import Job
from clouduploader.plugin import (
    BytesMoved,
    Cost,
    Event,
    ImageFound,
    Plan,
    Platform,
    UploadContext,
    UploadRequest,
    UploadResult,
)
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.store import home, job_log, journal, keyring, spool, target_data, workspace
from clouduploader.store.config import STATE_NAME, Config
from clouduploader.store.job_log import JobLog, one_line
from clouduploader.uploads import registry
from clouduploader.util import files
from clouduploader.util.cancel import Cancel
from clouduploader.util.filenames import base_name
from clouduploader.util.frozen import frozen

MIN_SECRET_LENGTH = 8  # ours: what is longer stands in no message by chance
MENDED_SECONDS = 2.0  # until the next look at a full disk; soon enough, and no load
_SPOOL_FILE = re.compile(r"(\d+)\.file")  # how OBS calls the image of a job


@frozen(kw_only=True)
class UploadTask:
    """What is to be uploaded, for whom, and where to.

    Attributes:
        user: Anything.
        target: Names the platform.
        image_path: The image.
        targetdata: The bytes of the target data.
        filename: The image's real name if the caller knows it; not trusted.
        job: The record in the spool, or None.
        is_by_hand: Whether a person started it for himself.
    """

    user: str
    target: str
    image_path: Path
    targetdata: bytes = dataclasses.field(repr=False)
    filename: str | None
    job: Job | None
    is_by_hand: bool


def job_of(image_path: Path) -> tuple[spool.Spool, str] | None:
    """The spool and the id of the job that an image belongs to, by OBS's way of naming it."""
    found = _SPOOL_FILE.fullmatch(image_path.name)
    return (spool.Spool(image_path.parent), found[1]) if found else None


def read_targetdata(path: Path, *, is_of_spool: bool = False) -> bytes:
    """Read a file of target data; more than is allowed is left out, for the parser to refuse.

    Args:
        path: May be a pipe, whose writer is waited for.
        is_of_spool: Whether it lies in a spool: then it is a regular file, or refused.

    Raises:
        MissingFileError: There is none.
        LocalIOError: It can't be read.
    """
    try:
        with files.as_owner(path.parent) if is_of_spool else contextlib.nullcontext():
            file = files.open_read(path) if is_of_spool else path.open("rb")
        with file:
            return file.read(target_data.MAX_SIZE_BYTES + 1)
    except FileNotFoundError as exc:
        raise MissingFileError(f"there are no target data {path}") from exc
    except OSError as exc:
        raise LocalIOError(f"the target data {path} can't be read: {exc.strerror}") from exc


def check_targetdata(task: UploadTask, *, config: Config) -> None:
    """Look whether `run` could begin: whether there is the platform, and the target data are right.

    Raises:
        ClouduploaderError: `run` would fail with this.
    """
    _read(task, config)


def _read(task: UploadTask, config: Config) -> tuple[Platform, target_data.TargetData]:
    platform = registry.load(task.target, config)
    keys = keyring.Keyring(config.home.value, config.environment)
    data = target_data.read(task.targetdata, platform, keys)
    if any(len(secret) < MIN_SECRET_LENGTH for secret in data.secrets):
        raise TargetDataError(
            f"the target data have a secret of less than {MIN_SECRET_LENGTH} characters: masked in the log, it would"
            " take parts out of other words",
            hint="Take a longer one, or do not encrypt it.",
        )
    return platform, data


def run(task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel, events_path: Path | None) -> UploadResult:
    """Upload, and wait until the image can be used. Blocks for minutes or hours.

    Args:
        task: See UploadTask.
        config: See Config.
        log: Of this job.
        cancel: See Cancel.
        events_path: Where the events are written as JSON lines, or None.

    Raises:
        StoppedError: `cancel` was requested; all is cleaned up.
        LockedError: The same upload is under way already.
        ClouduploaderError: It failed; all is cleaned up.
    """
    began = time.monotonic()
    workspace.remove_stale()
    with _masked(log), _recorded(task, events_path, log) as record:
        with (
            _prepared(task, config=config, log=log, cancel=cancel) as prepared,
            _journalled(prepared, task, config, log) as (
                request,
                end,
            ),
        ):
            ctx = UploadContext(prepared.platform, request, log, cancel)
            with undone_on_failure(prepared.platform, ctx):
                result = prepared.platform.upload(ctx)
            for shortfall in result.shortfalls:
                log.line(f"Failed: {shortfall.subject}: {shortfall.reason}")
            if result.is_already_there:
                job_log.tell_found(log, result.objects)
            end(result)
        record(result)
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    log.line(f"Upload took: {minutes // 60:02}:{minutes % 60:02}:{seconds:02}")
    return result


def plan(task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel) -> Plan:
    """Check all that can be checked without a change, and say what `run` would do.

    Raises:
        StoppedError: `cancel` was requested.
        ClouduploaderError: `run` would fail with this.
    """
    with (
        _prepared(task, config=config, log=log, cancel=cancel, is_plan=True) as prepared,
        workspace.private_directory() as nowhere,
        journal.open_journal(nowhere, prepared.key) as opened,
        cancel.interruptible(),
    ):
        steps = list(prepared.platform.plan(UploadContext(prepared.platform, prepared.request(opened), log, cancel)))
        return Plan(
            steps=tuple(step for step in steps if isinstance(step, str)),
            costs=tuple(step for step in steps if isinstance(step, Cost)),
        )


@contextlib.contextmanager
def _masked(log: JobLog) -> Iterator[None]:
    """Take the secrets out of an error's words: it goes to places besides the log, and may quote AWS.

    Raises:
        TransientError: A disk of ours is full, or read-only after a fault: another try may work.
    """
    try:
        yield
    except ClouduploaderError as exc:
        exc.message = log.masked(exc.message)
        exc.hint = exc.hint and log.masked(exc.hint)
        cause = exc.__cause__
        is_local = isinstance(exc, CannotCreateError | LocalIOError)
        if is_local and isinstance(cause, OSError) and cause.errno in job_log.PASSING:
            raise TransientError(exc.message, hint=exc.hint) from exc
        raise


@contextlib.contextmanager
def _recorded(task: UploadTask, path: Path | None, log: JobLog) -> Iterator[Callable[[UploadResult], None]]:
    """Write the events of what is done inside, its end included, whatever it is."""
    if path is None:
        yield lambda _result: None
        return
    from clouduploader.store import event_file

    file = event_file.EventFile(path)
    log.listen(file)
    file.start(job=task.job.name if task.job else None, user=one_line(task.user), target=one_line(task.target))
    try:
        yield lambda result: file.end(
            outcome="succeeded",
            result=result.id,
            reason=None,
            exit_code=ExitCode.OK,
            shortfalls=result.shortfalls,
        )
    except ClouduploaderError as exc:
        outcome = "stopped" if isinstance(exc, StoppedError) else "failed"
        file.end(outcome=outcome, result=None, reason=log.masked(reason(exc)), exit_code=int(exc.exit_code))
        raise
    except BaseException as exc:
        file.end(outcome="failed", result=None, reason=type(exc).__name__, exit_code=ExitCode.SOFTWARE)
        raise


@frozen()
class _Prepared:
    """An upload that may begin.

    Attributes:
        platform: Which does it.
        key: Of its journal.
        filename: The image's real name.
        work_dir: Private to this upload.
        request: Makes the request with a journal.
    """

    platform: Platform
    key: str
    filename: str
    work_dir: Path
    request: Callable[[journal.UploadJournal], UploadRequest]


@contextlib.contextmanager
def _prepared(
    task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel, is_plan: bool = False
) -> Iterator[_Prepared]:
    with cancel.interruptible():  # gpg may wait for somebody who holds its lock
        platform, data = _read(task, config)
    for secret in data.secrets:
        log.hide(secret)
    if data.unknown_keys:
        log.detail(f"The target data have keys that {task.target} does not use: {', '.join(data.unknown_keys)}.")
    for path in home.exposed(config.home.value):
        log.detail(f"Warning: others on this machine can read {path}.")
    filename = _real_name(task, data)
    image = image_open.describe(task.image_path, filename, cancel)
    if not is_plan:
        log.event(ImageFound(image))
    link_name = platform.link_name(image)
    log.detail(f"{image.path} is {image.size_bytes} bytes, packed as {image.packing}, and linked as {link_name}.")
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(workspace.private_directory())
        link = _link(stack, image.path, _own_directory(task), work_dir, link_name)
        reading = _Reading(task, image, data, config, log, cancel)
        _require_disk(platform, reading, image, log)

        def request(opened: journal.UploadJournal) -> UploadRequest:
            return UploadRequest(
                user=task.user,
                job_name=task.job.name if task.job else None,
                arch=(task.job.arch or None) if task.job else None,  # empty where nobody built it
                image=dataclasses.replace(image, path=link),
                targetdata=data.values,
                work_dir=work_dir,
                is_by_hand=task.is_by_hand,
                measure_image=reading.measure,
                inspect_image=lambda: reading.facts,
                open_blocks=reading.open_blocks,
                open_stream=reading.open_stream,
                check_unchanged=reading.check_unchanged,
                journal=opened,
                provenance=_provenance(task.job),
            )

        yield _Prepared(platform, key_of(task, platform, filename, data), filename, work_dir, request)


def _link(stack: contextlib.ExitStack, image_path: Path, own: Path | None, work_dir: Path, name: str) -> Path:
    """Link the image where the job was started; elsewhere, or if that disk takes no link, in its private directory."""
    if own:
        with contextlib.suppress(CannotCreateError):
            return stack.enter_context(workspace.linked(image_path, own, name))
    return stack.enter_context(workspace.linked(image_path, work_dir, name))


def _require_disk(platform: Platform, reading: "_Reading", image: Image, log: JobLog) -> None:
    """Refuse an image that is none of a disk, unless that is forced or the platform stores files of any kind.

    Raises:
        ImageError: It is none, or damaged.
        ClouduploaderError: It can't be read.
    """
    needs_disk = platform.needs_disk
    try:
        found = reading.facts
    except (ImageError, UnavailableError) as exc:
        if needs_disk:
            raise
        log.line(f"Warning: it is not known whether this is a disk: {exc.message}.")
        return
    for warning in found.warnings:
        log.line(f"Warning: {warning}.")
    if found.no_disk is None:
        return
    refusal = image_open.refusal(image, found.no_disk)
    if (needs_disk or found.no_disk.is_known) and not reading.is_forced:
        raise refusal
    log.line(f"Warning: {refusal.message}.")


def key_of(task: UploadTask, platform: Platform, filename: str, data: target_data.TargetData) -> str:
    """The key of an upload's journal."""
    secret = {field.name for field in platform.fields if field.is_secret}
    values = {name: value for name, value in data.values.items() if name not in secret}
    return journal.key_of(target=task.target, user=task.user, filename=filename, values=values)


def _provenance(job: Job | None) -> dict[str, str]:
    names = ("project", "package", "repository", "arch")
    return {name: value for name in names if job and (value := getattr(job, name))}


class _Reading:
    """The ways in which a platform reads the image; nothing is read before one of them is called."""

    def __init__(
        self, task: UploadTask, image: Image, data: target_data.TargetData, config: Config, log: JobLog, cancel: Cancel
    ) -> None:
        self._task, self._image, self._config, self._log, self._cancel = task, image, config, log, cancel
        promised = data.values.get("sha256")
        self._promised = promised if isinstance(promised, str) else None
        self.is_forced = bool(data.values.get("force"))
        self._overlook = functools.lru_cache(None)(self._tell_overlooked) if self.is_forced else None  # each once

    def measure(self, *, is_by_name: bool = True) -> int:
        return image_open.measure(
            self._image,
            on_bytes=self._tell_bytes,
            cancel=self._cancel,
            expected_sha256=self._expected_sha256(),
            max_size_bytes=self._config.max_size.value,
            is_by_name=is_by_name,
            in_sectors=not self.is_forced,
            overlook=self._overlook,
        )

    @functools.cached_property
    def facts(self) -> ImageFacts:
        from clouduploader.image import inspect

        return inspect.inspect(self._image, self._cancel, self._overlook)

    def open_blocks(self, block_bytes: int, zero_blocks: ZeroBlocks) -> contextlib.AbstractContextManager[BlockSource]:
        return image_open.open_blocks(
            self._image,
            block_bytes=block_bytes,
            zero_blocks=zero_blocks,
            expected_sha256=self._expected_sha256(),
            max_size_bytes=self._config.max_size.value,
            cancel=self._cancel,
            reporter=self._log,
            in_sectors=not self.is_forced,
            overlook=self._overlook,
        )

    def open_stream(self, encoding: str, digest: str) -> contextlib.AbstractContextManager[ImageStream]:
        from clouduploader.image import encode

        facts = self.facts
        return encode.open_stream(
            self.open_blocks,
            image=self._image,
            check_unchanged=self.check_unchanged,
            cancel=self._cancel,
            encoding=encoding,
            digest=digest,
            size_bytes=facts.size_bytes if facts.is_size_exact else None,
        )

    def check_unchanged(self, sha256: str | None = None) -> None:
        image_open.check_unchanged(self._image, sha256, self._expected_sha256() if sha256 else None)

    def _tell_overlooked(self, message: str) -> None:
        self._log.line(f"Going on all the same, as force says: {message}.")

    def _tell_bytes(self, done_bytes: int) -> None:
        self._log.event(BytesMoved(done_bytes, self._image.size_bytes))

    def _expected_sha256(self) -> str | None:
        from clouduploader.image import file_digest

        return self._promised or file_digest.beside(self._task.image_path, self._image.filename)


@contextlib.contextmanager
def _journalled(
    prepared: _Prepared, task: UploadTask, config: Config, log: JobLog
) -> Iterator[tuple[UploadRequest, Callable[[UploadResult], None]]]:
    """Write down what is done inside, for the time after a crash; its end too, whatever it is.

    Yields:
        The request, and what to call with the result.
    """
    beginning = journal.UploadStart(
        job=task.job.name if task.job else None,
        user=task.user,
        target=task.target,
        filename=prepared.filename,
        image_path=task.image_path.absolute(),
        is_by_hand=task.is_by_hand,
        work_dir=prepared.work_dir,
    )
    with _journal(prepared.key, beginning, task.targetdata, state_dir(task, config), log) as opened:
        notes = UploadNotes(opened, log)
        try:
            with log.listening(notes.take):
                yield prepared.request(opened), lambda result: notes.end(journal.AttemptOutcome.SUCCEEDED, result)
        except StoppedError:
            notes.end(journal.AttemptOutcome.STOPPED)
            raise
        except BaseException:
            notes.end(journal.AttemptOutcome.FAILED)
            raise


class UploadNotes:
    """Writes to a journal from where an error must not come up: the log has it then."""

    def __init__(self, opened: journal.UploadJournal, log: JobLog) -> None:
        self._journal, self._log = opened, log

    def take(self, event: Event) -> None:
        """Listen to what was made and removed."""
        try:
            self._journal.take(event)
        except ClouduploaderError as exc:
            self._log.line(f"Warning: {exc.message}")

    def end(self, outcome: journal.AttemptOutcome, result: UploadResult | None = None) -> None:
        """End the try."""
        try:
            self._journal.end(outcome, result)
        except ClouduploaderError as exc:
            self._log.line(f"Warning: {exc.message}")


def state_dir(task: UploadTask, config: Config) -> Path:
    """Where a task's journal lies: unless it is set, in the spool that has the job."""
    found = job_of(task.image_path) if task.job else None
    if found and config.state.source == "default":
        return found[0].directory / STATE_NAME
    return config.state.value


@contextlib.contextmanager
def _journal(
    key: str, beginning: journal.UploadStart, data: bytes, directory: Path, log: JobLog
) -> Iterator[journal.UploadJournal]:
    """The journal, in the state directory if it can be, with a try begun in it."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(journal.open_journal(directory, key))
            opened.begin(beginning, data)
        except (CannotCreateError, LocalIOError) as exc:
            log.line(f"Warning: {exc.message}; if this upload is killed, it can't be resumed.")
            private = stack.enter_context(workspace.private_directory())
            opened = stack.enter_context(journal.open_journal(private, key))
            opened.begin(beginning, data)
        else:
            job_log.tell_journal(log, key)
        yield opened


def _real_name(task: UploadTask, data: target_data.TargetData) -> str:
    named = data.values.get("filename")
    candidates = [
        task.filename,
        task.job.filename if task.job else None,
        named if isinstance(named, str) else None,
        task.image_path.name,
    ]
    return base_name(next(name for name in candidates if name))


def _own_directory(task: UploadTask) -> Path | None:
    """The current directory, if it is the one that OBS's worker made for this job."""
    found = job_of(task.image_path)
    if found is None:
        return None
    own = found[0].work_dir(found[1])
    with contextlib.suppress(OSError):
        if own.samefile(Path.cwd()):
            return own
    return None


def reason(error: ClouduploaderError) -> str:
    """An error as OBS is to show it: one line, with what to do about it."""
    return one_line(f"{error.message.rstrip('.')}. {error.hint or ''}")


def tell_failure(log: JobLog, exc: BaseException, error: ClouduploaderError) -> str:
    """Write to the log why a job failed, with the traceback if it is a bug of ours.

    Args:
        log: Of the job.
        exc: What happened.
        error: The same as an error of ours.

    Returns:
        The reason, masked, for the result.
    """
    if type(error) is ClouduploaderError:
        for line in "".join(traceback.format_exception(exc)).splitlines():
            log.line(line)
    text = log.masked(reason(error))
    log.line(f"Error: {text}")
    return text


def write_result(path: Path, text: str, *, log: JobLog, cancel: Cancel) -> None:
    """Write a job's result: whole or not at all, one line without an end, as OBS puts it into XML.

    On a full or read-only disk it waits: the image is there, and the job would fail if it did not tell so.

    Args:
        path: Where.
        text: Anything.
        log: Of the job.
        cancel: See Cancel.

    Raises:
        StoppedError: `cancel` was requested while it could not be written.
        CannotCreateError: It can't be written.
    """
    is_waiting = False
    while (fault := _try_to_write(path, one_line(text).encode())) is not None:
        if fault.errno not in job_log.PASSING:
            raise CannotCreateError(f"the result {path} can't be written: {fault.strerror}") from fault
        if not is_waiting:
            is_waiting = True
            log.line(f"Waiting until the result can be written: {fault.strerror}")
        with cancel.interruptible():
            time.sleep(MENDED_SECONDS)
    if is_waiting:
        log.line("The result is written.")


def _try_to_write(path: Path, data: bytes) -> OSError | None:
    """Write a file beside its place, and move it there; or tell why that can't be done."""
    try:
        with files.as_owner(path.parent):
            files.replace_file(path, data, mode=files.PUBLIC_MODE)
    except OSError as exc:
        return exc
    return None
