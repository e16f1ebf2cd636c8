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


def sign(
    headers: Mapping[str, str],
    *,
    keys: AccessKeys,
    service: str,
    region: str,
    method: str,
    path: str,
    payload: str,
    stamp: str,
) -> dict[str, str]:
    """Sign a request that has no query.

    Args:
        headers: All that the signature covers, by lower-case names; `host` is among them, with the port
            unless it is the scheme's own.
        keys: Whose signature it is.
        service: For example "sts".
        region: For example "eu-west-1".
        method: Of HTTP.
        path: As it stands in the request, encoded.
        payload: The SHA-256 of the body in hex, or UNSIGNED_PAYLOAD.
        stamp: See `stamp`.

    Returns:
        These headers, and those that make the signature.
    """
    signed = {**headers, "x-amz-date": stamp}
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    ordered = sorted(signed.items())
    names = ";".join([name for name, _value in ordered])
    lines = "".join([f"{name}:{value}\n" for name, value in ordered])
    request = f"{method}\n{_canonical(path)}\n\n{lines}\n{names}\n{payload}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = _signing_key(keys.secret_access_key, scope).copy()
    signature.update(text.encode())
    signed["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature.hexdigest()}"
    )
    return signed


def _canonical(path: str) -> str:
    """Return the path as it is signed: without dot segments and doubled slashes, and encoded once more."""
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
