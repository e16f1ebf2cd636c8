"""The border to the SDK: what it decides is left to it, and nothing that it raises gets through as it is."""

import contextlib
import functools
import inspect
import itertools
import re
import socket
import ssl
import threading
import traceback
import types

import botocore.awsrequest
import botocore.exceptions
import botocore.httpsession
import botocore.session
import pytest
from fakes.authority import make_authority

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    NetworkError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.platforms.ec2 import boto, exchange
from clouduploader.platforms.ec2.sigv4 import AccessKeys

KEYS = AccessKeys("AKIAEXAMPLE", "sesame", "open")
START = {"VolumeSize": 1, "ClientToken": "4711"}


@pytest.fixture
def make_client(record):
    """A factory of a client; all clients of a test are of one session, which takes longer to make than they do."""
    make_session = functools.cache(botocore.session.Session)  # once the environment is as the test wants it

    def make(service="ebs", region="eu-west-1", **options):
        return boto.client(service, region=region, keys=KEYS, session=make_session(), reporter=record, **options)

    return make


@functools.cache
def all_regions():
    """Each region of each partition that the SDK knows, and one of each that it does not know yet."""
    session = botocore.session.Session()
    partitions = session.get_component("data_loader").load_data("endpoints")["partitions"]
    known = sorted({name for partition in partitions for name in partition["regions"]})
    patterns = [partition["regionRegex"] for partition in partitions]
    new = {re.sub("[0-9]+$", "97", name) for name in known}
    assert all(any(re.fullmatch(pattern, name) for pattern in patterns) for name in new)
    assert {"us-east-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1"} <= set(known)
    return [*known, *sorted(new)]


def used(client):
    """The URL and the region of the signature of what the SDK sends, or the error with which it refuses to."""
    sent = []

    def keep(request, **_rest):
        sent.append(request)
        return botocore.awsrequest.AWSResponse(
            request.url, 400, {"x-amzn-ErrorType": "Odd"}, types.SimpleNamespace(stream=lambda: [b"{}"])
        )

    client.meta.events.register("before-send", keep)
    with pytest.raises(botocore.exceptions.ClientError):
        client.list_snapshot_blocks(SnapshotId="snap-0123456789abcdef0")
    scope = re.search("Credential=[^/]+/[0-9]+/([^/]+)/ebs/", str(sent[0].headers["Authorization"]))
    return sent[0].url, scope[1]


@pytest.mark.parametrize("variant", ["", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "both"])
def test_blocks_go_where_the_sdk_sends_its_own_requests(make_client, monkeypatch, variant):
    for name in ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"):
        if variant in (name, "both"):
            monkeypatch.setenv(name, "true")
    refused = []
    for region in all_regions():
        try:
            client = make_client(region=region)
            route = boto.route(client)
        except ConfigError:  # a partition without such endpoints
            refused.append(region)
            continue
        url, signed_for = used(client)
        assert url.startswith(f"{route.place.url}/snapshots/"), region
        assert route.region == signed_for
    assert len(refused) < len(all_regions()) / 2 if variant else not refused


