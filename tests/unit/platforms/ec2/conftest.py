"""A reporter that keeps what it is told, a server that plays an endpoint of AWS, and moto."""

import contextlib
import socket

import botocore.session
import pytest
from fakes.aws_endpoint import ERROR_XML, Endpoint, granting

from clouduploader.platforms.ec2 import boto
from clouduploader.plugin.testing.fakes import RecordingReporter

REGION = "eu-west-1"


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
    return granting()


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
