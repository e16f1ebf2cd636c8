"""Ask an OpenID provider who a user is: authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636).

What the provider answers is bounded in size and time, no redirection is followed, and nothing of it is believed before
it was checked.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from clouduploader.errors import ConfigError, UsageError
from clouduploader.server.replies import RefusalError
from clouduploader.server.signin.settings import ANY, OpenIdSettings, is_safe_url
from clouduploader.store import home as home_files
from clouduploader.store.database import check_user
from clouduploader.store.tokens import Role
from clouduploader.util import files, masking

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of signatures by keys that only the provider has: not `none`, and none whose key is the client's secret."""
MAX_BYTES = 1 << 20  # of an answer; real ones have some KiB
MAX_SECRET_BYTES = 4096
TIMEOUT_SECONDS = 15.0
LEEWAY_SECONDS = 60  # by which the provider's clock may differ
FRESH_SECONDS = 3600.0  # its configuration and keys are read again after that
KEYS_SECONDS = 60.0  # and its keys for an unknown one, but not more often than that
MAX_CODE_CHARS = 100  # of an error's code that is told of

Document = dict[str, Any]


class Provider:
    """One provider, with what it has said of itself.

    Args:
        settings: Of it.
        home: Has the file with the client's secret; without one the client is public.
    """

    def __init__(self, settings: OpenIdSettings, home: Path) -> None:
        self.settings = settings
        self._secret_path = home / home_files.OPENID_SECRET
        self._configuration: tuple[float, Document] | None = None
        self._keys: tuple[float, list[Document]] | None = None
        self._asking = asyncio.Lock()

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Return where the browser is to go.

        Args:
            redirect_uri: Where the provider is to send it back to.
            state: Comes back with it.
            nonce: Comes back in the ID token.
            verifier: Is asked for when the code is redeemed; only its digest goes out here.

        Raises:
            RefusalError: The provider can't be asked, or its answer makes no sense.
        """
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = await self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urllib.parse.urlencode(query)}"

    async def redeem(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> Document:
        """Return the checked claims about the user who has come back with a code.

        Raises:
            RefusalError: The provider can't be asked, refuses, or its answer is not what it must be.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        endpoint, headers = await self._endpoint("token_endpoint"), {}
        secret, name = await asyncio.to_thread(self._secret), self.settings.client_id
        methods = (await self._configured()).get("token_endpoint_auth_methods_supported")
        if secret is not None and (not isinstance(methods, list) or "client_secret_basic" in methods):
            pair = f"{urllib.parse.quote_plus(name)}:{urllib.parse.quote_plus(secret)}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": name} | ({} if secret is None else {"client_secret": secret})
        answer = await self._ask("POST", endpoint, data=form, headers=headers)
        claims = await self._check(_text(answer, "id_token"), nonce)
        wanted = {self.settings.user_claim, self.settings.role_claim}
        if wanted - claims.keys() and (await self._configured()).get("userinfo_endpoint"):
            bearer = {"Authorization": f"Bearer {_text(answer, 'access_token')}"}
            told = await self._ask("GET", await self._endpoint("userinfo_endpoint"), headers=bearer)
            if told.get("sub") != claims["sub"]:
                raise _refusal("its user information is that of another account")
            claims = {**told, **claims}
        return claims

    async def _check(self, text: str, nonce: str) -> Document:
        """Return the claims of an ID token (OpenID Connect Core 1.0, 3.1.3.7)."""
        import jwt

        try:
            header = jwt.get_unverified_header(text)
            algorithm = header.get("alg")
            if algorithm not in ALGORITHMS:
                raise _refusal("its ID token is signed by an algorithm that is not taken")
            key = jwt.PyJWK(await self._key(header.get("kid"), algorithm), algorithm=algorithm)
            options: Any = {"require": ["iss", "sub", "aud", "exp", "iat"]}
            claims: Document = jwt.decode(
                text, key, algorithms=[algorithm], audience=self.settings.client_id, issuer=self.settings.issuer,
                leeway=LEEWAY_SECONDS, options=options,
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            raise _refusal(f"its ID token is not taken ({type(exc).__name__})") from exc
        others = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims.get("azp", self.settings.client_id) != self.settings.client_id or (
            len(others) > 1 and "azp" not in claims
        ):
            raise _refusal("its ID token is for another client")
        if not hmac.compare_digest(str(claims.get("nonce")).encode("utf-8", "replace"), nonce.encode()):
            raise _refusal("its ID token is not for this sign-in")
        return claims

    async def _key(self, name: object, algorithm: str) -> Document:
        """Return the key of this id that is for signatures by the algorithm; it may have come since the last look."""
        for _ in range(2):
            for key in await self._known_keys():
                is_fit = key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm
                if is_fit and (name is None or key.get("kid") == name):
                    return key
            if self._keys and time.monotonic() - self._keys[0] > KEYS_SECONDS:
                self._keys = None
        raise _refusal("its ID token is signed by none of its keys")

    async def _known_keys(self) -> list[Document]:
        endpoint = await self._endpoint("jwks_uri")
        async with self._asking:
            if self._keys is None or time.monotonic() - self._keys[0] > FRESH_SECONDS:
                keys = (await self._ask("GET", endpoint)).get("keys")
                if not isinstance(keys, list):
                    raise _refusal("its keys are no list")
                self._keys = (time.monotonic(), [key for key in keys if isinstance(key, dict)])
            return self._keys[1]

    async def _endpoint(self, name: str) -> str:
        url = (await self._configured()).get(name)
        if not isinstance(url, str) or not is_safe_url(url):
            raise _refusal(f"its configuration has no {name} with https")
        return url

    async def _configured(self) -> Document:
        """Return what the provider says of itself (OpenID Connect Discovery 1.0)."""
        async with self._asking:
            if self._configuration is None or time.monotonic() - self._configuration[0] > FRESH_SECONDS:
                url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
                found = await self._ask("GET", url)
                if found.get("issuer") != self.settings.issuer:
                    raise _refusal("its configuration is that of another issuer")
                self._configuration = (time.monotonic(), found)
            return self._configuration[1]

    async def _ask(
        self, method: str, url: str, *, data: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Document:
        """Send a request, and return the JSON object that is its answer."""
        headers = {"Accept": "application/json", **(headers or {})}
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                aiohttp.ClientSession(trust_env=True) as client,  # a site's proxy may be the only way out
                client.request(method, url, data=data, headers=headers, allow_redirects=False) as answer,
            ):
                status, body = answer.status, bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise _refusal("it sends too much")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            raise _refusal(f"it can't be asked ({type(exc).__name__})") from exc
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if status != 200:
            code = found.get("error") if isinstance(found, dict) else None
            told = f", {code[:MAX_CODE_CHARS]}" if isinstance(code, str) and code.isprintable() else ""
            raise _refusal(f"it answers {status}{told}")
        if not isinstance(found, dict):
            raise _refusal("its answer is no JSON object")
        return found

    def _secret(self) -> str | None:
        """In a thread: return the client's secret; None if there is none."""
        try:
            with files.open_read(self._secret_path, is_followed=True) as file:
                text = file.read(MAX_SECRET_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"the secret in {self._secret_path} can't be read") from exc
        masking.hide(text)
        return text


def identity(claims: Document, settings: OpenIdSettings) -> tuple[str, Role]:
    """Return which user an account at the provider is here, and in which role.

    Raises:
        RefusalError: It is none.
    """
    user = claims.get(settings.user_claim)
    if settings.user_claim == "email" and claims.get("email_verified") is not True:
        raise RefusalError("the provider has not verified the address", status=403, is_coded=True)
    try:
        check_user(user if isinstance(user, str) else "")
    except UsageError as exc:
        raise RefusalError(f"the account has no claim {settings.user_claim} that can be a name", status=403) from exc
    values = claims.get(settings.role_claim)
    held = {one for one in (values if isinstance(values, list) else [values]) if isinstance(one, str)}
    if held & set(settings.admins):
        return str(user), Role.ADMIN
    if settings.users == (ANY,) or held & set(settings.users):
        return str(user), Role.USER
    raise RefusalError(f"{user} may not use this service", status=403, is_coded=True)


def _text(answer: Document, name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str):
        raise _refusal(f"its answer has no {name}")
    return found


def _refusal(why: str) -> RefusalError:
    return RefusalError(f"the OpenID provider can't be used: {why}", status=502, is_coded=True)
