"""The identity of an upload in Microsoft Entra, and tokens for it.

With an application in the target data, its secret or certificate; otherwise the SDK's usual chain (environment,
workload identity, managed identity, `az login`), for an admin's upload into the admin's own subscription.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azure import identity
from azure.core import exceptions

from clouduploader.errors import ClouduploaderError, CredentialsError, NetworkError, http_error
from clouduploader.platforms.azure import answers, fields
from clouduploader.platforms.azure.settings import Cloud
from clouduploader.plugin import JsonValue, Reporter

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

PASSING = range(500, 600)  # HTTP statuses of Microsoft Entra that say nothing of the application
TIMEOUTS = {"connection_timeout": 10, "read_timeout": 30}  # seconds; azure-core's own are 300


class Tokens:
    """Gives tokens that live; its methods may be called by several threads. Uses the network.

    Args:
        cloud: Where they come from.
        targetdata: The application's keys are used, and the tenant's.
        reporter: Each token is hidden there.
    """

    def __init__(self, cloud: Cloud, targetdata: Mapping[str, JsonValue], reporter: Reporter) -> None:
        self._cloud = cloud
        self._targetdata = targetdata
        self._reporter = reporter
        self._lock = threading.Lock()
        self._credential: TokenCredential | None = None
        self._accepted: set[str] = set()

    def get(self, scope: str) -> str:
        """Return a token for a service; the SDK keeps it, and asks for another one before it expires.

        Raises:
            Exception: Of azure-core: there is no way in.
        """
        with self._lock:
            self._credential = self._credential or self._made()
            given = self._credential.get_token(scope, tenant_id=fields.tenant(self._targetdata) or None)
        self._reporter.hide(given.token)
        return str(given.token)

    def accepted(self, token: str) -> None:
        """Note that a service took a token."""
        self._accepted.add(token)

    def refused(self, token: str) -> bool:
        """Let a token that a service refuses be replaced; return whether one took it before, so that it has expired."""
        with self._lock:
            self._credential = None  # with what it keeps
        return token in self._accepted

    def _made(self) -> "TokenCredential":
        common: dict[str, Any] = {
            "authority": self._cloud.authority,
            "disable_instance_discovery": self._cloud.is_private,
            "additionally_allowed_tenants": ["*"],  # the tenant is what the target data say
            "retry_total": 0,  # we try again ourselves, and look at the cancellation meanwhile
            **TIMEOUTS,
        }
        values = {name: str(self._targetdata.get(name) or "") for name in fields.LOGIN}
        if not values["application_id"]:
            return identity.DefaultAzureCredential(**common)
        tenant = fields.tenant(self._targetdata)
        if values["application_key"]:
            return identity.ClientSecretCredential(
                tenant, values["application_id"], values["application_key"], **common
            )
        certificate = values["application_certificate"].encode()
        try:
            return identity.CertificateCredential(
                tenant, values["application_id"], certificate_data=certificate, **common
            )
        except ValueError:
            pass
        raise CredentialsError("application_certificate holds no certificate with its private key, in PEM")


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of azure-identity, or of azure-core below it, into one of ours."""
    said = str(exc).strip().partition("\n")[0]
    if isinstance(exc, identity.CredentialUnavailableError):
        hint = "Give an application, or log in with `az login`."
        return CredentialsError(f"{subject}: there are no credentials for Azure: {said}", hint=hint)
    if isinstance(exc.__cause__, exceptions.ServiceRequestError | exceptions.ServiceResponseError):  # wrapped
        return NetworkError(f"{subject}: {said}")
    if isinstance(exc, exceptions.ClientAuthenticationError) and (exc.status_code or 0) not in PASSING:
        return CredentialsError(f"{subject}: {said}", hint=answers.LOGIN_HINT)
    if isinstance(exc, exceptions.HttpResponseError):
        return http_error(exc.status_code, subject=subject, message=said)
    if isinstance(exc, exceptions.AzureError):
        return NetworkError(f"{subject}: {said}")
    return None
