"""What is common to all requests to Azure, whatever sends them: patience, and what an answer means."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from clouduploader.errors import (
    ClouduploaderError,
    CredentialsError,
    ThrottledError,
    TransientError,
    http_error,
)
from clouduploader.plugin import Context
from clouduploader.plugin.answers import read_object
from clouduploader.plugin.http import Answer

T = TypeVar("T")

METADATA_VERSION = "2022-09-01"  # as terraform asks a Resource Manager for the addresses of its cloud
LOGIN_HINT = "Look at the application, its secret or certificate, and the tenant."
TRANSIENT_CODES = (
    "AnotherOperationInProgress",
    "ConflictingConcurrentWriteNotAllowed",
    "ContainerBeingDeleted",
    "Crc64Mismatch",  # of one page, on its way
    "ResourceGroupBeingDeleted",
    "RetryableError",
)
"""Refusals that pass: "Resource Manager, troubleshoot common errors", "Blob service error codes"."""
THROTTLED_CODES = ("ServerBusy", "OperationTimedOut", "TooManyRequests")  # of storage, with status 500 and 503
CALL_SECONDS = 90.0  # for one request; most are answered in one
MEMBERS: Mapping[str, type] = {"id": str, "location": str, "properties": dict, "tags": dict, "value": list}
"""What of an answer of Resource Manager is read, wherever it is there."""
MAX_SAID = 300  # characters of an answer that is no error document


def patiently(ctx: Context, call: Callable[[], T], *, subject: str) -> T:
    """Make a call until it is answered for good, in a thread that is left behind should the upload be cancelled.

    Raises:
        StoppedError: The upload was cancelled.
        ClouduploaderError: See `AzureClient.call`.
    """
    return ctx.retry(lambda: ctx.within(CALL_SECONDS, call, subject=subject), subject=subject)


def as_object(response: Answer, subject: str, *, needed: Collection[str] = ()) -> dict[str, Any]:
    """Read an answer that is a JSON object.

    Raises:
        PlatformReplyError: It is something else.
    """
    return read_object(response.data, subject, members=MEMBERS, needed=needed)


def error(response: Answer, subject: str) -> ClouduploaderError:
    """Make the error that an answer means: of Resource Manager JSON, of storage XML and a header with the code."""
    code, message = _said(response)
    text = ": ".join(part for part in (code, message) if part)
    status = response.status
    if code in THROTTLED_CODES:
        return ThrottledError(f"{subject}: {text}")
    if code in TRANSIENT_CODES:
        return TransientError(f"{subject}: {text}")
    made = http_error(status, subject=subject, message=text)
    if isinstance(made, CredentialsError):
        made.hint = LOGIN_HINT
    elif status == 403:
        made.hint = "docs/how-to/azure.rst has the rights that an upload needs."
    return made


def _said(response: Answer) -> tuple[str, str]:
    try:
        said = json.loads(response.data)["error"]
        return str(said.get("code", "")), str(said.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    code = response.header("x-ms-error-code")
    text = response.data.decode(errors="replace")
    _, found, rest = text.partition("<Message>")
    message = rest.partition("</Message>")[0] if found else text[:MAX_SAID]
    return code, " ".join(message.split())
