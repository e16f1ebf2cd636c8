"""The identity of an upload in Microsoft Entra, and tokens for it.

With an application in the target data, its secret or certificate; otherwise the SDK's usual chain (environment,
workload identity, managed identity, `az login`), for an admin's upload into the admin's own subscription.
"""

import json
import threading
import urllib.parse
from typing import TYPE_CHECKING

from clouduploader.errors import CredentialsError, MissingProgramError, http_error
from clouduploader.platforms.azure import answers, fields
from clouduploader.platforms.azure.http import HttpClient
from clouduploader.platforms.azure.settings import Cloud
from clouduploader.plugin import Context
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from clouduploader.platforms.azure.sdk import SdkCredential

RENEWAL_SECONDS = 300.0  # of life left: as long as a clock may be wrong
REFUSED = range(400, 429)  # HTTP statuses of Microsoft Entra that speak of the application


@frozen()
class Token:
    """An access token.

    Attributes:
        text: What is sent.
        expires_at: When, by the context's clock.
    """

    text: str
    expires_at: float


class Tokens:
    """Gives tokens that live; its methods may be called by several threads. Uses the network.

    Args:
        cloud: Where they come from.
        http: Asks for them.
        ctx: The application's keys in its target data are used, and the tenant's. Each token is hidden.
    """

    def __init__(self, cloud: Cloud, http: HttpClient, ctx: Context) -> None:
        self._cloud = cloud
        self._http = http
        self._ctx = ctx
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}
        self._sdk: SdkCredential | None = None
        self._accepted: set[str] = set()

    def get(self, scope: str) -> str:
        """Return a token for a service, another one where that of before is about to expire.

        Raises:
            ClouduploaderError: There is no way in.
            Exception: Of azure-identity; it goes through `Platform.translate`.
        """
        now = self._ctx.clock.monotonic()
        with self._lock:
            token = self._tokens.get(scope)
            if token is None or token.expires_at - now < RENEWAL_SECONDS:
                text, seconds = self._asked(scope)
                self._ctx.reporter.hide(text)
                token = self._tokens[scope] = Token(text, now + seconds)
        return token.text

    def accepted(self, token: str) -> None:
        """Note that a service took a token."""
        self._accepted.add(token)

    def refused(self, token: str) -> bool:
        """Forget a token that a service refuses; return whether one took it before, so that it has expired."""
        with self._lock:
            self._tokens = {scope: kept for scope, kept in self._tokens.items() if kept.text != token}
            self._sdk = None  # with what it keeps
        return token in self._accepted

    def _asked(self, scope: str) -> tuple[str, float]:
        """Ask for a token; return it, and for how many seconds it lives."""
        values = {name: str(self._ctx.targetdata.get(name) or "") for name in fields.LOGIN}
        tenant = fields.tenant(self._ctx.targetdata)
        if values["application_key"]:
            return self._by_secret(tenant, values["application_id"], values["application_key"], scope)
        if self._sdk is None:
            try:
                from clouduploader.platforms.azure import sdk
            except ModuleNotFoundError as exc:
                raise MissingProgramError(
                    f"the Python package {exc.name} is not installed", hint="pip install 'clouduploader[azure]'"
                ) from exc
            self._sdk = sdk.SdkCredential(
                self._cloud, tenant, values["application_id"], values["application_certificate"]
            )
        return self._sdk.token(scope)

    def _by_secret(self, tenant: str, application_id: str, key: str, scope: str) -> tuple[str, float]:
        """Ask by the "OAuth 2.0 client credentials flow", as Microsoft's page of that name has it."""
        subject = f"the login of the application at tenant {tenant}"
        form = {
            "grant_type": "client_credentials",
            "client_id": application_id,
            "client_secret": key,
            "scope": scope,
        }
        found = self._http.request(
            "POST",
            f"{self._cloud.authority}/{tenant}/oauth2/v2.0/token",
            subject=subject,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            data=urllib.parse.urlencode(form).encode(),
        )
        try:
            document = json.loads(found.data)
            if found.status == 200:
                return str(document["access_token"]), float(document["expires_in"])
            said = str(document.get("error_description") or document.get("error")).partition("\n")[0]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            said = ""
        if found.status in REFUSED:
            raise CredentialsError(f"{subject}: {said}", hint=answers.LOGIN_HINT)
        raise http_error(found.status, subject=subject, message=said)
