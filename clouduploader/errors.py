"""The errors of the program, and the exit code of each.

The numbers are those of BSD's sysexits.h: documented, apart from Python's 1 and Click's 2,
and 75 tells the caller that another try may work. 79 is the first one that has no meaning there.
"""

import enum
import signal


class ExitCode(enum.IntEnum):
    """The exit codes, each with the sentence that the manual page prints for it."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """Make a member that is its number and carries its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "Done, and the result was given."
    USAGE = 64, "Wrong arguments."
    DATA = 65, "Target data, a job file or the image can be read, but is wrong."
    NO_INPUT = 66, "No such file, no such job, no such account, no such token."
    UNAVAILABLE = 69, "The target is not known here, a program or plugin it needs is missing, or a URL is no server's."
    SOFTWARE = 70, "A bug in clouduploader; the traceback is in the log."
    CANNOT_CREATE = 73, "A log, result or spool file cannot be made."
    LOCAL_IO = 74, "Reading or writing a local file failed."
    TEMPORARY = 75, "Throttled, no network, locked, a full disk, or a part of an upload by hand failed: try again."
    PROTOCOL = 76, "The cloud or a server said no for good, or something that makes no sense; or a job failed."
    DENIED = 77, "The cloud or this machine refused for lack of rights."
    CONFIG = 78, "Something in the configuration is missing or wrong."
    OPEN_ACCOUNT = 79, "The account that was tried lets in every user of this service."
    INTERRUPTED = 130, "Stopped by SIGINT, after the clean-up; or a question was answered with no."
    PIPE_CLOSED = 141, "The reader of the output went away."
    TERMINATED = 143, "Stopped by SIGTERM, after the clean-up."


class ClouduploaderError(Exception):
    """The base of all errors that are shown as one line.

    Args:
        message: What failed, on which object, in one sentence; never a secret.
        hint: What to do next, or None.
    """

    exit_code: int = ExitCode.SOFTWARE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def sentence(self) -> str:
        """Return message and hint as one line, with a full stop behind each."""
        return f"{self.message.rstrip('.')}. {self.hint or ''}".rstrip()


class UsageError(ClouduploaderError):
    """The arguments are wrong."""

    exit_code = ExitCode.USAGE


class DataError(ClouduploaderError):
    """Something that was read is wrong."""

    exit_code = ExitCode.DATA


class TargetDataError(DataError):
    """The target data are not what the platform takes, or cannot be decrypted."""


class TakenValueError(DataError):
    """A value that opens an account belongs to another user's account."""


class JobFileError(DataError):
    """A file of the spool is not what OBS writes."""


class JobStateError(DataError):
    """A job is in a state that does not allow what was asked for."""


class ImageError(DataError):
    """The image is damaged, or of a kind that the platform cannot take."""


class NotFoundError(ClouduploaderError):
    """Something that was named is not there."""

    exit_code = ExitCode.NO_INPUT


class MissingFileError(NotFoundError):
    """A file that was named is not there."""


class NoSuchJobError(NotFoundError):
    """A job that was named is not in the spool."""


class NoSuchAccountError(NotFoundError):
    """A user has no account for a target."""


class NoSuchTokenError(NotFoundError):
    """There is no token of an id."""


class AbsentError(NotFoundError):
    """The cloud does not show an object: it is gone, or too young to show."""


class ForeignError(NotFoundError):
    """What has an object's name is another upload's by now, and stays."""


class UnavailableError(ClouduploaderError):
    """This machine can't serve what was asked for."""

    exit_code = ExitCode.UNAVAILABLE


class UnknownTargetError(UnavailableError):
    """No platform answers to this target."""


class PluginLoadError(UnavailableError):
    """The platform of this target is installed, but cannot be loaded."""


class MissingProgramError(UnavailableError):
    """A program that is needed is not installed, or is not the one we can drive."""


class CannotCreateError(ClouduploaderError):
    """A log, result or spool file cannot be made."""

    exit_code = ExitCode.CANNOT_CREATE


class LocalIOError(ClouduploaderError):
    """Reading or writing a local file failed."""

    exit_code = ExitCode.LOCAL_IO


class TransientError(ClouduploaderError):
    """A failure that another try may not meet."""

    exit_code = ExitCode.TEMPORARY


class ThrottledError(TransientError):
    """The cloud asks for fewer requests."""


class NetworkError(TransientError):
    """The cloud or a job server could not be reached, or hung up."""


class LockedError(TransientError):
    """Another process holds the lock."""


class PlatformReplyError(ClouduploaderError):
    """The cloud or a job server said no for good, or something that makes no sense."""

    exit_code = ExitCode.PROTOCOL


class DeniedError(ClouduploaderError):
    """Refused for lack of rights."""

    exit_code = ExitCode.DENIED


class CredentialsError(DeniedError):
    """The cloud does not accept the credentials, or the account to act for."""


class NotOwnerError(DeniedError):
    """The process, file or job belongs to another user."""


class ConfigError(ClouduploaderError):
    """Something in the configuration is missing or wrong."""

    exit_code = ExitCode.CONFIG


class StoppedError(ClouduploaderError):
    """Stopped by a signal; the exit code is 128 and its number, as a shell says it.

    Args:
        signal_number: Which signal asked for it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def http_error(status: int | None, *, subject: str, message: str) -> ClouduploaderError:
    """Make the error that an HTTP answer of a cloud means.

    Args:
        status: Of the answer; None if none came.
        subject: What was asked for, at the beginning of the line.
        message: What the cloud said; its first line is taken, without the full stop, for a hint may follow.

    Returns:
        A TransientError where another try may help (408, 425, 429, 5xx, no answer), CredentialsError for 401,
        DeniedError for 403, AbsentError for 404 and 410, PlatformReplyError for the rest.
    """
    said = message.strip().partition("\n")[0].rstrip(".") or (f"HTTP status {status}" if status else "no answer")
    text = f"{subject}: {said}"
    if status is None:
        return NetworkError(text)
    kinds: dict[int, type[ClouduploaderError]] = {
        401: CredentialsError,
        403: DeniedError,
        404: AbsentError,
        408: TransientError,
        410: AbsentError,
        425: TransientError,
        429: ThrottledError,
    }
    return kinds.get(status, TransientError if status >= 500 else PlatformReplyError)(text)
