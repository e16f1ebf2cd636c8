"""Whatever goes wrong, as an error of ours."""

import os

import click

from clouduploader.cli import parsing
from clouduploader.errors import ClouduploaderError, LocalIOError


def as_ours(exc: Exception) -> ClouduploaderError:
    """Turn any exception into one with an exit code, a message and a hint."""
    if isinstance(exc, ClouduploaderError):
        return exc
    if isinstance(exc, click.ClickException):
        return parsing.as_usage_error(exc)
    if isinstance(exc, OSError):
        where = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, str | bytes) else ""
        return LocalIOError(f"reading or writing failed: {where}{exc.strerror or type(exc).__name__}")
    return ClouduploaderError(
        f"this is a bug in clouduploader: {type(exc).__name__}",
        hint="Run it again with --verbose, and report what it says.",
    )
