"""Signature Version 4, verified as AWS does (IAM user guide, "Signature Version 4")."""

import datetime
import functools
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Callable

from clouduploader.sandbox.aws.account import SandboxAccount, SandboxIdentity
from clouduploader.sandbox.aws.amz_date import parse_amz_date, serialize_amz_date
from clouduploader.sandbox.aws.ebs.errors import EbsError
from clouduploader.sandbox.aws.ebs.http import RequestHead
from clouduploader.sandbox.aws.layout import REGIONS
from clouduploader.util.frozen import frozen

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
SERVICE = "ebs"
SKEW = datetime.timedelta(minutes=5)  # as the services with JSON answers say in their refusals
UNSIGNED = "UNSIGNED-PAYLOAD"  # fine here, because there is TLS around it
UNSIGNED_HEADERS = frozenset({"authorization", "x-amzn-trace-id"})


@frozen()
class SignedCaller:
    """The caller that signed a request.

    Attributes:
        identity: See SandboxIdentity.
        key_id: Of the access key.
        region: As signed.
    """

    identity: SandboxIdentity
    key_id: str
    region: str


def verify(
    head: RequestHead, body_sha256: Callable[[], str], *, account: SandboxAccount, now: datetime.datetime
) -> SignedCaller:
    """Verify the signature of a request, and return its caller.

    Args:
        head: Of the request.
        body_sha256: Gives the digest of its body in hex; asked only if the signature covers it.
        account: Knows the secrets.
        now: AWS's time.

    Raises:
        EbsError: It is not to be trusted.
    """
    authorization = head.headers.get("authorization")
    if authorization is None:
        raise EbsError("MissingAuthenticationTokenException", "Missing Authentication Token", status=403)
    match = AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise EbsError("IncompleteSignatureException", "The Authorization header is not as it must be.", status=403)
    key_id, day, region, service, signed_names, signature = match.groups()
    names = signed_names.split(";")
    _check_scope(head, day=day, region=region, service=service, names=names, now=now)
    identity = account.identity(key_id)
    if identity is None or head.headers.get("x-amz-security-token") != identity.token:
        raise _untrusted()
    # Expiry is by this machine's clock, by which moto wrote it down.
    if identity.expires and datetime.datetime.now(datetime.UTC) > identity.expires:
        raise EbsError("ExpiredTokenException", "The security token included in the request is expired")
    payload = head.headers.get("x-amz-content-sha256")
    if payload != UNSIGNED:
        digest = body_sha256()
        if payload not in (None, digest):
            raise _mismatch("The value of x-amz-content-sha256 is not the digest of the body.")
        payload = digest
    wanted = _signature(
        _key(identity.secret, day, region),
        head.headers["x-amz-date"],
        f"{day}/{region}/{service}/aws4_request",
        _canonical(head, names, payload),
    )
    if not hmac.compare_digest(wanted, signature):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )
    return SignedCaller(identity, key_id, region)


def _check_scope(
    head: RequestHead, *, day: str, region: str, service: str, names: list[str], now: datetime.datetime
) -> None:
    missing = {"host", "x-amz-date"} | {name for name in head.headers if name.startswith("x-amz-")}
    missing -= {*names, *UNSIGNED_HEADERS}
    if missing or names != sorted(set(names)) or not head.headers.keys() >= set(names):
        raise _mismatch(f"These headers must be signed, be there, and be sorted: {', '.join(sorted(missing))}")
    if service != SERVICE:
        raise _mismatch(f"Credential should be scoped to correct service: '{SERVICE}'.")
    if region not in REGIONS:
        raise _untrusted()
    signed_at = parse_amz_date(head.headers["x-amz-date"])
    if signed_at is None or not head.headers["x-amz-date"].startswith(day):
        raise _mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date")
    signed, here = serialize_amz_date(signed_at), serialize_amz_date(now)
    if now - signed_at > SKEW:
        limit = serialize_amz_date(now - SKEW)
        raise _mismatch(f"Signature expired: {signed} is now earlier than {limit} ({here} - 5 min.)")
    if signed_at - now > SKEW:
        limit = serialize_amz_date(now + SKEW)
        raise _mismatch(f"Signature not yet current: {signed} is still later than {limit} ({here} + 5 min.)")


@functools.lru_cache(maxsize=64)
def _key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _signature(key: bytes, moment: str, scope: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return hmac.digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()


def _canonical(head: RequestHead, names: list[str], payload: str) -> str:
    headers = "".join(f"{name}:{' '.join(head.headers[name].split())}\n" for name in names)
    path = urllib.parse.quote(head.path, safe="/~")
    return f"{head.method}\n{path}\n{_canonical_query(head.query)}\n{headers}\n{';'.join(names)}\n{payload}"


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    encoded = sorted((urllib.parse.quote(name, safe="~"), urllib.parse.quote(value, safe="~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _mismatch(message: str) -> EbsError:
    return EbsError("InvalidSignatureException", message, status=403)


def _untrusted() -> EbsError:
    return EbsError("UnrecognizedClientException", "The security token included in the request is invalid.")
