"""AWS Signature Version 4.

Source: IAM user guide, "Create a signed AWS API request". Tests compare it with botocore's signer byte for byte.
"""

import dataclasses
import datetime
import functools
import hashlib
import hmac
import time
import urllib.parse
from collections.abc import Mapping

from clouduploader.util.frozen import frozen

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""Stands for the body's digest where the API leaves the body out of the signature."""


@frozen()
class AccessKeys:
    """Credentials of AWS, long-lived or temporary. The representation shows the id only.

    Attributes:
        access_key_id: Not a secret.
        secret_access_key: A secret.
        session_token: A secret; None for keys that do not expire.
        expires: When they do, aware; None for never.
    """

    access_key_id: str
    secret_access_key: str = dataclasses.field(repr=False)
    session_token: str | None = dataclasses.field(repr=False, default=None)
    expires: datetime.datetime | None = None


@functools.lru_cache(maxsize=2)  # many requests have the second in common
def stamp(seconds: int) -> str:
    """Format the time of a signature, from whole seconds since the epoch."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


class Signer:
    """Signs requests of one second; for several threads.

    Args:
        keys: Whose signature it is.
        service: For example "sts".
        region: For example "eu-west-1".
        stamp: See `stamp`.

    Attributes:
        headers: Which a request needs besides its own, by lower-case names; the signature covers them.
    """

    def __init__(self, keys: AccessKeys, *, service: str, region: str, stamp: str) -> None:
        self.headers = {"x-amz-date": stamp}
        if keys.session_token:
            self.headers["x-amz-security-token"] = keys.session_token
        scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
        self._key = _signing_key(keys.secret_access_key, scope)
        self._text = f"{ALGORITHM}\n{stamp}\n{scope}\n"
        self._credential = f"{ALGORITHM} Credential={keys.access_key_id}/{scope}"

    def authorization(self, request: str, names: str) -> str:
        """Return the value of the header Authorization.

        Args:
            request: From `canonical_request`.
            names: Also from there.
        """
        signature = self._key.copy()
        signature.update(f"{self._text}{hashlib.sha256(request.encode()).hexdigest()}".encode())
        return f"{self._credential}, SignedHeaders={names}, Signature={signature.hexdigest()}"


def canonical_request(method: str, path: str, headers: Mapping[str, str], payload: str) -> tuple[str, str]:
    """Write a request that has no query as it is signed.

    Args:
        method: Of HTTP.
        path: From `canonical_path`.
        headers: All that the signature covers, by lower-case names; `host` is among them, with the port
            unless it is the scheme's own, and those of the signer.
        payload: The SHA-256 of the body in hex, or UNSIGNED_PAYLOAD.

    Returns:
        The text, and the names of the headers as a signature lists them.
    """
    ordered = sorted(headers.items())
    names = ";".join([name for name, _value in ordered])
    lines = "".join([f"{name}:{value}\n" for name, value in ordered])
    return f"{method}\n{path}\n\n{lines}\n{names}\n{payload}", names


def canonical_path(path: str) -> str:
    """Return a path, encoded as it stands in the request, as it is signed.

    That is without dot segments and doubled slashes, and encoded once more.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    end = "/" if path.endswith("/") and parts else ""
    return urllib.parse.quote(f"/{'/'.join(parts)}{end}", safe="/~")


@functools.lru_cache(maxsize=4)  # it is good for a day; before and after midnight, old keys and new
def _signing_key(secret: str, scope: str) -> hmac.HMAC:
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
