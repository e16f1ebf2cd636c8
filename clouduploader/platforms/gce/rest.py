"""Calls of Google's APIs by REST, with google-auth, and what their errors mean.

google-cloud-compute would cost 121 MB and 1.5 s for a few calls. google-cloud-storage can't go on with a resumable
upload that another process began, wants a stream that can go back, and pauses where no cancellation is seen. So
google-auth's session makes all calls, and renews its token; `Context.retry` makes them again.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clouduploader.errors import (
    AbsentError,
    ClouduploaderError,
    CredentialsError,
    DeniedError,
    NetworkError,
    ThrottledError,
    TransientError,
    http_error,
)
from clouduploader.plugin import Context, JsonValue
from clouduploader.plugin.answers import check_object, read_object

if TYPE_CHECKING:
    import google.auth.credentials
    import requests

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 60.0  # images.insert, the slowest, answers in a few
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


class GoogleError(Exception):
    """An answer of Google that says no.

    Args:
        status: Of HTTP.
        reason: Google's word for it, or "".
        message: A sentence.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Client:
    """A session with Google, in one project.

    Args:
        credentials: Renewed as needed.
        project: Its id.
        api_url: Where an API is, with `{service}` for its name.

    Attributes:
        project: As given.
    """

    def __init__(self, credentials: "google.auth.credentials.Credentials", *, project: str, api_url: str) -> None:
        from google.auth.transport.requests import AuthorizedSession

        self.project = project
        self._api_url = api_url
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]

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

    def send(self, method: str, url: str, **options: Any) -> "requests.Response":  # noqa: ANN401 those of requests
        """Make one request. Blocks.

        Raises:
            GoogleError: The answer says no.
            Exception: Those of google-auth and requests.
        """
        timeouts = (CONNECT_SECONDS, SILENCE_SECONDS)
        answer: requests.Response = self._session.request(  # type: ignore[no-untyped-call]
            method, url, timeout=timeouts, allow_redirects=False, **options
        )
        if answer.status_code >= 300 and answer.status_code != RESUME:
            raise _refusal(answer)
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
    **options: Any,  # noqa: ANN401 those of requests
) -> "requests.Response":
    """Make one request, once.

    Args:
        ctx: Whose client sends it.
        method: Of HTTP.
        url: Never shown: it may be a secret.
        subject: What it is about, for messages.
        seconds: How long it may take.
        **options: Of requests.

    Raises:
        StoppedError: The upload was cancelled, and the answer did not come soon.
        ClouduploaderError: It failed.
    """
    client: Client = ctx.client
    answer = ctx.within(seconds, lambda: client.send(method, url, **options), subject=subject)
    ctx.reporter.detail(f"{method} {subject}: {answer.status_code}")
    return answer


def call(
    ctx: Context,
    method: str,
    url: str,
    *,
    subject: str,
    **options: Any,  # noqa: ANN401 those of requests
) -> dict[str, Any]:
    """Make a request that may be made twice, until it is answered for good; return what the answer's JSON says."""
    return document(ctx.retry(lambda: send(ctx, method, url, subject=subject, **options), subject=subject), subject)


def document(answer: "requests.Response", subject: str) -> dict[str, Any]:
    """Read an answer that is a JSON object.

    Raises:
        PlatformReplyError: It is something else.
    """
    return read_object(answer.content, subject, members=MEMBERS)


def pages(ctx: Context, url: str, *, subject: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """List all there is, page by page."""
    found, token = [], ""
    while True:
        page = call(ctx, "GET", url, subject=subject, params={**query, **({"pageToken": token} if token else {})})
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


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of a call into one of ours; None for others."""
    if isinstance(exc, ClouduploaderError):  # may come before the SDK is loaded
        return None
    if isinstance(exc, GoogleError):
        return _translated(exc, subject)
    import google.auth.exceptions
    import requests

    if isinstance(exc, google.auth.exceptions.TransportError | requests.RequestException):
        return NetworkError(f"{subject}: {_innermost(exc)}")
    if isinstance(exc, google.auth.exceptions.RefreshError) and exc.retryable:
        return TransientError(f"Google gives no token: {_first_line(exc)}")
    if isinstance(exc, google.auth.exceptions.RefreshError):
        return CredentialsError(
            f"Google does not accept the credentials: {_first_line(exc)}",
            hint="The key may have been deleted or disabled, or this machine's clock be wrong.",
        )
    if isinstance(exc, google.auth.exceptions.GoogleAuthError):
        return CredentialsError(f"there are no credentials for Google: {_first_line(exc)}", hint=CREDENTIALS_HINT)
    return None


CREDENTIALS_HINT = (
    "Give the JSON key of a service account as `credentials`; for an upload by hand `gcloud auth application-default "
    "login` does, or GOOGLE_APPLICATION_CREDENTIALS."
)


def _translated(exc: GoogleError, subject: str) -> ClouduploaderError:
    said = f"{exc.message.rstrip('.')} ({exc.reason})" if exc.reason else exc.message
    text = f"{subject}: {said.partition(chr(10))[0].rstrip('.')}"
    if exc.reason in _THROTTLED:
        return ThrottledError(text)
    if exc.reason in _NOT_YET:
        return TransientError(text)
    if exc.reason in _DISABLED:
        return DeniedError(text, hint="Enable the API in the project: `gcloud services enable compute storage`.")
    return http_error(exc.status, subject=subject, message=said)


def _refusal(answer: "requests.Response") -> GoogleError:
    """Read the error that an answer describes; Google's front ends, and proxies, answer with no JSON."""
    reason, message = "", ""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError):
        error: JsonValue = answer.json()["error"]
        if isinstance(error, dict):
            message = str(error.get("message", ""))
            reason = str(error.get("status", ""))
            reason = str(error["errors"][0]["reason"])  # type: ignore[index,call-overload]
    return GoogleError(answer.status_code, reason, message or f"HTTP status {answer.status_code}")


def _innermost(exc: BaseException) -> str:
    """Return the words of the error below all others: those of requests quote the URL, which may be a secret."""
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__


def _first_line(exc: Exception) -> str:
    return str(exc.args[0] if exc.args else exc).partition("\n")[0].rstrip(".")
