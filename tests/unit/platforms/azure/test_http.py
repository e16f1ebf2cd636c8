import http.server
import threading

import pytest

from clouduploader.errors import NetworkError
from clouduploader.platforms.azure import http as azure_http


@pytest.fixture
def proxy(monkeypatch):
    """The requests that a proxy gets, which takes none."""
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
    monkeypatch.setenv("https_proxy", f"http://us%40er:word@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


def request(url):
    return azure_http.HttpClient({}, 1).request("GET", url, subject="it", headers={})


def test_proxy_is_asked_with_its_login(proxy):
    with pytest.raises(NetworkError, match="it: the connection failed"):
        request("https://management.azure.invalid/x?sig=secret")
    assert proxy == [("management.azure.invalid:443", "Basic dXNAZXI6d29yZA==")]


def test_proxy_is_left_out_where_it_is_to_be(proxy):
    with pytest.raises(NetworkError):
        request("https://127.0.0.1:1/x?sig=secret")
    assert proxy == []


def test_failure_does_not_tell_the_address():
    with pytest.raises(NetworkError) as caught:
        request("https://127.0.0.1:1/x?sig=secret")
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"


def test_server_that_is_not_trusted_is_said(cloud):
    with pytest.raises(NetworkError, match="the certificate is not trusted"):
        request(cloud.url)


@pytest.mark.parametrize(
    ("url", "found"), [("https://a/b", "https://a/b?c=d+e"), ("https://a/b?x=y", "https://a/b?x=y&c=d+e")]
)
def test_parameters_are_added(url, found):
    assert azure_http.encoded(url, {"c": "d e"}) == found
    assert azure_http.encoded(url, {}) == url
