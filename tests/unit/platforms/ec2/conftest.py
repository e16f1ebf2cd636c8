"""A reporter that keeps what it is told, a server that plays an endpoint of AWS, and moto."""

import contextlib
import dataclasses
import http.server
import socket
import threading
import urllib.parse

import botocore.session
import pytest

from clouduploader.platforms.ec2 import boto
from clouduploader.plugin.testing.fakes import RecordingReporter

REGION = "eu-west-1"
ACCOUNT_XML = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><AssumedRoleId>AROA:obs</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>2026-11-22T18:00:00Z</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></AssumeRoleResponse>"""
ERROR_XML = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error><RequestId>id-2</RequestId></ErrorResponse>"""


@dataclasses.dataclass
class Request:
    """What somebody sent."""

    path: str
    headers: dict
    body: bytes

    @property
    def form(self):
        """The parameters of an API call."""
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


class Endpoint:
    """A server on loopback. Gives the answers in turn, the last one again and again.

    An answer is a status and a body, and perhaps headers; None hangs up without a word.
    """

    def __init__(self, answers):
        self.requests = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                endpoint.requests.append(Request(self.path, dict(self.headers.items()), body))
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is None:
                    self.close_connection = True
                    return
                status, text, *rest = answer
                content = text if isinstance(text, bytes) else text.encode()
                headers = {"Date": self.date_time_string(), "Content-Length": len(content)} | (rest[0] if rest else {})
                self.send_response_only(status)
                for name, value in headers.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # a client that has read enough
                    self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def record():
    """A reporter that keeps what it is told."""
    return RecordingReporter()


@pytest.fixture
def make_endpoint():
    """A factory of a server that plays an endpoint, see Endpoint."""
    with contextlib.ExitStack() as stack:

        def make(*answers):
            endpoint = Endpoint(list(answers))
            stack.callback(endpoint.close)
            return endpoint

        yield make


@pytest.fixture
def hasty_sdk(monkeypatch):
    """Takes the pauses out between the SDK's tries, and our own."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    monkeypatch.setattr(boto, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def unknown_hosts(monkeypatch):
    """No name of a host is known."""

    def fail(host, *_rest, **_more):
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.fixture
def granted():
    """An answer of STS that grants credentials."""
    return 200, ACCOUNT_XML.format(secret="SECRET/of+role", token="TOKEN/of+role=")


@pytest.fixture
def refused():
    """A factory of an answer of STS that refuses."""

    def make(code, message="No.", status=400, **headers):
        return status, ERROR_XML.format(code=code, message=message), headers

    return make


@pytest.fixture(scope="session")
def sdk_session():
    """A session of the SDK, for tests that set nothing in it: to make one takes longer than a client."""
    return botocore.session.Session()


@pytest.fixture
def ec2(monkeypatch):
    """A client of an account of moto's, in this process, that is empty but for what AWS puts there."""
    import boto3  # these take a second
    import moto

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    with moto.mock_aws():
        yield boto3.client("ec2", region_name=REGION)
