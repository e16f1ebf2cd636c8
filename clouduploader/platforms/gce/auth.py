"""Who uploads: the service account whose key is in the target data; by hand, whom gcloud or the environment names."""

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import TargetDataError
from clouduploader.platforms.gce.rest import Client
from clouduploader.plugin import Context, JsonValue, UploadRequest

if TYPE_CHECKING:
    import google.auth.credentials

SCOPES = tuple(
    f"https://www.googleapis.com/auth/{name}"
    for name in ("compute", "devstorage.read_write", "cloud-platform.read-only")  # the last to ask for the own rights
)
KEY_TYPE = "service_account"
CHAIN_SECONDS = 60.0  # to find credentials: gcloud is run, or the metadata server of a machine of Google's is asked
_MEMBERS = ("client_email", "private_key")


def connect(ctx: Context, *, api_url: str) -> Client:
    """Make the client of a context. No network, but to find the credentials of a person.

    Raises:
        TargetDataError: The key is none, or it is not known in which project the image is to be.
        Exception: Those of google-auth.
    """
    project = str(ctx.targetdata.get("project") or "")
    credentials: google.auth.credentials.Credentials
    if key := ctx.targetdata.get("credentials"):
        info = read_key(str(key))
        project = project or info.get("project_id", "")
        credentials = _of_key(info, token_url=f"{api_url.replace('{service}', 'oauth2')}/token")
        ctx.reporter.hide(info["private_key"])
    else:
        credentials, found = ctx.within(CHAIN_SECONDS, _of_person, subject="the credentials for Google")
        project = project or found
    if not project:
        raise TargetDataError("project is missing, and the credentials do not name one")
    return Client(credentials, project=project, api_url=api_url)


def read_key(text: str) -> dict[str, str]:
    """Read the JSON key of a service account.

    Other kinds of credentials are refused: they can name a file to be read, a program to be run or an address to be
    asked for a token, which no user may choose for the service (google-auth, "External credentials", security).

    Raises:
        TargetDataError: It is none; the message does not quote it.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("type") != KEY_TYPE or not all(found.get(name) for name in _MEMBERS):
        raise TargetDataError(
            "credentials are no JSON key of a service account",
            hint="`gcloud iam service-accounts keys create FILE --iam-account EMAIL` makes one.",
        )
    return {name: str(value) for name, value in found.items()}


def check_person(request: UploadRequest) -> None:
    """Refuse an upload without a key that is not by hand: it would go where this host's own credentials lead.

    Raises:
        TargetDataError: There is no key, and the upload is not by hand.
    """
    if not request.targetdata.get("credentials") and not request.is_by_hand:
        raise TargetDataError(
            "the user has no Google account configured: credentials are empty",
            hint="Enter the key of a service account with `clouduploader account set USER credentials --target gce`.",
        )


def key_problems(value: JsonValue) -> list[str]:
    """Check a key as far as that can be done without a cloud; what is encrypted is not looked at."""
    if type(value) is not str or not value:  # a SealedText is a string of another type
        return []
    try:
        read_key(value)
    except TargetDataError as exc:
        return [exc.message]
    return []


def _of_key(info: Mapping[str, str], *, token_url: str) -> "google.auth.credentials.Credentials":
    """Make credentials of a key; the token is asked for at an address of ours, whatever the key names.

    Raises:
        TargetDataError: The private key can't be read.
    """
    from google.oauth2 import service_account

    chosen = {name: info[name] for name in (*_MEMBERS, "private_key_id") if name in info} | {"token_uri": token_url}
    make = service_account.Credentials.from_service_account_info
    try:
        made: google.auth.credentials.Credentials = make(chosen, scopes=SCOPES)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise TargetDataError("the private key in credentials can't be read") from None
    return made


def _of_person() -> "tuple[google.auth.credentials.Credentials, str]":
    """Find credentials as Google's own tools do: GOOGLE_APPLICATION_CREDENTIALS, gcloud's, a machine of Google's."""
    import google.auth

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a person's credentials have no project to be charged with
        credentials, project = google.auth.default(scopes=SCOPES)
    return credentials, str(project or "")
