"""Microsoft Entra: tokens for an application.

Source: "Microsoft identity platform and the OAuth 2.0 client credentials flow"; the error codes of AADSTS.
"""

import base64
import json
import re
from typing import Any

from aiohttp import web

from clouduploader.sandbox.azure.account import STORAGE, TOKEN_SECONDS, AzureAccount
from clouduploader.sandbox.gateway import Call, HttpFault

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Entra:
    """Answers for one tenant.

    Args:
        account: Whose it is.
    """

    def __init__(self, account: AzureAccount) -> None:
        self._account = account
        self.root = ""
        self.resource_manager = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        found = re.fullmatch(r"/([^/]+)/(v2\.0/\.well-known/openid-configuration|oauth2/v2\.0/token)", request.path)
        if found is None:
            return _refused(404, "not_found", "AADSTS900144: There is no such endpoint.")
        tenant, what = found.groups()
        if tenant != self._account.tenant:
            return _refused(400, "invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
        if what != "oauth2/v2.0/token":
            return web.json_response(self._configuration())
        if request.method != "POST":
            return _refused(400, "invalid_request", "AADSTS900561: The endpoint only accepts POST requests.")
        return self._token(dict(await request.post()))

    def name_call(self, request: web.Request) -> Call:
        """Name what is asked for."""
        return Call("Token" if request.path.endswith("/token") else "OpenIdConfiguration")

    def refuse(self, fault: HttpFault, _call: Call) -> web.Response:
        """Make the answer of a fault."""
        return _refused(fault.status or 503, fault.code or "temporarily_unavailable", fault.message)

    def _configuration(self) -> dict[str, Any]:
        root = f"{self.root}/{self._account.tenant}"
        return {
            "token_endpoint": f"{root}/oauth2/v2.0/token",
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
            "issuer": f"{root}/v2.0",
            "jwks_uri": f"{root}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile"],
        }

    def _token(self, form: dict[str, Any]) -> web.Response:
        account = self._account
        if form.get("grant_type") != "client_credentials":
            return _refused(400, "unsupported_grant_type", "AADSTS70003: The app requested an unsupported grant type.")
        if form.get("client_id") != account.application_id:
            words = f"AADSTS700016: Application with identifier '{form.get('client_id')}' was not found."
            return _refused(400, "unauthorized_client", words)
        if "client_secret" in form:
            if form["client_secret"] != account.application_key:
                return _refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        elif form.get("client_assertion_type") != ASSERTION_TYPE:
            return _refused(401, "invalid_client", "AADSTS7000216: 'client_assertion' or 'client_secret' is required.")
        elif _thumbprint(str(form.get("client_assertion"))) not in account.certificates:
            return _refused(401, "invalid_client", "AADSTS700027: The certificate is not registered on application.")
        scope = str(form.get("scope", ""))
        audience = scope.removesuffix("/.default")
        if audience == scope or audience not in (STORAGE, self.resource_manager):
            return _refused(400, "invalid_scope", f"AADSTS70011: The provided value '{scope}' for scope is not valid.")
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "ext_expires_in": TOKEN_SECONDS,
                "access_token": account.issue(audience),
            }
        )


def _thumbprint(assertion: str) -> str:
    """Return what a signed assertion says of its certificate."""
    head = assertion.partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        return str(found.get("x5t") or found.get("x5t#S256"))
    except (ValueError, AttributeError):
        return ""


def _refused(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description, "error_codes": []}, status=status)
