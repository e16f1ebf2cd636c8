"""Calls of OpenStack's APIs by a user, for what the sandbox itself has to do; without any SDK."""

import json
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

CALL_SECONDS = 60.0


class User:
    """A user of the domain `default` who has logged in.

    Args:
        auth_url: Of Keystone, with the version.
        name: The user's.
        password: The user's.
        project: Its name.
        ca: The file with the certificate of the CA of https; None for http.
    """

    def __init__(self, auth_url: str, *, name: str, password: str, project: str, ca: str | None = None) -> None:
        self._context = ssl.create_default_context(cafile=ca) if ca else None
        self._headers: dict[str, str] = {}
        user = {"name": name, "password": password, "domain": {"id": "default"}}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": {"id": "default"}}},
        }
        token, headers = self._asked("POST", f"{auth_url}/auth/tokens", {"auth": auth})
        self._headers = {"X-Auth-Token": headers["X-Subject-Token"]}
        self._auth_url = auth_url
        self.id = str(token["token"]["user"]["id"])

    def call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 JSON
        """Make a call; return the answer, or None for one without a body.

        Raises:
            urllib.error.HTTPError: It was refused.
        """
        return self._asked(method, url, body)[0]

    def make(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make something in Keystone: what the only member of the body says; return it."""
        ((_kind, made),) = self._asked("POST", f"{self._auth_url}/{path}", body)[0].items()
        found: Mapping[str, Any] = made
        return found

    def _asked(self, method: str, url: str, body: Mapping[str, Any] | None) -> tuple[Any, Mapping[str, str]]:
        request = urllib.request.Request(  # noqa: S310 of http
            url,
            json.dumps(body).encode() if body is not None else None,
            {"Content-Type": "application/json", **self._headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=self._context) as answer:  # noqa: S310
            text = answer.read()
            return json.loads(text) if text else None, answer.headers
