"""Tokens by azure-identity: for an application with a certificate, and for what is found where none is given."""

import logging
import os
import time
from typing import Any

from azure import identity
from azure.core import exceptions

from clouduploader.errors import ClouduploaderError, CredentialsError, NetworkError, http_error
from clouduploader.platforms.azure import answers
from clouduploader.platforms.azure.settings import Cloud

logging.getLogger("azure").addHandler(logging.NullHandler())  # Python writes warnings to stderr where nothing is

NONE_FOUND = "DefaultAzureCredential failed"  # the beginning of a text that lists all that was tried
_SECRETS = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")  # of the environment, go before a workload's
_WORKLOAD = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")
TIMEOUTS = {"connection_timeout": 10, "read_timeout": 30}  # seconds; azure-core's own are 300


class SdkCredential:
    """What azure-identity asks for tokens with; it keeps them. Uses the network, and may run `az`.

    Args:
        cloud: Where they come from.
        tenant: Of the application; "" for that of what is found.
        application_id: With a certificate; "" for what is found: environment, workload identity, managed identity, az.
        certificate: With its private key, in PEM.

    Raises:
        CredentialsError: It is no certificate.
    """

    def __init__(self, cloud: Cloud, tenant: str, application_id: str, certificate: str) -> None:
        common: dict[str, Any] = {
            "authority": cloud.authority,
            "disable_instance_discovery": cloud.is_private,
            "additionally_allowed_tenants": ["*"],  # the tenant is what the target data say
            "retry_total": 0,  # we try again ourselves, and look at the cancellation meanwhile
            **TIMEOUTS,
        }
        self._tenant = tenant or None
        if not application_id:
            has_secret = any(os.environ.get(name) for name in _SECRETS)
            is_workload = not has_secret and all(os.environ.get(name) for name in _WORKLOAD)
            # DefaultAzureCredential sends a workload's token to Microsoft's public cloud, whatever the authority is
            kind = identity.WorkloadIdentityCredential if is_workload else identity.DefaultAzureCredential
            self._credential: Any = kind(**common)
            return
        try:
            self._credential = identity.CertificateCredential(
                tenant, application_id, certificate_data=certificate.encode(), **common
            )
        except ValueError:
            self._credential = None
        if self._credential is None:
            raise CredentialsError("application_certificate holds no certificate with its private key, in PEM")

    def token(self, scope: str) -> tuple[str, float]:
        """Return a token, and for how many seconds it lives."""
        given = self._credential.get_token_info(scope, options={"tenant_id": self._tenant} if self._tenant else {})
        return str(given.token), given.expires_on - time.time()


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of azure-identity, or of azure-core below it, into one of ours."""
    said = str(exc).strip().partition("\n")[0]
    if isinstance(exc, identity.CredentialUnavailableError) or said.startswith(NONE_FOUND):
        hint = "Give an application, or log in with `az login`."
        return CredentialsError(f"{subject}: there are no credentials for Azure: {said}", hint=hint)
    if isinstance(exc.__cause__, exceptions.ServiceRequestError | exceptions.ServiceResponseError):  # wrapped
        return NetworkError(f"{subject}: {said}")
    if isinstance(exc, exceptions.ClientAuthenticationError):
        return CredentialsError(f"{subject}: {said}", hint=answers.LOGIN_HINT)
    if isinstance(exc, exceptions.HttpResponseError):
        return http_error(exc.status_code, subject=subject, message=said)
    if isinstance(exc, exceptions.AzureError):
        return NetworkError(f"{subject}: {said}")
    return None
