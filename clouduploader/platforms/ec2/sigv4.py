"""AWS Signature Version 4 for a POST of a form.

Source: IAM user guide, "Create a signed AWS API request". A test compares it with botocore's
signer byte for byte.
"""

import dataclasses
import datetime
import hashlib
import hmac

ALGORITHM = "AWS4-HMAC-SHA256"
CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"


@dataclasses.dataclass(frozen=True)
class Keys:
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


def signed_headers(
    *, keys: Keys, service: str, region: str, host: str, path: str, body: bytes, now: datetime.datetime
) -> dict[str, str]:
    """Make the headers of a signed POST.

    Args:
        keys: Whose signature it is.
        service: For example "sts".
        region: For example "eu-west-1".
        host: The header Host, with the port unless it is the scheme's own.
        path: Of the URL, encoded.
        body: The form.
        now: In UTC.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": CONTENT_TYPE, "host": host, "x-amz-date": stamp}
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"POST\n{path}\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    signature = hmac.new(
        _signing_key(keys.secret_access_key, scope), f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), "sha256"
    ).hexdigest()
    headers["authorization"] = (
        f"{ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _signing_key(secret: str, scope: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key
