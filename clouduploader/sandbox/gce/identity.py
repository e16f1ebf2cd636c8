"""Who may do what: the token service of Google, the rights of a service account, and Resource Manager's answer to both.

Sources: "Using OAuth 2.0 for Server to Server Applications" for the token; projects.testIamPermissions of Resource
Manager's API; "Workload Identity Federation" and Security Token Service API, `token`.
"""

import json
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from aiohttp import web
from google.auth import jwt

from clouduploader.sandbox.gce.refusal import RefusedError

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"  # wherever the service is reached
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 the name of a type
PROVIDER = "//iam.googleapis.com/projects/1234567890/locations/global/workloadIdentityPools/builds/providers/builds"
"""The provider of a workload identity pool, which believes what the service account's key signs for it."""
MAX_LIFE_SECONDS = 3600  # "exp": a maximum of 1 hour after the issued time
MAX_SKEW_SECONDS = 300
BUCKET, PROJECT = "bucket", "project"  # what rights are on
NEEDED_SCOPES = {  # each API takes any of these; "OAuth 2.0 Scopes for Google APIs"
    "storage": ("cloud-platform", "devstorage.read_write", "devstorage.full_control"),
    "compute": ("cloud-platform", "compute"),
    "cloudresourcemanager": ("cloud-platform", "cloud-platform.read-only"),
}
SCOPE_PREFIX = "https://www.googleapis.com/auth/"


class Identity:
    """One service account, its rights and its tokens. Threads may share it.

    Args:
        email: Its address.
        public_key: In PEM.
        now: Seconds since 1970, by the cloud's clock.
    """

    def __init__(self, *, email: str, public_key: str, now: Callable[[], float]) -> None:
        self.email = email
        self._key = public_key
        self._now = now
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, Collection[str]]] = {}
        self.life_seconds = float(MAX_LIFE_SECONDS)
        self.rights: Mapping[str, Collection[str]] = {BUCKET: (), PROJECT: ()}

    def expire(self) -> None:
        """Let all tokens expire."""
        with self._lock:
            self._tokens.clear()

    def issue(self, form: Mapping[str, Any]) -> web.Response:
        """Answer a request for a token."""
        if form.get("grant_type") != GRANT:
            return _no_grant("unsupported_grant_type", "Invalid grant_type")
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                form.get("assertion", ""),
                certs=self._key,
                audience=AUDIENCE,
                clock_skew_in_seconds=MAX_SKEW_SECONDS,
            )
        except ValueError as exc:
            return _no_grant("invalid_grant", f"Invalid JWT: {exc}")
        if claims.get("iss") != self.email:
            return _no_grant("invalid_grant", "Invalid grant: account not found")
        if claims["exp"] - claims["iat"] > MAX_LIFE_SECONDS:
            return _no_grant("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        return self._issued(str(claims.get("scope", "")))

    def exchange(self, form: Mapping[str, Any]) -> web.Response:
        """Answer a request for a token of Google's for one of a workload."""
        if form.get("grant_type") != EXCHANGE or form.get("requested_token_type") != ACCESS_TOKEN:
            return _no_grant("invalid_request", "Invalid grant_type or requested_token_type")
        if form.get("audience") != PROVIDER:
            return _no_grant("invalid_target", 'The target service indicated by the "audience" parameters is invalid.')
        try:
            jwt.decode(form.get("subject_token", ""), certs=self._key, audience=f"https:{PROVIDER}")  # type: ignore[no-untyped-call]
        except ValueError as exc:
            return _no_grant("invalid_grant", f"Invalid ID Token: {exc}")
        return self._issued(str(form.get("scope", "")), issued_token_type=ACCESS_TOKEN)

    def _issued(self, scope: str, **more: str) -> web.Response:
        scopes = scope.split()
        if not scopes:
            return _no_grant("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = f"ya29.{secrets.token_urlsafe(32)}"
        with self._lock:
            self._tokens[token] = (self._now() + self.life_seconds, scopes)
        life = {"expires_in": int(self.life_seconds), "token_type": "Bearer"}
        return web.json_response({"access_token": token, **life, **more})

    def authenticate(self, request: web.Request, service: str) -> None:
        """Look at the token of a request.

        Raises:
            RefusedError: There is none that is good for this API.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        with self._lock:
            ends_at, scopes = self._tokens.get(token, (0.0, ()))
        if scheme != "Bearer" or ends_at <= self._now():
            raise RefusedError(401, "authError", "Request had invalid authentication credentials.")
        if not {f"{SCOPE_PREFIX}{name}" for name in NEEDED_SCOPES[service]}.intersection(scopes):
            raise RefusedError(403, "insufficientPermissions", "Request had insufficient authentication scopes.")

    def require(self, where: str, permission: str, subject: str) -> None:
        """Look whether the account has a permission.

        Raises:
            RefusedError: It has not.
        """
        if permission not in self.rights[where]:
            message = f"{self.email} does not have {permission} access to {subject}."
            if where == PROJECT:
                message = f"Required '{permission}' permission for '{subject}'"
            raise RefusedError(403, "forbidden", message)

    def test(self, where: str, permissions: Collection[str]) -> web.Response:
        """Answer testIamPermissions."""
        found = [one for one in permissions if one in self.rights[where]]
        return web.json_response({"permissions": found} if found else {})

    def test_project(self, body: bytes) -> web.Response:
        """Answer Resource Manager's."""
        return self.test(PROJECT, json.loads(body)["permissions"])


def _no_grant(error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=400)
