import socket
import ssl

import pytest
from fakes.scripted_server import ok
from samples.server_job import JOB, XML

from clouduploader import client as client_module
from clouduploader.client.endpoint import ServerEndpoint
from clouduploader.errors import (
    NetworkError,
    PlatformReplyError,
    UnavailableError,
    UsageError,
)
from clouduploader.util import http1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://obs", "http://obs"),
        ("http://obs.example.org:5452/", "http://obs.example.org:5452"),
        ("https://[::1]:443/behind/a/proxy/", "https://[::1]:443/behind/a/proxy"),
    ],
)
def test_url_of_a_server_is_taken(url, shown):
    assert client_module.JobServer(url).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "", "obs", "obs:5452", "ftp://obs", "http://", "http://:5452", "http://obs:port", "http://obs:99999",
        "http://a b",
        "http://obs/?a=b", "http://obs/#a", "http://obs/a b", "http://obs/\xe4", "http://\xe4", "http://[::1", "http://a..b",
        "http://" + "a" * 64, "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_a_wrong_argument(url):
    with pytest.raises(UsageError):
        client_module.JobServer(url)


def test_password_in_a_url_is_refused_and_not_shown():
    with pytest.raises(UsageError) as caught:
        client_module.JobServer("http://tom:s3cret@obs")
    assert "s3cret" not in str(caught.value)


BORDER = [
    (http1.MalformedResponseError("x"), PlatformReplyError),
    (http1.OversizedResponseError("x"), PlatformReplyError),
    (http1.TruncatedResponseError("x"), NetworkError),
    *[
        (kind(1, "x"), NetworkError)
        for kind in (OSError, ConnectionError, BrokenPipeError, ConnectionResetError, ConnectionRefusedError)
    ],
    *[
        (kind(1, "x"), NetworkError)
        for kind in (ssl.SSLError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError)
    ],
    (TimeoutError("x"), NetworkError),
    (socket.herror(1, "x"), NetworkError),
    (socket.gaierror(socket.EAI_AGAIN, "x"), NetworkError),
    (socket.gaierror(socket.EAI_NONAME, "x"), UnavailableError),
]


@pytest.mark.parametrize(("error", "kind"), BORDER, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_whatever_http_and_sockets_raise_is_an_error_of_ours(error, kind):
    with pytest.raises(kind) as caught, ServerEndpoint("http://obs.example.org:5452").errors():
        raise error
    assert type(caught.value) is kind
    assert "http://obs.example.org:5452" in caught.value.message
    assert "\n" not in caught.value.message


def test_server_that_is_not_there_is_worth_another_try(make_server):
    server = make_server()
    server.close()
    with pytest.raises(NetworkError, match="Connection refused"):
        client_module.JobServer(server.url).read("7")


def test_certificate_must_be_trusted(make_server, tls, monkeypatch):
    context, ca_path = tls
    server = make_server(ok(XML), context=context)
    with pytest.raises(UnavailableError, match="is not to be trusted: ") as caught:
        client_module.JobServer(server.url).read("7")
    assert "SSL_CERT_FILE" in caught.value.hint

    monkeypatch.setenv("SSL_CERT_FILE", str(ca_path))
    assert client_module.JobServer(server.url).read("7") == JOB
    assert len(server.requests) == 1
