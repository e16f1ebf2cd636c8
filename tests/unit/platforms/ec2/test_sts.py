import datetime
import hashlib
import json
import socket
import threading

import pytest

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    NetworkError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
)
from clouduploader.platforms.ec2 import refusals, sigv4, sts

KEYS = sigv4.Keys("AKIAEXAMPLE", "SECRET/of+service", "TOKEN/of+service")
SECRETS = ("SECRET/of", "TOKEN/of")
PARAMETERS = {"RoleArn": "arn:aws:iam::1:role/a b", "RoleSessionName": "obs-7", "ExternalId": "x&y=ö"}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(sts, "PAUSE_SECONDS", 0.001)


@pytest.fixture
def assume():
    """A function that asks an endpoint for a role; its attribute `calls` holds what was told."""

    def ask(url, *, keys=KEYS, region="eu-west-1", variable="AWS_ENDPOINT_URL"):
        return sts.assume_role(
            keys=keys,
            region=region,
            parameters=PARAMETERS,
            environment={variable: url},
            on_call=ask.calls.append,
            subject="role arn:x",
        )

    ask.calls = []
    return ask


def chain(exc):
    """An exception and all that led to it, as text and as what they hold."""
    found = []
    while exc:
        found += [str(exc), repr(vars(exc)), repr(exc.args), str(getattr(exc, "object", ""))]
        assert exc.__cause__ is None or exc.__context__ is exc.__cause__
        exc = exc.__context__
    return "\n".join(found)


def assert_no_secret(exc):
    text = chain(exc)
    assert not [secret for secret in SECRETS if secret in text]


def test_granted_role_gives_its_credentials(make_endpoint, granted, assume):
    found = assume(make_endpoint(granted).url)
    assert found == sigv4.Keys(
        "ASIAEXAMPLE", "SECRET/of+role", "TOKEN/of+role=", datetime.datetime(2026, 11, 22, 18, tzinfo=datetime.UTC)
    )


def test_request_is_a_signed_form_with_all_parameters(make_endpoint, granted, assume):
    endpoint = make_endpoint(granted)
    assume(endpoint.url)
    (request,) = endpoint.requests
    assert request.form == {"Action": "AssumeRole", "Version": "2011-06-15", **PARAMETERS}
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["host"] == endpoint.url.removeprefix("http://")
    assert headers["x-amz-security-token"] == "TOKEN/of+service"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    signed = sigv4.sign(
        {"content-type": headers["content-type"], "host": headers["host"]},
        keys=KEYS,
        service="sts",
        region="eu-west-1",
        method="POST",
        path=request.path,
        payload=hashlib.sha256(request.body).hexdigest(),
        stamp=headers["x-amz-date"],
    )
    assert headers["authorization"] == signed["authorization"]
    assert "SECRET" not in json.dumps(request.headers) + request.body.decode()


def test_path_of_the_endpoint_is_kept(make_endpoint, granted, assume):
    endpoint = make_endpoint(granted)
    assume(f"{endpoint.url}/sts/")
    assert endpoint.requests[0].path == "/sts/"


def test_call_is_told_without_secrets(make_endpoint, granted, assume):
    endpoint = make_endpoint(granted)
    assume(endpoint.url)
    (line,) = assume.calls
    assert line.startswith(f"sts AssumeRole at {endpoint.url}: 200 in ")
    assert line.endswith(" ms, request id id-1")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", refusals.NotTrustedError),
        ("InvalidClientTokenId", CredentialsError),
        ("SignatureDoesNotMatch", CredentialsError),
        ("ExpiredToken", CredentialsError),
        ("RegionDisabledException", CredentialsError),
        ("ValidationError", CredentialsError),
        ("PackedPolicyTooLarge", PlatformReplyError),
    ],
)
def test_refusal_is_translated_and_not_tried_again(make_endpoint, refused, assume, code, kind):
    endpoint = make_endpoint(refused(code, "Words &amp; reasons", 403))
    with pytest.raises(kind, match=rf"\(AssumeRole: {code}\)") as caught:
        assume(endpoint.url)
    assert type(caught.value) is kind
    assert len(endpoint.requests) == 1
    assert assume.calls[0].endswith("request id id-2")
    assert_no_secret(caught.value)


def test_wrong_clock_is_found_by_the_date_of_the_answer(make_endpoint, refused, assume):
    endpoint = make_endpoint(refused("SignatureDoesNotMatch", status=403, Date="Sun, 22 Nov 2020 17:00:00 GMT"))
    with pytest.raises(CredentialsError, match=r"this machine's clock is .* minutes ahead"):
        assume(endpoint.url)


def test_answer_without_a_date_is_understood(make_endpoint, refused, assume):
    endpoint = make_endpoint(refused("SignatureDoesNotMatch", status=403, Date=None))
    with pytest.raises(CredentialsError, match="secret is wrong"):
        assume(endpoint.url)


