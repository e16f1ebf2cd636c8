"""The verification of signatures, against botocore's signer."""

import datetime
import hashlib
import string

import hypothesis
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import strategies as st

from clouduploader.sandbox.aws.account import SandboxIdentity
from clouduploader.sandbox.aws.ebs import signature
from clouduploader.sandbox.aws.ebs.errors import EbsError
from clouduploader.sandbox.aws.ebs.http import RequestHead

KEY_ID, SECRET, TOKEN = "ASIAEXAMPLE", "a secret/+=", "a token/+="


class Account:
    """Stands in for the account: one key."""

    def identity(self, access_key_id):
        return SandboxIdentity("arn", SECRET, TOKEN, None, ()) if access_key_id == KEY_ID else None


def signed(query="", headers=None, body=b""):
    """A request as botocore signs it."""
    url = f"https://127.0.0.1:5443/snapshots/snap-1/blocks{'?' if query else ''}{query}"
    request = AWSRequest("GET", url, headers={"Host": "127.0.0.1:5443", **(headers or {})}, data=body)
    SigV4Auth(Credentials(KEY_ID, SECRET, TOKEN), "ebs", "us-east-1").add_auth(request)
    lower = {name.lower(): value for name, value in request.headers.items()}
    return RequestHead("GET", url.removeprefix("https://127.0.0.1:5443"), lower, len(body))


def verify(head, body=b""):
    now = datetime.datetime.now(datetime.UTC)
    return signature.verify(head, lambda: hashlib.sha256(body).hexdigest(), account=Account(), now=now)


words = st.text(string.ascii_letters + string.digits + "-_.~", max_size=10)


@hypothesis.given(st.lists(st.tuples(words.filter(bool), words), max_size=4, unique_by=lambda p: p[0]), st.binary())
@hypothesis.example([("a", "1"), ("a0", "")], b"")  # by name: "a" is before "a0", though "=" is behind "0"
def test_what_botocore_signs_is_right(pairs, body):
    head = signed("&".join(f"{name}={value}" for name, value in pairs), {"x-amz-Progress": " 7  8 "}, body)
    caller = verify(head, body)
    assert (caller.key_id, caller.region, caller.identity.secret) == (KEY_ID, "us-east-1", SECRET)


def test_encoded_query_is_right():
    assert verify(signed("blockToken=a%2Bb%2Fc%3D")).key_id == KEY_ID


def test_other_body_is_refused():
    with pytest.raises(EbsError, match="does not match"):
        verify(signed(body=b"one"), b"other")


@hypothesis.given(st.text(max_size=200))
def test_no_authorization_is_guessed_at(text):
    head = signed()
    with pytest.raises(EbsError):
        verify(RequestHead("GET", head.target, {**head.headers, "authorization": text}, 0))
