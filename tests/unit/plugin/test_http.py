import contextlib
import http.server
import socket
import subprocess
import threading

import pytest
from fakes.authority import make_authority
from fakes.scripted_server import ScriptedServer, answer, chunked, ok

from clouduploader.errors import ConfigError, NetworkError, PlatformReplyError
from clouduploader.plugin import http as plugin_http


@pytest.fixture
def proxy():
    """The requests that a proxy gets, which takes none, and the environment that leads to it."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self):
            seen.append((self.path, self.headers.get("Proxy-Authorization")))
            self.send_error(502)

        def log_message(self, *_words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"us%40er:word@127.0.0.1:{server.server_port}"
    yield seen, {"HTTPS_PROXY": address, "no_proxy": "a.b, 127.0.0.1, .localhost"}
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def serve():
    """Return a function that starts a scripted server."""
    with contextlib.ExitStack() as stack:
        yield lambda *answers, **options: stack.enter_context(contextlib.closing(ScriptedServer(answers, **options)))


def request(url, method="GET", *, environment=(), headers=(), data=None):
    client = plugin_http.HttpClient(dict(environment), 1)
    return client.request(method, url, subject="it", headers=dict(headers), data=data)


def test_proxy_is_asked_with_its_login(proxy):
    seen, environment = proxy
    with pytest.raises(NetworkError, match="it: the connection failed: the proxy says 502"):
        request("https://management.azure.invalid/x?sig=secret", environment=environment)
    assert seen == [("management.azure.invalid:443", "Basic dXNAZXI6d29yZA==")]


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/", "https://localhost:1/"])
def test_proxy_is_left_out_where_it_is_to_be(proxy, url):
    seen, environment = proxy
    with pytest.raises(NetworkError):
        request(url, environment=environment)
    assert seen == []


def test_server_behind_a_proxy_is_asked(serve):
    plain = serve(ok(b"x"))
    assert request("http://cloud.invalid:1/a?b", environment={"http_proxy": plain.url}).data == b"x"
    assert [seen.line for seen in plain.requests] == ["GET http://cloud.invalid:1/a?b"]


@pytest.mark.parametrize(
    "proxy",
    [
        "https://u:secret@proxy.invalid",
        "socks5://proxy.invalid",
        "u:secret@proxy.invalid:x",
        "http://proxy.invalid:65536",
        "http://proxy.invalid:0",
        "http://",
        "http://a..b:3128",
        "http://[::1:3128",
    ],
)
def test_what_is_no_proxy_is_told_at_once_without_its_password(proxy):
    with pytest.raises(ConfigError, match=r"^https_proxy is no URL of a proxy$"):
        request("https://cloud.invalid/", environment={"https_proxy": proxy})


def test_failure_does_not_tell_the_address():
    with pytest.raises(NetworkError) as caught:
        request("https://127.0.0.1:1/x?sig=secret")
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"


def test_server_that_is_not_trusted_is_said(serve, tmp_path):
    context, ca = make_authority(tmp_path / "ca")
    url = serve(ok(b"x"), ok(b"x"), context=context).url
    with pytest.raises(NetworkError, match="the certificate is not trusted"):
        request(url)
    assert request(url, environment={"REQUESTS_CA_BUNDLE": str(ca)}).data == b"x"


def test_authorities_that_can_not_be_read_are_told(tmp_path):
    (tmp_path / "none.pem").write_text("nonsense")
    for name, words in (("none.pem", "it holds no certificates"), ("missing.pem", "No such file or directory")):
        with pytest.raises(ConfigError, match=rf"^REQUESTS_CA_BUNDLE is {tmp_path / name}: {words}$"):
            request("https://127.0.0.1:1/", environment={"REQUESTS_CA_BUNDLE": str(tmp_path / name)})


def test_authorities_may_be_a_directory(serve, tmp_path):
    context, ca = make_authority(tmp_path / "ca")
    subprocess.run(["openssl", "rehash", tmp_path / "ca"], check=True, capture_output=True)
    url = serve(ok(b"x"), context=context).url
    assert request(url, environment={"REQUESTS_CA_BUNDLE": str(ca.parent)}).data == b"x"


def test_certificates_of_a_directory_are_trusted_where_it_has_all(monkeypatch, tmp_path):
    file, directory = tmp_path / "all.pem", tmp_path / "certs"
    directory.mkdir()
    paths = plugin_http.ssl.get_default_verify_paths()
    paths = paths._replace(cafile=str(file), openssl_cafile=str(file), capath=str(directory))
    monkeypatch.setattr(plugin_http.ssl, "get_default_verify_paths", lambda: paths)
    (directory / "0123abcd.0").touch()
    file.write_text("-----BEGIN CERTIFICATE-----\n" * 2)
    assert plugin_http._trusting(None).cert_store_stats()["x509_ca"] > 1  # the directory lacks some
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    assert plugin_http._trusting(None).cert_store_stats()["x509_ca"] == 0  # none was read yet


def test_file_of_certificates_that_openssl_is_told_is_trusted(serve, monkeypatch, tmp_path):
    context, ca = make_authority(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    assert request(serve(ok(b"x"), context=context).url).data == b"x"


@pytest.mark.parametrize("is_chunked", [True, False])
def test_answer_without_a_limit_is_refused(serve, monkeypatch, is_chunked):
    monkeypatch.setattr(plugin_http, "MAX_ANSWER_BYTES", 1000)
    made = chunked if is_chunked else lambda body: ok(body)
    assert request(serve(made(bytes(1000))).url).data == bytes(1000)
    with pytest.raises(PlatformReplyError, match=r"^it: the answer has more than 1000 bytes$"):
        request(serve(made(bytes(1001))).url)


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"SSH-2.0\r\n", chunked(b"x", is_whole=False)]
)
def test_half_an_answer_and_none_may_pass(serve, reply):
    with pytest.raises(NetworkError, match=r"^it: the answer can't be read: "):
        request(serve(reply).url)


def test_request_is_sent_whole_with_its_length(serve):
    server = serve(ok(b"{}", "X-Id: 7"))
    found = request(f"{server.url}/a b?c=d", "PUT", headers={"X-Ours": "1"}, data=bytes(1 << 20))
    assert (found.status, found.header("x-iD"), found.header("none")) == (200, "7", "")
    (seen,) = server.requests
    assert (seen.line, seen.body) == ("PUT /a%20b?c=d", bytes(1 << 20))
    assert seen.headers["Host"] == server.url.partition("//")[2]
    assert seen.headers["X-Ours"] == "1"


def test_answer_to_a_head_has_no_body(serve):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"
    found = request(serve(head).url, "HEAD")
    assert (found.header("Content-Length"), found.data) == ("1048576", b"")


def test_answer_before_the_end_of_the_request_is_read(serve):
    def refuse(connection, _reader):
        connection.sendall(answer("413 Too Large", b"no"))

    server = serve(refuse)
    data = bytes(1 << 20)
    assert request(server.url, "PUT", headers={"Expect": ""}, data=data).status == 413


def test_answer_before_the_end_of_the_request_is_read_by_tls_too(serve, tmp_path):
    def refuse(connection, _reader):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what waits is lost by the reset below
        connection.sendall(answer("413 Too Large", b"no"))

    context, ca = make_authority(tmp_path / "ca")
    server = serve(refuse, context=context)
    data = bytes(16 << 20)  # more than the kernel takes
    found = request(server.url, "PUT", environment={"REQUESTS_CA_BUNDLE": str(ca)}, headers={"Expect": ""}, data=data)
    assert (found.status, found.data) == (413, b"no")


def test_connection_is_used_again_unless_it_was_closed():
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            seen.append(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.close_connection = self.path == "/last"

        def log_message(self, *_words):
            pass

    seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = plugin_http.HttpClient({}, 1)
    for path in ("/", "/", "/last", "/"):
        client.request("GET", f"http://127.0.0.1:{server.server_port}{path}", subject="it", headers={})
        if path == "/last":
            (sock,) = (one for several in client._idle.values() for one in several)
            assert sock.recv(1) == b""  # wait for its end
    server.shutdown()
    del client
    server.server_close()
    thread.join()
    assert seen[0] == seen[1] == seen[2] != seen[3]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://a/b", {}),
        ("https:///b", {}),
        ("http://a:x/", {}),
        ("http://127.0.0.1:1/", {"Authorization": "a\r\nb: c"}),
    ],
)
def test_request_that_can_not_be_made_is_told(url, headers):
    with pytest.raises(PlatformReplyError, match=r"^it: no request can be made"):
        request(url, headers=headers)


@pytest.mark.parametrize(
    ("url", "found"), [("https://a/b", "https://a/b?c=d+e"), ("https://a/b?x=y", "https://a/b?x=y&c=d+e")]
)
def test_parameters_are_added(url, found):
    assert plugin_http.encoded(url, {"c": "d e"}) == found
    assert plugin_http.encoded(url, {}) == url