@pytest.mark.parametrize("trouble", [(500, "oops"), (503, b"\xff\xfe"), None, (400, "<a><Code>Throttling</Code></a>")])
def test_passing_trouble_is_tried_again(make_endpoint, granted, assume, trouble):
    endpoint = make_endpoint(trouble, trouble, granted)
    assert assume(endpoint.url).access_key_id == "ASIAEXAMPLE"
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        ((500, "oops"), TransientError, r"AWS failed: Internal Server Error \(AssumeRole: HTTP 500\)"),
        (None, NetworkError, "can't be reached: Remote end closed connection"),
        ((400, "<a><Code>Throttling</Code></a>"), ThrottledError, "fewer requests"),
    ],
)
def test_lasting_trouble_ends_after_some_tries(make_endpoint, assume, trouble, kind, words):
    endpoint = make_endpoint(trouble)
    with pytest.raises(kind, match=words) as caught:
        assume(endpoint.url)
    assert len(endpoint.requests) == sts.TRIES
    assert_no_secret(caught.value)


def test_closed_port_is_a_network_error(assume):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NetworkError, match=f"{url} can't be reached") as caught:
            assume(url)
    assert_no_secret(caught.value)


def test_server_that_speaks_no_tls_is_a_network_error(make_endpoint, granted, assume):
    url = make_endpoint(granted).url.replace("http:", "https:")
    with pytest.raises(NetworkError, match=f"{url} can't be reached"):
        assume(url)


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", b"\r\n"]
)
def test_server_that_speaks_no_http_is_a_network_error(assume, greeting):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(sts.TRIES):
                connection, _address = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(NetworkError) as caught:
            assume(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert_no_secret(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:4566", "http://", "http://127.0.0.1:port", "http://[::1", "ftp://127.0.0.1/", "http://a b/"]
)
def test_endpoint_that_is_no_url_is_a_configuration_error(assume, url):
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL") as caught:
        assume(url)
    assert url in caught.value.message
    assert_no_secret(caught.value)


def credentials(**changes):
    values = {
        "AccessKeyId": "ASIA",
        "SecretAccessKey": "SECRET/of+role",
        "SessionToken": "TOKEN/of+role",
        "Expiration": "2026-11-22T18:00:00Z",
    } | changes
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items() if value is not None)
    return f"<AssumeRoleResponse><Credentials>{inner}</Credentials></AssumeRoleResponse>"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff\xfe\x00",
        "<html><body>Welcome</body></html>",
        credentials()[:-5],
        *(credentials(**{name: None}) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")),
        *(credentials(**{name: ""}) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")),
        credentials(Expiration="soon"),
        credentials(Expiration="2026-11-22T18:00:00"),
        b"<a>" + credentials().encode() + b"x" * (2 << 20),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_answer_without_credentials_is_refused_without_showing_them(make_endpoint, assume, body):
    with pytest.raises(PlatformReplyError, match="no credentials in it") as caught:
        assume(make_endpoint((200, body)).url)
    assert_no_secret(caught.value)


def test_answer_that_blows_up_when_parsed_is_refused(make_endpoint, assume):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol" * 10}">' for n in range(12))
    body = f"<!DOCTYPE a [{entities}]><a><AccessKeyId>&e11;</AccessKeyId></a>"
    with pytest.raises(PlatformReplyError, match="no credentials in it"):
        assume(make_endpoint((200, body)).url)


def test_answer_that_names_a_file_does_not_get_it(make_endpoint, assume, tmp_path):
    (tmp_path / "file").write_text("ASIAFROMFILE")
    body = f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{tmp_path}/file">]>' + credentials(AccessKeyId="&e;")
    with pytest.raises(PlatformReplyError):
        assume(make_endpoint((200, body)).url)


def test_huge_error_is_one_line_at_most(make_endpoint, refused, assume):
    with pytest.raises(ClouduploaderError) as caught:
        assume(make_endpoint(refused("Odd", "x" * (2 << 20), 400)).url)
    assert len(caught.value.message) < 2000


@pytest.mark.parametrize(
    ("region", "environment", "url"),
    [
        ("eu-west-1", {}, "https://sts.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", {}, "https://sts.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", {}, "https://sts.cn-north-1.amazonaws.com.cn"),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "http://a"}, "http://a"),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_STS": "http://b"}, "http://b"),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_STS": ""}, "https://sts.eu-west-1.amazonaws.com"),
    ],
)
def test_endpoint_is_that_of_the_region_unless_one_is_given(region, environment, url):
    assert sts.endpoint_url(region, environment) == url


@pytest.mark.parametrize("region", ["eu-west-1", "ap-southeast-4", "us-gov-east-1", "cn-northwest-1"])
def test_endpoint_is_the_one_that_the_sdk_would_ask(region):
    import boto3

    client = boto3.Session().client("sts", region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    assert sts.endpoint_url(region, {}) == client.meta.endpoint_url
