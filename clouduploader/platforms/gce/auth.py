"""Who uploads: the service account whose key is in the target data; by hand, whom gcloud or the environment names."""

import base64
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import TargetDataError
from clouduploader.platforms.gce.rest import Client
from clouduploader.plugin import Context, JsonValue, http, tokens

if TYPE_CHECKING:
    from clouduploader.platforms.gce.person import PersonTokens

KEY_TYPE = "service_account"
CHAIN_SECONDS = 60.0  # to find credentials: gcloud is run, or the metadata server of a machine of Google's is asked
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"  # wherever a token is asked for
LIFE_SECONDS = 3600  # of an assertion, the most that Google takes
ENTER_HINT = "Enter the key of a service account with `clouduploader account set USER credentials --target gce`."
HINT = "The key may have been deleted or disabled, or this machine's clock be wrong."
CONNECTIONS = 2  # one is under way at a time; another where a call was left behind
_MEMBERS = ("client_email", "private_key")


def connect(ctx: Context, *, api_url: str, environment: Mapping[str, str]) -> Client:
    """Make the client of a context. No network, but to find the credentials of a person.

    Args:
        ctx: The account.
        api_url: See Client.
        environment: See HttpClient.

    Raises:
        TargetDataError: There is no key, or it is none, or it is not known in which project the image is to be.
        Exception: Those of google-auth.
    """
    ctx.require_credential("credentials", "the user has no Google account configured", hint=ENTER_HINT)
    project = str(ctx.targetdata.get("project") or "")
    client = http.HttpClient(environment, CONNECTIONS)
    given: tokens.Tokens
    if key := ctx.targetdata.get("credentials"):
        info = read_key(str(key))
        project = project or info.get("project_id", "")
        given = KeyTokens(ctx, client, info, url=f"{api_url.replace('{service}', 'oauth2')}/token")
        ctx.reporter.hide(info["private_key"])
    else:
        given = ctx.within(CHAIN_SECONDS, lambda: _of_person(ctx, client), subject="the credentials for Google")
        project = project or given.project
    if not project:
        raise TargetDataError("project is missing, and the credentials do not name one")
    return Client(client, given, project=project, api_url=api_url)


class KeyTokens(tokens.Tokens):
    """Tokens for a service account, by "Using OAuth 2.0 for Server to Server Applications".

    google-auth does the same, and takes 0.16 s of CPU to be imported, as long as all else up to the first request.

    Args:
        ctx: See Tokens.
        client: Asks for them.
        info: See `read_key`.
        url: Where they are asked for, whatever the key names.

    Raises:
        TargetDataError: The private key can't be read.
    """

    def __init__(self, ctx: Context, client: http.HttpClient, info: Mapping[str, str], *, url: str) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        super().__init__(ctx)
        self._http = client
        self._info = info
        self._url = url
        try:
            key = load_pem_private_key(info["private_key"].encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise TargetDataError("the private key in credentials can't be read")
        self._key = key

    def ask(self, scope: str) -> tuple[str, float]:
        """See Tokens."""
        subject = "Google does not accept the credentials"
        data, headers = http.as_form({"grant_type": GRANT, "assertion": self._assertion(scope)})
        found = self._http.request("POST", self._url, subject="the token", headers=headers, data=data)
        return tokens.read(found, subject=subject if found.status < 500 else "Google gives no token", hint=HINT)

    def _assertion(self, scope: str) -> str:
        """Make a signed JSON Web Token (RFC 7519), which says who we are."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": self._info.get("private_key_id", "")}
        claims = {
            "iss": self._info["client_email"],
            "scope": scope,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + LIFE_SECONDS,
        }
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(signed, PKCS1v15(), SHA256())
        return b".".join((signed, _base64url(signature))).decode()


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


def key_problems(value: JsonValue) -> list[str]:
    """Check a key as far as that can be done without a cloud; what is encrypted is not looked at."""
    if type(value) is not str or not value:  # a SealedText is a string of another type
        return []
    try:
        read_key(value)
    except TargetDataError as exc:
        return [exc.message]
    return []


def _of_person(ctx: Context, client: http.HttpClient) -> "PersonTokens":
    from clouduploader.platforms.gce.person import PersonTokens

    return PersonTokens(ctx, client)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
