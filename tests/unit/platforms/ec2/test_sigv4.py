import datetime
import hashlib

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import hypothesis
from hypothesis import strategies as st

from clouduploader.platforms.ec2 import sigv4

NOW = datetime.datetime(2026, 11, 22, 17, 4, 5, 678, tzinfo=datetime.UTC)
words = st.from_regex(r"[A-Za-z0-9/+=]{1,60}", fullmatch=True)
segments = st.one_of(
    st.from_regex(r"([A-Za-z0-9._~-]|%[0-9A-F]{2}){0,9}", fullmatch=True), st.sampled_from((".", ".."))
)
paths = st.lists(segments).map(lambda parts: "/" + "/".join(parts))


def by_botocore(headers, *, keys, service, region, method, path, payload, stamp):
    """All headers as botocore's signer makes them for the same request."""
    request = botocore.awsrequest.AWSRequest(method, f"https://{headers['host']}{path}", headers=headers, data=payload)
    credentials = botocore.credentials.Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    signer = botocore.auth.SigV4Auth(credentials, service, region)
    if payload == sigv4.UNSIGNED_PAYLOAD:
        request.context["payload_signing_enabled"] = False
    request.context["timestamp"] = stamp
    signer._modify_request_before_signing(request)  # add_auth would take the time of now
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return {name.lower(): value for name, value in request.headers.items()}


def sign(headers, *, keys, service, region, method, path, payload, stamp):
    """All headers of a request, signed."""
    signer = sigv4.Signer(keys, service=service, region=region, stamp=stamp)
    signed = {**headers, **signer.headers}
    text, names = sigv4.canonical_request(method, sigv4.canonical_path(path), signed, payload)
    return {**signed, "authorization": signer.authorization(text, names)}


@hypothesis.given(
    key_id=words,
    secret=st.one_of(words, st.text(st.characters(codec="utf-8"), min_size=1)),
    token=st.one_of(st.none(), words),
    service=st.sampled_from(("sts", "ec2", "ebs")),
    region=st.sampled_from(("eu-west-1", "us-gov-east-1", "cn-north-1")),
    method=st.sampled_from(("POST", "PUT")),
    port=st.sampled_from(("", ":4566")),
    path=paths,
    others=st.dictionaries(st.from_regex(r"x-amz-[a-z]{1,9}", fullmatch=True), words),
    body=st.one_of(st.none(), st.binary(max_size=200)),
    now=st.datetimes(min_value=datetime.datetime(2000, 1, 1), max_value=datetime.datetime(2100, 1, 1)),
)
def test_headers_are_those_of_botocore(key_id, secret, token, service, region, method, port, path, others, body, now):
    stamp = sigv4.stamp(int(now.replace(tzinfo=datetime.UTC).timestamp()))
    assert stamp == now.strftime("%Y%m%dT%H%M%SZ")
    if body is None:
        payload = sigv4.UNSIGNED_PAYLOAD
        others = {**others, "x-amz-content-sha256": payload}
    else:
        payload = hashlib.sha256(body).hexdigest()
        others = {**others, "x-amz-content-sha256": payload}  # botocore takes the digest of the body from there
    request = {
        "keys": sigv4.AccessKeys(key_id, secret, token),
        "service": service,
        "region": region,
        "method": method,
        "path": path,
        "payload": payload,
        "stamp": stamp,
    }
    headers = {"host": f"{service}.{region}.amazonaws.com{port}", **others}
    assert sign(headers, **request) == by_botocore(headers, **request)


def make_headers(headers=None, **changes):
    defaults = {
        "keys": sigv4.AccessKeys("AKIA", "secret"),
        "service": "sts",
        "region": "eu-west-1",
        "method": "POST",
        "path": "/",
        "payload": hashlib.sha256(b"a=1").hexdigest(),
        "stamp": "20261122T170405Z",
    }
    return sign(headers or {"host": "localhost"}, **defaults | changes)


def test_headers_hold_what_is_signed():
    headers = make_headers(keys=sigv4.AccessKeys("AKIA", "secret", "token"))
    assert headers.keys() == {"host", "x-amz-date", "x-amz-security-token", "authorization"}
    assert headers["x-amz-date"] == "20261122T170405Z"
    assert headers["x-amz-security-token"] == "token"


def test_headers_have_no_token_without_one():
    assert "x-amz-security-token" not in make_headers()


def test_signature_depends_on_all_there_is():
    changes = (
        {},
        {"keys": sigv4.AccessKeys("AKIA", "other")},
        {"keys": sigv4.AccessKeys("AKIA", "secret", "token")},
        {"service": "ec2"},
        {"region": "eu-west-2"},
        {"headers": {"host": "127.0.0.1"}},
        {"method": "PUT"},
        {"path": "/x"},
        {"payload": sigv4.UNSIGNED_PAYLOAD},
        {"stamp": "20261122T170406Z"},
        {"stamp": "20261123T170405Z"},
    )
    found = {make_headers(**change)["authorization"].rpartition("=")[2] for change in changes}
    assert len(found) == len(changes)


def test_signing_key_is_made_once_a_day():
    sigv4._signing_key.cache_clear()
    for second in range(10):
        make_headers(stamp=f"20261122T17040{second}Z")
    assert sigv4._signing_key.cache_info().misses == 1


def test_secret_is_in_no_header_and_no_representation():
    keys = sigv4.AccessKeys("AKIA", "sesame", "open", NOW)
    assert "sesame" not in str(make_headers(keys=keys))
    assert "sesame" not in repr(keys)
    assert "open" not in repr(keys)
    assert "AKIA" in repr(keys)
