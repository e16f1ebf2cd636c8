import datetime

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import hypothesis
from hypothesis import strategies as st

from clouduploader.platforms.ec2 import sigv4

NOW = datetime.datetime(2026, 11, 22, 17, 4, 5, 678, tzinfo=datetime.UTC)
words = st.from_regex(r"[A-Za-z0-9/+=]{1,60}", fullmatch=True)
# one slash between segments, for botocore makes one out of several; STS has but the path "/"
paths = st.lists(st.from_regex(r"[A-Za-z0-9._~-]{1,9}", fullmatch=True)).map(lambda parts: "/" + "/".join(parts))


def by_botocore(*, keys, service, region, host, path, body, now):
    """The header Authorization as botocore's signer makes it for the same request."""
    headers = {"content-type": sigv4.CONTENT_TYPE, "host": host}
    request = botocore.awsrequest.AWSRequest("POST", f"https://{host}{path}", headers=headers, data=body)
    credentials = botocore.credentials.Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    signer = botocore.auth.SigV4Auth(credentials, service, region)
    request.context["timestamp"] = now.strftime(botocore.auth.SIGV4_TIMESTAMP)
    signer._modify_request_before_signing(request)  # add_auth would take the time of now
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    signer._inject_signature_to_request(request, signature)
    return request.headers["Authorization"]


@hypothesis.given(
    key_id=words,
    secret=st.one_of(words, st.text(st.characters(codec="utf-8"), min_size=1)),
    token=st.one_of(st.none(), words),
    service=st.sampled_from(("sts", "ec2")),
    region=st.sampled_from(("eu-west-1", "us-gov-east-1", "cn-north-1")),
    port=st.sampled_from(("", ":4566")),
    path=paths,
    body=st.binary(max_size=200),
    now=st.datetimes(min_value=datetime.datetime(2000, 1, 1), max_value=datetime.datetime(2100, 1, 1)),
)
def test_signature_is_that_of_botocore(key_id, secret, token, service, region, port, path, body, now):
    request = {
        "keys": sigv4.Keys(key_id, secret, token),
        "service": service,
        "region": region,
        "host": f"{service}.{region}.amazonaws.com{port}",
        "path": path,
        "body": body,
        "now": now.replace(tzinfo=datetime.UTC),
    }
    assert sigv4.signed_headers(**request)["authorization"] == by_botocore(**request)


def make_headers(**changes):
    defaults = {
        "keys": sigv4.Keys("AKIA", "secret"),
        "service": "sts",
        "region": "eu-west-1",
        "host": "localhost",
        "path": "/",
        "body": b"a=1",
        "now": NOW,
    }
    return sigv4.signed_headers(**defaults | changes)


def test_headers_hold_what_is_signed():
    headers = make_headers(keys=sigv4.Keys("AKIA", "secret", "token"))
    assert headers.keys() == {"content-type", "host", "x-amz-date", "x-amz-security-token", "authorization"}
    assert headers["x-amz-date"] == "20261122T170405Z"
    assert headers["x-amz-security-token"] == "token"


def test_headers_have_no_token_without_one():
    assert "x-amz-security-token" not in make_headers()


def test_signature_depends_on_all_there_is():
    changes = (
        {},
        {"keys": sigv4.Keys("AKIA", "other")},
        {"keys": sigv4.Keys("AKIA", "secret", "token")},
        {"service": "ec2"},
        {"region": "eu-west-2"},
        {"host": "127.0.0.1"},
        {"path": "/x"},
        {"body": b"a=2"},
        {"now": NOW + datetime.timedelta(seconds=1)},
    )
    found = {make_headers(**change)["authorization"].rpartition("=")[2] for change in changes}
    assert len(found) == len(changes)


def test_secret_is_in_no_header_and_no_representation():
    keys = sigv4.Keys("AKIA", "sesame", "open", NOW)
    assert "sesame" not in str(make_headers(keys=keys))
    assert "sesame" not in repr(keys)
    assert "open" not in repr(keys)
    assert "AKIA" in repr(keys)
