"""The credentials of a person, or of a machine of Google's, found by google-auth as Google's own tools do."""

import datetime
import warnings
from collections.abc import Mapping
from typing import Any

import google.auth
import google.auth.exceptions
import google.auth.transport

from clouduploader.errors import ClouduploaderError, CredentialsError, NetworkError, TransientError
from clouduploader.plugin import Context, http, tokens

LIFE_SECONDS = 3600.0  # of a token whose end is not told
HINT = (
    "Give the JSON key of a service account as `credentials`; for an upload by hand `gcloud auth application-default "
    "login` does, or GOOGLE_APPLICATION_CREDENTIALS."
)


class PersonTokens(tokens.Tokens):
    """Tokens by GOOGLE_APPLICATION_CREDENTIALS, gcloud's own credentials, or a machine of Google's.

    Args:
        ctx: See Tokens.
        client: Asks for them.

    Attributes:
        project: Of the credentials; "" if they name none.

    Raises:
        google.auth.exceptions.GoogleAuthError: There are none.
    """

    def __init__(self, ctx: Context, client: http.HttpClient) -> None:
        super().__init__(ctx)
        self._request = _Request(client)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a person's credentials have no project to be charged with
            self._credentials, project = google.auth.default()
        self.project = str(project or "")

    def ask(self, scope: str) -> tuple[str, float]:
        """See Tokens."""
        import google.auth.credentials

        credentials: Any = google.auth.credentials.with_scopes_if_required(self._credentials, scope.split())  # type: ignore[no-untyped-call]
        credentials.refresh(self._request)
        ends_at = credentials.expiry  # in UTC, without saying so
        left = (ends_at.replace(tzinfo=datetime.UTC) - datetime.datetime.now(datetime.UTC)) if ends_at else None
        return str(credentials.token), left.total_seconds() if left else LIFE_SECONDS


class _Request(google.auth.transport.Request):
    """What google-auth makes requests with; see there."""

    def __init__(self, client: http.HttpClient) -> None:
        self._http = client

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_more: object,
    ) -> "_Response":
        data = body.encode() if isinstance(body, str) else body
        try:
            return _Response(self._http.request(method, url, subject="the token", headers=headers or {}, data=data))
        except NetworkError as exc:
            raise google.auth.exceptions.TransportError(exc.message) from exc  # type: ignore[no-untyped-call]


class _Response(google.auth.transport.Response):
    """An answer as google-auth has it; see there."""

    def __init__(self, answer: http.Answer) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def data(self) -> bytes:
        return self._answer.data


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of google-auth into one of ours; None for others."""
    if isinstance(exc, google.auth.exceptions.TransportError):
        return NetworkError(f"{subject}: {_first_line(exc)}")
    if isinstance(exc, google.auth.exceptions.RefreshError) and exc.retryable:
        return TransientError(f"Google gives no token: {_first_line(exc)}")
    if isinstance(exc, google.auth.exceptions.RefreshError):
        return CredentialsError(f"Google does not accept the credentials: {_first_line(exc)}", hint=HINT)
    if isinstance(exc, google.auth.exceptions.GoogleAuthError):
        return CredentialsError(f"there are no credentials for Google: {_first_line(exc)}", hint=HINT)
    return None


def _first_line(exc: Exception) -> str:
    return str(exc.args[0] if exc.args else exc).partition("\n")[0].rstrip(".")
