"""The identity of an upload in Microsoft Entra, and tokens for it.

With an application in the target data, its secret or certificate; otherwise the SDK's usual chain (environment,
workload identity, managed identity, `az login`), for an admin's upload into the admin's own subscription.
"""

from clouduploader.errors import MissingProgramError
from clouduploader.platforms.azure import answers, fields
from clouduploader.platforms.azure.settings import Cloud
from clouduploader.plugin import Context, http, tokens


class EntraTokens(tokens.Tokens):
    """See Tokens.

    Args:
        cloud: Where they come from.
        client: Asks for them.
        ctx: The application's keys in its target data are used, and the tenant's.
    """

    def __init__(self, cloud: Cloud, client: http.HttpClient, ctx: Context) -> None:
        super().__init__(ctx)
        self._cloud = cloud
        self._http = client

    def ask(self, scope: str) -> tuple[str, float]:
        """See Tokens."""
        values = {name: str(self._ctx.targetdata.get(name) or "") for name in fields.LOGIN}
        tenant = fields.tenant(self._ctx.targetdata)
        if values["application_key"]:
            return self._by_secret(tenant, values["application_id"], values["application_key"], scope)
        try:
            from clouduploader.platforms.azure import sdk
        except ModuleNotFoundError as exc:
            raise MissingProgramError(
                f"the Python package {exc.name} is not installed", hint="pip install 'clouduploader[azure]'"
            ) from exc
        credential = sdk.SdkCredential(
            self._cloud, tenant, values["application_id"], values["application_certificate"]
        )  # a new one each time: it keeps tokens too, also one that a service has refused
        return credential.token(scope)

    def _by_secret(self, tenant: str, application_id: str, key: str, scope: str) -> tuple[str, float]:
        """Ask by the "OAuth 2.0 client credentials flow", as Microsoft's page of that name has it."""
        subject = f"the login of the application at tenant {tenant}"
        data, headers = http.as_form(
            {
                "grant_type": "client_credentials",
                "client_id": application_id,
                "client_secret": key,
                "scope": scope,
            }
        )
        url = f"{self._cloud.authority}/{tenant}/oauth2/v2.0/token"
        found = self._http.request("POST", url, subject=subject, headers=headers, data=data)
        return tokens.read(found, subject=subject, hint=answers.LOGIN_HINT)
