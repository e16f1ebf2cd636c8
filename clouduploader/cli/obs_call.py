"""OBS's call: five or six operands, no questions, a log, a result and an exit code."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from clouduploader.cli import boundary
from clouduploader.cli.session import Session
from clouduploader.errors import CannotCreateError, ExitCode, StoppedError, UsageError
from clouduploader.store import job_log
from clouduploader.util import files, privileges, signals
from clouduploader.util.cancel import Cancel


class ObsCall:
    """The operands, taken apart.

    Attributes:
        user: Anything, bytes that are not UTF-8 included.
        target: The platform's name.
        upload_path: The image.
        targetdata_path: The target data.
        filename: The image's real name, or None.
        log_path: Where to append the log; None for stdout.
        result_path: Where the result goes; None for stdout.

    Raises:
        UsageError: The image can't be one.
    """

    def __init__(self, operands: Sequence[str]) -> None:
        self.user, self.target = operands[0], operands[1]
        self.upload_path, self.targetdata_path = Path(operands[2]), Path(operands[3])
        if not self.upload_path.name:
            raise UsageError(f"{self.upload_path} is not the path of an image")
        self.filename: str | None = None
        self.log_path: Path | None = None
        self.result_path: Path | None = None
        if len(operands) > 5:
            self.filename, self.result_path = operands[4], Path(operands[5])
        elif "/" in operands[4]:
            self.log_path = Path(operands[4])
        else:  # the form of early 2018
            self.filename = operands[4]
            name = self.upload_path.name.removesuffix(".file")
            self.result_path = self.upload_path.with_name(f"{name}.result")


def run(session: Session, operands: Sequence[str]) -> int:
    """Upload one image as OBS asks for it.

    Args:
        session: What the options before the operands say.
        operands: Five or six.

    Returns:
        The exit code; the log has the reason of a failure.

    Raises:
        UsageError: The image can't be one.
        CannotCreateError: The log can't be written.
    """
    privileges.hide_memory()
    call = ObsCall(operands)
    cancel = Cancel()
    signals.listen(cancel)
    with _log_file(call) as file:
        sinks = [file]
        is_echoed = call.log_path is not None and (session.is_verbose or sys.stderr.isatty())
        if is_echoed:
            sinks.append(open(2, "wb", buffering=0, closefd=False))  # noqa: SIM115 stderr stays open
        log = job_log.JobLog(sinks, is_verbose=session.is_verbose, has_times=True)
        job_log.tell_beginning(log, user=call.user, target=call.target)
        try:
            _upload(session, call, log, cancel)
        except Exception as exc:  # noqa: BLE001 the boundary of a job: its log and result must have the reason
            return _fail(call, log, cancel, exc, is_echoed=is_echoed)
    return ExitCode.OK


def _upload(session: Session, call: ObsCall, log: job_log.JobLog, cancel: Cancel) -> None:
    from clouduploader.jobs import obs_call

    result = obs_call.run(
        config=session.config,
        log=log,
        cancel=cancel,
        user=call.user,
        target=call.target,
        upload_path=call.upload_path,
        targetdata_path=call.targetdata_path,
        filename=call.filename,
        result_path=call.result_path,
    )
    if call.result_path is None:
        try:
            os.write(1, job_log.one_line(result.id).encode("utf-8", "surrogateescape") + b"\n")
        except OSError as exc:
            log.line(
                f"Warning: the image {result.id} is delivered, but standard output can't be written: {exc.strerror}."
            )


def _fail(call: ObsCall, log: job_log.JobLog, cancel: Cancel, exc: Exception, *, is_echoed: bool) -> int:
    """Write the reason into the log, into the result if OBS still reads one, and on stderr for a person.

    Returns:
        The exit code.
    """
    from clouduploader.uploads import result

    error = boundary.as_ours(exc)
    text = result.log_failure(log, exc, error)
    if call.result_path and not cancel.is_requested and not isinstance(error, StoppedError):
        with contextlib.suppress(CannotCreateError, StoppedError):  # the log has it, and the exit code says it failed
            result.write_result(call.result_path, text, log=log, cancel=cancel)
    if call.log_path and not is_echoed:
        boundary.tell(f"clouduploader: {text}")
    return int(error.exit_code)


def _log_file(call: ObsCall) -> BinaryIO:
    if call.log_path is None:
        return open(1, "wb", buffering=0, closefd=False)
    try:
        with privileges.as_owner(call.log_path.absolute().parent):
            descriptor = os.open(call.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, files.GROUP_MODE)
    except OSError as exc:
        raise CannotCreateError(f"the log {call.log_path} can't be written: {exc.strerror}") from exc
    return open(descriptor, "wb", buffering=0)  # noqa: PTH123
