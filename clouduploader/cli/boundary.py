"""Turn any exception into an error of ours, and report it: one line on stderr, or JSON. Works without Click."""

import contextlib
import os
import sys
import traceback

import clouduploader
from clouduploader.cli.session import Session
from clouduploader.cli.text import clean
from clouduploader.errors import ClouduploaderError, LocalIOError, PluginLoadError
from clouduploader.util import masking


def as_ours(exc: Exception) -> ClouduploaderError:
    """Turn any exception into one with an exit code, a message and a hint."""
    if isinstance(exc, ClouduploaderError):
        return exc
    if isinstance(exc, OSError):
        where = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, str | bytes) else ""
        return LocalIOError(f"reading or writing failed: {where}{exc.strerror or type(exc).__name__}")
    what = _bug_of_platform(exc) or "this is a bug in clouduploader"
    return ClouduploaderError(
        f"{what}: {type(exc).__name__}",
        hint="Run it again with --verbose, and report what it says.",
    )


def _bug_of_platform(exc: Exception) -> str | None:
    """Say whose bug it is if the exception came through the platform of another package; None for ours."""
    from clouduploader.uploads import registry

    modules = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(exc.__traceback__)}
    packages = {module.partition(".")[0] for module in modules} - {clouduploader.__name__}
    with contextlib.suppress(PluginLoadError):
        for offer in registry.offers():
            if offer.reference.partition(":")[0].partition(".")[0] in packages:
                return f"this is a bug in the platform '{offer.target}' of the package {offer.package}"
    return None


def report(session: Session, error: ClouduploaderError, cause: Exception) -> None:
    """Print an error as one line with its hint, or as JSON; before that its traceback if verbose. Masks secrets.

    Args:
        session: How to print.
        error: The error.
        cause: What it was made from by `as_ours`; of an error of ours, which is the same, no traceback is shown.
    """
    if session.is_verbose and error is not cause:
        lines = masking.masked("".join(traceback.format_exception(cause))).splitlines()
        tell("\n".join(map(clean, lines)))
    error.message = masking.masked(error.message)
    error.hint = error.hint and masking.masked(error.hint)
    if session.is_json:
        from clouduploader.cli import output  # imports Click

        document = output.envelope(session, data=None, error=error, exit_code=int(error.exit_code))
        sys.stdout.write(f"{document}\n")
    else:
        tell_error(error)


def tell_error(error: ClouduploaderError) -> None:
    """Print an error on stderr as one line with its hint."""
    tell(f"clouduploader: {clean(error.sentence())}")


def tell(line: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"{line}\n")
