"""All that comes before a platform's work: target data, platform, image, its link, and the request made of them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError, ImageError, UnavailableError
from clouduploader.image import open as image_open
from clouduploader.model.disk import Image
from clouduploader.model.job import Job
from clouduploader.plugin import ImageFound, Journal, Platform, UploadRequest
from clouduploader.store import home, keyring, target_data, workspace
from clouduploader.store.config import Config
from clouduploader.store.job_log import JobLog
from clouduploader.store.spool import paths
from clouduploader.uploads import target
from clouduploader.uploads.image_reader import ImageReader
from clouduploader.uploads.task import UploadTask
from clouduploader.util import arrival
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

PROVENANCE_FIELDS = ("project", "package", "repository", "arch")


@frozen()
class PreparedUpload:
    """An upload that can begin.

    Attributes:
        platform: The platform of its target.
        key: The key of its journal.
        filename: The image's real name.
        work_dir: Private to this attempt.
        request: Makes the platform's request, given the journal.
    """

    platform: Platform
    key: str
    filename: str
    work_dir: Path
    request: Callable[[Journal], UploadRequest]


def check_targetdata(task: UploadTask, *, config: Config) -> None:
    """Check that the target has a platform, and that the target data are right.

    Raises:
        ClouduploaderError: The upload would fail with this error.
    """
    target.open_target(task, config)


def targetdata_to_keep(targetdata: bytes, platform: Platform, *, config: Config) -> bytes:
    """Return target data, which are right, as they may lie on a disk: secrets encrypted, if the home has a key for it.

    They must open the account for a clean-up too: what this home can't decrypt again stays as it is.
    """
    keys = keyring.Keyring(config.home.value, config.environment)
    sealed = target_data.sealed(targetdata, platform, keys, keys.sealed)
    if sealed == targetdata:
        return targetdata
    values = target_data.read(targetdata, platform, keys).values
    try:
        is_readable = target_data.read(sealed, platform, keys).values == values
    except ClouduploaderError:  # for example where the home has a public key alone
        is_readable = False
    return sealed if is_readable else targetdata


@contextlib.contextmanager
def prepared(
    task: UploadTask, *, config: Config, log: JobLog, cancel: Cancel, is_plan: bool = False
) -> Iterator[PreparedUpload]:
    """Prepare an upload; its private directory and the link to its image are there inside the block.

    Args:
        task: What is to be uploaded.
        config: The settings.
        log: The job's log; masks the secrets of the target data from here on.
        cancel: Looked at while gpg works and the image is opened.
        is_plan: Whether nothing will be uploaded.

    Raises:
        StoppedError: `cancel` was requested.
        ClouduploaderError: The upload can't begin.
    """
    with cancel.interruptible():  # gpg may wait for a process that holds its lock
        opened = target.open_target(task, config)
    platform, data = opened.platform, opened.data
    for secret in data.secrets:
        log.hide(secret)
    if data.unknown_keys:
        log.detail(f"The target data have keys that {task.target} does not use: {', '.join(data.unknown_keys)}.")
    for path in home.exposed(config.home.value, platform.files):
        log.detail(f"Warning: others on this machine can read {path}.")
    image = image_open.describe(
        task.image_path, opened.filename, cancel, arrival.arrival_of(config.environment, cancel)
    )
    if not is_plan:
        log.event(ImageFound(image))
    link_name = platform.link_name(image)
    log.detail(f"{image.path} is {image.size_bytes} bytes, packed as {image.compression}, and linked as {link_name}.")
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(workspace.private_directory())
        link = _link(stack, image.path, _job_directory(task), work_dir, link_name)
        promised = data.values.get("sha256")
        reader = ImageReader(
            image,
            original_path=task.image_path,
            promised_sha256=promised if isinstance(promised, str) else None,
            max_size_bytes=config.max_size.value,
            is_forced=bool(data.values.get("force")),
            reporter=log,
            cancel=cancel,
        )
        _require_disk(platform, reader, image, log)

        def request(journal: Journal) -> UploadRequest:
            return UploadRequest(
                user=task.user,
                job_name=task.job.name if task.job else None,
                arch=(task.job.arch or None) if task.job else None,  # "" where no build service made the image
                image=dataclasses.replace(image, path=link),
                targetdata=data.values,
                work_dir=work_dir,
                is_by_hand=task.is_by_hand,
                measure_image=reader.measure,
                inspect_image=lambda: reader.facts,
                open_blocks=reader.open_blocks,
                open_stream=reader.open_stream,
                check_unchanged=reader.check_unchanged,
                await_file=lambda: image_open.await_file(image),
                journal=journal,
                provenance=_provenance(task.job),
            )

        yield PreparedUpload(platform, opened.key, opened.filename, work_dir, request)


def _job_directory(task: UploadTask) -> Path | None:
    """Return the current directory if it is the one that OBS's worker made for this job."""
    found = paths.job_of_image(task.image_path)
    if found is None:
        return None
    directory, name = found
    work_dir = paths.SpoolPaths(directory).work_dir(name)
    with contextlib.suppress(OSError):
        if work_dir.samefile(Path.cwd()):
            return work_dir
    return None


def _link(stack: contextlib.ExitStack, image_path: Path, job_dir: Path | None, work_dir: Path, name: str) -> Path:
    """Link the image in the job's directory; without one, or if that disk takes no link, in the private directory."""
    if job_dir:
        with contextlib.suppress(CannotCreateError):
            return stack.enter_context(workspace.linked(image_path, job_dir, name))
    return stack.enter_context(workspace.linked(image_path, work_dir, name))


def _require_disk(platform: Platform, reader: ImageReader, image: Image, log: JobLog) -> None:
    """Refuse an image that is none of a disk, unless that is forced or the platform stores files of any kind.

    Raises:
        ImageError: It is none, or damaged.
        ClouduploaderError: It can't be read.
    """
    try:
        found = reader.facts
    except (ImageError, UnavailableError) as exc:
        if platform.needs_disk:
            raise
        log.line(f"Warning: it is not known whether this is a disk: {exc.message}.")
        return
    for warning in found.warnings:
        log.line(f"Warning: {warning}.")
    if found.no_disk is None:
        return
    refusal = image_open.no_disk_error(image, found.no_disk)
    if (platform.needs_disk or found.no_disk.is_known) and not reader.is_forced:
        raise refusal
    log.line(f"Warning: {refusal.message}.")


def _provenance(job: Job | None) -> dict[str, str]:
    return {name: value for name in PROVENANCE_FIELDS if job and (value := getattr(job, name))}