def test_endpoint_that_somebody_named_is_that_of_the_blocks(make_client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", "http://127.0.0.1:9/ebs")
    client = make_client()
    route = boto.route(client)
    assert (route.place.authority, route.place.prefix) == ("127.0.0.1:9", "/ebs")
    assert used(client)[0].startswith("http://127.0.0.1:9/ebs/snapshots/")


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://ebs.example", {}, None),
        ("https://ebs.example", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://ebs.example", {"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ("https://ebs.example", {"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://ebs.example", {"https_proxy": "", "HTTPS_PROXY": "http://proxy:3128"}, None),
        ("https://ebs.example", {"HTTP_PROXY": "http://proxy:3128"}, None),
        ("http://ebs.example", {"HTTP_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://ebs.example", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,.example"}, None),
        ("https://ebs.example", {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "*"}, None),
        ("https://ebs.example:8443", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "ebs.example:8443"}, None),
        ("https://ebs.example", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other"}, "http://proxy:3128"),
        ("https://ebs.example", {"ALL_PROXY": "http://proxy:3128"}, None),
    ],
)
def test_proxy_is_that_of_the_sdk(make_client, monkeypatch, url, environment, expected):
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", url)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert boto.route(make_client()).proxy == expected


class Silence:
    """A server that makes TLS connections, and hangs up on each."""

    def __init__(self, context):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                self._context.wrap_socket(sock, server_side=True).close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """The certificates of a CA that has vouched for a server on loopback, of another one, and the server."""
    root = tmp_path_factory.mktemp("pki")
    context, ours = make_authority(root / "ours")
    _context, other = make_authority(root / "other")
    server = Silence(context)
    empty, no_pem = root / "empty.pem", root / "no.pem"
    empty.write_bytes(b"")
    no_pem.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    files = {"ours": ours, "other": other, "missing": root / "none.pem", "empty": empty, "no_pem": no_pem}
    yield {name: str(path) for name, path in files.items()}, server
    server.close()


WAYS = ("AWS_CA_BUNDLE", "ca_bundle", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "certifi")


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize(
    "files",
    [
        *itertools.product((None, "ours", "other"), repeat=3),
        ("missing", None, None),
        (None, "missing", None),
        (None, None, "missing"),
        ("empty", None, None),
        (None, None, "no_pem"),
        (None, None, None, "ours"),
        (None, None, None, None, "ours"),
        (None, None, None, "ours", "other"),
        (None, None, "other", None, "ours"),
    ],
    ids=lambda files: "+".join(f"{way}={file}" for way, file in zip(WAYS, files, strict=False) if file) or "none",
)
def test_blocks_believe_whom_the_sdk_believes(make_client, authorities, monkeypatch, tmp_path, files):
    paths, server = authorities
    named = {way: paths[file] for way, file in zip(WAYS, files, strict=False) if file}
    if "ca_bundle" in named:
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {named.pop('ca_bundle')}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if "certifi" in named:
        monkeypatch.setattr(botocore.httpsession, "where", functools.partial(str, named.pop("certifi")))
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", server.url)
    client = make_client()
    with pytest.raises(ClouduploaderError) as caught, boto.translated("a test"):
        client.start_snapshot(**START)
    is_believed = isinstance(caught.value, NetworkError)  # for the server hung up
    assert is_believed or isinstance(caught.value, ConfigError)
    route = boto.route(client)
    if not is_believed:
        with pytest.raises((ConfigError, ssl.SSLCertVerificationError)):
            shake_hands(route)
    else:
        shake_hands(route)


def shake_hands(route):
    context = route.tls_context()
    with socket.create_connection((route.place.host, route.place.port)) as plain:
        context.wrap_socket(plain, server_hostname=route.place.host).close()


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_empty_name_of_authorities_does_not_mean_to_believe_anybody(make_client, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    try:
        route = boto.route(make_client())
        context = route.tls_context()
    except ConfigError:
        return
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert route.authorities


@pytest.mark.usefixtures("hasty_sdk", "unknown_hosts")
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("AWS_ENDPOINT_URL_EC2", "https://tom:sesame@127.0.0.1:9"),
        ("AWS_ENDPOINT_URL_EC2", "httpx://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://tom:sesame@127.0.0.1:99999"),
        ("HTTPS_PROXY", "http://tom:sesame@[::1"),
        *[("HTTPS_PROXY", f"{scheme}://tom:sesame@127.0.0.1:9") for scheme in ("socks4a", "socks5", "socks5h", "ftp")],
    ],
)
def test_url_that_can_not_be_used_is_a_setting_and_shows_no_password(make_client, monkeypatch, name, url):
    monkeypatch.setenv(name, url)
    with pytest.raises(ConfigError) as caught, boto.translated("a test"):
        make_client("ec2").describe_regions()
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_words_of_a_library_show_no_password_of_a_url():
    said = boto.words(ValueError("no proxy at http://tom:sesame@127.0.0.1:9/x, nor https://a@b"))
    assert said == "ValueError: no proxy at http://***@127.0.0.1:9/x, nor https://***@b"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::1"])
def test_endpoint_that_is_none_is_a_setting(make_client, monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", url)
    with pytest.raises(ConfigError):
        boto.route(make_client())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_DEFAULTS_MODE", "odd"),
        ("AWS_PROFILE", "nobody"),
        ("AWS_ENDPOINT_URL", "127.0.0.1"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "odd"),
        ("AWS_CONFIG_FILE", "broken"),
    ],
)
def test_setting_that_the_sdk_refuses_is_told_as_one(make_client, monkeypatch, tmp_path, name, value):
    if value == "broken":
        (tmp_path / "broken").write_text("[default\nx = y\n")
        value = str(tmp_path / "broken")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="the settings of AWS's SDK can't be used: "):
        make_client("sts")


