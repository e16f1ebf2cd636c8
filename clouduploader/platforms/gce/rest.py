"""Calls of Google's APIs by REST, and what their errors mean.

google-cloud-compute would cost 121 MB and 1.5 s for a few calls. google-cloud-storage can't go on with a resumable
upload that another process began, wants a stream that can go back, and pauses where no cancellation is seen.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from clouduploader.errors import (
    AbsentError,
    ClouduploaderError,
    DeniedError,
    ThrottledError,
    TransientError,
    http_error,
)
from clouduploader.plugin import Context, JsonValue, http, tokens
from clouduploader.plugin.answers import check_object, read_object
from clouduploader.plugin.http import Answer

SCOPES = " ".join(
    f"https://www.googleapis.com/auth/{name}"
    for name in ("compute", "devstorage.read_write", "cloud-platform.read-only")  # the last to ask for the own rights
)
CALL_SECONDS = 120.0  # a call with the renewal of a token before it
MEMBERS: Mapping[str, type] = {
    "bindings": list,
    "deprecated": dict,
    "error": dict,
    "guestOsFeatures": list,
    "items": list,
    "labels": dict,
    "metadata": dict,
    "name": str,
    "permissions": list,
}
"""What of an answer is read, wherever it is there."""
RESUME = 308  # of a chunk of a resumable upload, not of a redirection
_THROTTLED = ("rateLimitExceeded", "userRateLimitExceeded")  # Compute Engine says so with 403, "API rate limits"
_NOT_YET = ("resourceNotReady",)  # with 400, while another operation works on it
_DISABLED = ("accessNotConfigured", "SERVICE_DISABLED")


class Client:
    """Google's APIs, in one project. Its methods may be called by several threads.

    Args:
        client: Makes the requests.
        given: The tokens for them.
        project: Its id.
        api_url: Where an API is, with `{service}` for its name.

    Attributes:
        project: As given.
    """

    def __init__(self, client: http.HttpClient, given: tokens.Tokens, *, project: str, api_url: str) -> None:
        self.project = project
        self._http = client
        self._tokens = given
        self._api_url = api_url

    def storage(self, path: str) -> str:
        """Return the URL of something in Cloud Storage, by its path below a version of the API."""
        return f"{self._url('storage')}/{path}"

    def compute(self, collection: str, name: str = "", action: str = "") -> str:
        """Return the URL of a global resource of the project in Compute Engine."""
        words = [self._url("compute"), "compute/v1/projects", quote(self.project), "global", collection]
        return "/".join([*words, *(quote(word) for word in (name, action) if word)])

    def resource_manager(self, action: str) -> str:
        """Return the URL of an action of Resource Manager on the project."""
        return f"{self._url('cloudresourcemanager')}/v1/projects/{quote(self.project)}:{action}"

    def send(
        self,
        method: str,
        url: str,
        *,
        subject: str,
        query: Mapping[str, str | Iterable[str]] | None = None,
        document: JsonValue = None,
        headers: Mapping[str, str] | None = None,
        data: http.Body | None = None,
    ) -> Answer:
        """Make one request. Blocks.

        Args:
            method: Of HTTP.
            url: Never shown: it may be a secret.
            subject: What it is about, for messages.
            query: Added to the URL.
            document: Sent as JSON.
            headers: Others than those of the login.
            data: Sent as it is.

        Raises:
            TransientError: The token has expired.
            ClouduploaderError: There is no answer, or one that says no.
        """
        token = self._tokens.get(SCOPES)
        body, sent = http.as_json(document)
        sent |= {"Authorization": f"Bearer {token}", **(headers or {})}
        if data is None and body is None and method in ("POST", "PUT"):
            body = b""  # Google's front ends want its length
        answer = self._http.request(
            method, http.encoded(url, query or {}), subject=subject, headers=sent, data=body if data is None else data
        )
        if answer.status == 401 and self._tokens.refused(token):
            raise TransientError(f"{subject}: the token has expired")
        if answer.status != 401:
            self._tokens.accepted(token)
        if answer.status >= 300 and answer.status != RESUME:
            raise error(answer, subject)
        return answer

    def _url(self, service: str) -> str:
        return self._api_url.replace("{service}", service)


def send(
    ctx: Context,
    method: str,
    url: str,
    *,
    subject: str,
    seconds: float = CALL_SECONDS,
    **options: Any,  # noqa: ANN401 those of Client.send
) -> Answer:
    """Make one request, once.

    Args:
        ctx: Whose client sends it.
        method: Of HTTP.
        url: Never shown: it may be a secret.
        subject: What it is about, for messages.
        seconds: How long it may take.
        **options: See `Client.send`.

    Raises:
        StoppedError: The upload was cancelled, and the answer did not come soon.
        ClouduploaderError: It failed.
    """
    client: Client = ctx.client
    answer = ctx.within(seconds, lambda: client.send(method, url, subject=subject, **options), subject=subject)
    ctx.reporter.detail(f"{method} {subject}: {answer.status}")
    return answer


def call(
    ctx: Context,
    method: str,
    url: str,
    *,
    subject: str,
    **options: Any,  # noqa: ANN401 those of Client.send
) -> dict[str, Any]:
    """Make a request that may be made twice, until it is answered for good; return what the answer's JSON says."""
    return document(ctx.retry(lambda: send(ctx, method, url, subject=subject, **options), subject=subject), subject)


def document(answer: Answer, subject: str) -> dict[str, Any]:
    """Read an answer that is a JSON object.

    Raises:
        PlatformReplyError: It is something else.
    """
    return read_object(answer.data, subject, members=MEMBERS)


def pages(ctx: Context, url: str, *, subject: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """List all there is, page by page."""
    found, token = [], ""
    while True:
        page = call(ctx, "GET", url, subject=subject, query={**query, **({"pageToken": token} if token else {})})
        found += [check_object(item, subject, members=MEMBERS, needed=("name",)) for item in page.get("items", [])]
        token = page.get("nextPageToken", "")
        if not token:
            return found


def lookup(ctx: Context, url: str, *, subject: str) -> dict[str, Any] | None:
    """Get a resource; None if there is none."""
    try:
        return call(ctx, "GET", url, subject=subject)
    except AbsentError:
        return None


def error(answer: Answer, subject: str) -> ClouduploaderError:
    """Make the error that an answer means; Google's front ends, and proxies, answer with no JSON."""
    reason, message = "", ""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        said: JsonValue = json.loads(answer.data)["error"]
        if isinstance(said, dict):
            message = str(said.get("message", ""))
            reason = str(said.get("status", ""))
            reason = str(said["errors"][0]["reason"])  # type: ignore[index,call-overload]
    message = message.strip().partition("\n")[0].rstrip(".") or f"HTTP status {answer.status}"
    message = f"{message} ({reason})" if reason else message
    text = f"{subject}: {message}"
    if reason in _THROTTLED:
        return ThrottledError(text)
    if reason in _NOT_YET:
        return TransientError(text)
    if reason in _DISABLED:
        return DeniedError(text, hint="Enable the API in the project: `gcloud services enable compute storage`.")
    made = http_error(answer.status, subject=subject, message=message)
    if answer.status == 409:
        made.hint = "It has been made meanwhile. Try again, or choose another name."
    return made
