"""Refusals, which every module raises, and answers as OBS's upload server gives them, down to the order of the headers.

No client gets to know a directory of this host: messages are shown without.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

OK = b'<status code="ok" />\n'
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may do: run its script, use its style, ask this server; nothing that stands in a job's fields."""
HARDENING = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that don't know frame-ancestors
}
"""Headers of all answers but those of OBS's routes."""
TLS_ONLY = "max-age=31536000"  # seconds, a year; of this host alone: others of its domain may have no TLS
MAX_REASON_CHARS = 1000  # clients take no longer lines; the body has all of it
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SERVER_FAULT = re.compile(
    "Too many open files|No space left on device|Not enough space|Resource temporarily unavailable"
    "|Disk quota exceeded|Read-only file system|Input/output error"
)
"""What OBS answers with 500 (BSServer.pm), and what is as little the client's fault; all else without a code is 400."""
_DIRECTORIES = re.compile(r"(?<![^\s'\"(=:])/(?:[^\s'\"/]+/)+")


def without_directories(text: str) -> str:
    """Return a message with the names of files in the place of paths: clients need not know the directories."""
    return _DIRECTORIES.sub("", text)


def public_job(job: Job) -> Job:
    """Return a job as clients see it: why it failed, or waits, without directories. A result stays as it is."""
    if job.details is None or job.state is JobState.SUCCEEDED:
        return job
    return dataclasses.replace(job, details=without_directories(job.details))


class RefusalError(ClouduploaderError):
    """A request that is answered with an error.

    Args:
        message: What OBS's server would say, after the code; its first line is the summary.
        status: The HTTP status; None to find it in the message, as OBS does.
        is_coded: Whether OBS's message begins with the code: then it is shown as details too.
        headers: What the answer has besides.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        is_coded: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.status = status or (500 if _SERVER_FAULT.search(message) else 400)
        self.details = f"{self.status} {message}" if is_coded else message


def no_such_job() -> RefusalError:
    """Return the refusal for a job that is not there, or can't be read."""
    return RefusalError("no such job", status=404, is_coded=True)


def to_refusal(error: ClouduploaderError) -> RefusalError:
    """Return the refusal for a request that failed with this error."""
    return error if isinstance(error, RefusalError) else RefusalError(without_directories(error.message))


def no_such_file(path: Path) -> RefusalError:
    """Return OBS's refusal when it can't open a file, but for the directory; see `without_directories`."""
    return RefusalError(f"{path.name}: No such file or directory")


def xml(body: bytes, *, status: int = 200, reason: str | None = None) -> web.Response:
    """Return an answer in XML."""
    headers = {
        "Content-Type": "text/xml",
        "Cache-Control": "no-cache",
        "Connection": "close",
        "Content-Length": str(len(body)),
    }
    return _closing(web.Response(body=body, status=status, reason=reason, headers=headers))


def text_of(length: int) -> web.StreamResponse:
    """Return the answer with a text of known length, not prepared yet; its headers are in another order than XML's."""
    answer = web.StreamResponse()
    answer.headers["Content-Type"] = "text/plain"
    answer.content_length = length
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["Connection"] = "close"
    answer.force_close()
    return answer


def stream(request: web.BaseRequest, content_type: str = "text/plain") -> web.StreamResponse:
    """Return the answer with a text of unknown length, not prepared yet."""
    answer = web.StreamResponse()
    answer.headers["Content-Type"] = content_type
    if request.version >= (1, 1):
        answer.headers["Transfer-Encoding"] = "chunked"
        answer.enable_chunked_encoding()
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["Connection"] = "close"
    answer.force_close()
    return answer


def error(refusal: RefusalError) -> web.Response:
    """Return the answer with an error; the reason in the status line has blanks for colons, as OBS has it."""
    summary = refusal.message.split("\n", 1)[0].rstrip("\r")
    lines = [f'<status code="{refusal.status}">\n  <summary>{job_xml.escape(summary)}</summary>\n']
    if refusal.details != summary:
        lines.append(f"  <details>{job_xml.escape(refusal.details)}</details>\n")
    lines.append("</status>\n")
    reason = _CONTROL.sub(" ", summary[:MAX_REASON_CHARS]).replace(":", " ")
    answer = xml("".join(lines).encode(), status=refusal.status, reason=reason)
    answer.headers.update(refusal.headers)
    return answer


def serialize(answer: web.Response) -> bytes:
    """Return an answer as it goes over the wire, for a client whose request is not read."""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    body = answer.body
    return "\r\n".join([*lines, "", ""]).encode() + (body if isinstance(body, bytes) else b"")


def harden(answer: web.StreamResponse) -> None:
    """Set the headers that a browser should get, unless the answer has its own."""
    for name, value in HARDENING.items():
        answer.headers.setdefault(name, value)


def strip_headers(answer: web.StreamResponse) -> None:
    """Remove the headers that aiohttp adds and OBS does not send."""
    answer.headers.popall("Date", None)
    answer.headers.popall("Server", None)


def _closing(answer: web.Response) -> web.Response:
    answer.force_close()  # one request a connection, as OBS has it
    return answer