TRANSLATIONS = {
    CredentialsError: {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"},
    NetworkError: {
        "HTTPClientError",
        "ConnectionError",
        "EndpointConnectionError",
        "SSLError",
        "ConnectionClosedError",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "ProxyConnectionError",
    },
    TransientError: {
        "PaginationError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ChecksumError",
        "FlexibleChecksumError",
        "MalformedAnswerError",
        "UnreadableAnswerError",
    },
    ConfigError: {
        "ProfileNotFound",
        "ConfigParseError",
        "ConfigNotFound",
        "InvalidConfigError",
        "InfiniteLoopConfigError",
        "InvalidDefaultsMode",
        "InvalidEndpointConfigurationError",
        "InvalidIMDSEndpointError",
        "InvalidIMDSEndpointModeError",
        "InvalidProxiesConfigError",
        "InvalidRegionError",
        "InvalidRetryConfigurationError",
        "InvalidMaxRetryAttemptsError",
        "InvalidRetryModeError",
        "BaseEndpointResolverError",
        "NoRegionError",
        "EndpointVariantError",
        "UnknownEndpointError",
        "UnknownFIPSEndpointError",
        "EndpointProviderError",
        "EndpointResolutionError",
        "UnknownEndpointResolutionBuiltInName",
        "UnknownRegionError",
    },
}
"""What becomes of each kind; of all others, which are about what we ask for, a PlatformReplyError."""


def errors_of_the_sdk():
    classes = [member for _name, member in inspect.getmembers(botocore.exceptions, inspect.isclass)]
    ours = [exchange.MalformedAnswerError, boto.UnreadableAnswerError]
    return [one for one in [*classes, *ours] if issubclass(one, botocore.exceptions.BotoCoreError)]


@pytest.mark.parametrize("kind", errors_of_the_sdk(), ids=lambda kind: kind.__name__)
def test_each_error_of_the_sdk_becomes_one_of_ours(kind):
    names = set(re.findall(r"\{(\w+)", kind.fmt))
    more = {"last_response": {}} if kind is botocore.exceptions.WaiterError else {}
    expected = next((ours for ours, theirs in TRANSLATIONS.items() if kind.__name__ in theirs), PlatformReplyError)
    with pytest.raises(ClouduploaderError) as caught, boto.translated("snapshot snap-1"):
        raise kind(**{name: f"the {name}" for name in names}, **more)
    assert type(caught.value) is expected
    assert "\n" not in caught.value.message
    assert "SDK" not in caught.value.message or expected in (PlatformReplyError, ConfigError)


def test_table_of_translations_names_errors_that_there_are():
    known = {kind.__name__ for kind in errors_of_the_sdk()}
    assert set().union(*TRANSLATIONS.values()) <= known


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize(("region", "kind"), [("eu-wst-1", TargetDataError), ("eu-west-1", NetworkError)])
def test_region_that_nobody_knows_is_blamed_where_nobody_answers(make_client, monkeypatch, region, kind):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    client = make_client("ec2", region)
    with pytest.raises(kind) as caught, boto.translated("a test"):
        client.describe_images()
    assert ("Did you mean eu-west-1?" in (caught.value.hint or "")) == (kind is TargetDataError)


@pytest.mark.parametrize(("region", "kind"), [("eu-wst-1", TargetDataError), ("eu-west-1", CredentialsError)])
def test_region_that_nobody_knows_is_blamed_where_nobody_is_let_in(
    make_client, make_endpoint, refused, monkeypatch, region, kind
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", make_endpoint(refused("InvalidClientTokenId", status=403)).url)
    client = make_client("sts", region)
    with pytest.raises(kind), boto.translated("a test"):
        client.get_caller_identity()


def _refused(code, status=400, retries=0):
    metadata = {"HTTPStatusCode": status, "RetryAttempts": retries}
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": metadata}, "CreateSecurityGroup"
    )


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (_refused("InvalidGroup.Duplicate"), True),
        (_refused("UnauthorizedOperation", 403), True),
        (_refused("InvalidGroup.Duplicate", retries=1), False),
        (_refused("InternalError", 500), False),
        (_refused("502", 502), False),
        (_refused("RequestLimitExceeded", 503, retries=4), False),
        (botocore.exceptions.NoCredentialsError(), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://ec2.test"), False),
    ],
)
def test_only_a_refusal_of_a_request_that_was_sent_once_has_made_nothing(raised, expected):
    with pytest.raises(ClouduploaderError) as caught, boto.translated("a thing"):
        raise raised
    assert boto.has_made_nothing(caught.value) is expected
