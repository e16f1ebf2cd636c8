import datetime
import socket
import ssl

import pytest
from fakes.authority import Authority
from fakes.scripted_server import answer, ok
from samples.server_job import JOB, XML

from clouduploader import client as client_module
from clouduploader.client.endpoint import ServerEndpoint
from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    DeniedError,
    NetworkError,
    PlatformReplyError,
    UnavailableError,
    UsageError,
)
from clouduploader.util import http1
from clouduploader.util.certificates import ClientTls


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


def test_certificate_of_an_authority_that_is_named_is_trusted(make_server, authority, monkeypatch):
    server = make_server(ok(XML), context=authority.server_context())
    assert client_module.JobServer(server.url, tls=ClientTls(ca=authority.path)).read("7") == JOB
    server = make_server(ok(XML), context=authority.server_context())
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))  # as OpenSSL has it
    assert client_module.JobServer(server.url).read("7") == JOB


@pytest.mark.parametrize(
    ("issued", "message"),
    [({"age": datetime.timedelta(days=3)}, "has expired"), ({"age": -datetime.timedelta(days=3)}, "is not valid yet"),
     ({"host": "127.0.0.2"}, "is for another host"), ({"host": "obs.example.org"}, "is for another host")],
)  # fmt: skip
def test_certificate_that_is_not_good_is_told_why(make_server, authority, issued, message):
    server = make_server(ok(XML), context=authority.server_context(**issued))
    with pytest.raises(UnavailableError) as caught:
        client_module.JobServer(server.url, "token", tls=ClientTls(ca=authority.path)).read("7")
    assert caught.value.message == f"the certificate of {server.url} {message}"
    assert caught.value.hint
    assert server.requests == []


def test_certificate_of_an_unknown_authority_is_not_trusted(make_server, authority, tmp_path):
    for ca_path in (None, Authority(tmp_path / "other").path):
        server = make_server(ok(XML), context=authority.server_context())
        with pytest.raises(UnavailableError, match="is of an authority that is not known here") as caught:
            client_module.JobServer(server.url, "token", tls=ClientTls(ca=ca_path)).read("7")
        assert "--ca" in caught.value.hint
        assert server.requests == []


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_file_of_authorities_that_has_none_is_an_error_of_the_settings(make_server, authority, tmp_path, text):
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    message = "can't be read: No such file" if text is None else "no certificates in PEM"
    server = make_server(ok(XML), context=authority.server_context())
    with pytest.raises(ConfigError, match=message):
        client_module.JobServer(server.url, tls=ClientTls(ca=path)).read("7")


def test_certificate_is_shown_to_a_server_that_asks_for_one(make_server, authority, tmp_path):
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    pair = ours.issue("client")
    (tmp_path / "key.pem").write_bytes(pair.read_bytes())
    (tmp_path / "key.pem").chmod(0o600)

    def read(**files):
        context = authority.server_context()
        context.load_verify_locations(ours.path)
        context.verify_mode = ssl.CERT_REQUIRED
        return client_module.JobServer(
            make_server(ok(XML), context=context).url, tls=ClientTls(ca=authority.path, **files)
        ).read("7")

    assert read(cert=pair) == JOB
    assert read(cert=pair, key=tmp_path / "key.pem") == JOB
    with pytest.raises(DeniedError, match="asks for a certificate of its client") as caught:
        read()
    assert "--cert" in caught.value.hint
    foreign = others.issue("client")
    with pytest.raises(DeniedError, match=f"does not accept the certificate {foreign}"):
        read(cert=foreign)
    with pytest.raises(ConfigError, match="don't belong together"):
        read(cert=pair, key=foreign)


def test_server_without_tls_is_told(serve, make_spool):
    host, port = serve(make_spool()).address
    with pytest.raises(UnavailableError, match=f"https://{host}:{port} speaks no TLS") as caught:
        client_module.JobServer(f"https://{host}:{port}").read("7")
    assert "by http" in caught.value.hint


def test_server_with_tls_alone_is_told(serve, make_spool, authority):
    pair = str(authority.issue())
    host, port = serve(make_spool(), tls_cert=pair, tls_key=pair).address
    with pytest.raises(ClouduploaderError, match=f"http://{host}:{port} ") as caught:
        client_module.JobServer(f"http://{host}:{port}").read("7")
    assert caught.value.hint == "If it speaks TLS, give a URL with https."


def test_proxy_with_tls_alone_is_told(make_server):
    page = b"<center>The plain HTTP request was sent to HTTPS port</center>"  # nginx 1.22
    server = make_server(answer("400 Bad Request", page, "Content-Type: text/html"))
    with pytest.raises(UnavailableError, match="speaks TLS alone"):
        client_module.JobServer(server.url).read("7")
