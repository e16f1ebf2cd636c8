"""TLS by the server itself: its certificate, those of clients, and images that come by it."""

import contextlib
import datetime
import json
import os
import re
import shutil
import socket
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.authority import Authority
from fakes.running_server import PATIENCE_SECONDS
from fakes.waiting import wait_for

from clouduploader.errors import ConfigError
from clouduploader.model.job import Details, JobState
from clouduploader.server import housekeeping, replies, settings
from clouduploader.server.network import tls
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(housekeeping, "CERTIFICATE_SECONDS", 0.05)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "pki")


@pytest.fixture
def tls_server(serve, make_spool, authority):
    """A factory of a server with TLS, whose clients trust its authority."""

    def start(jobs=None, **section):
        pair = str(authority.issue("server"))
        server = serve(jobs or make_spool(), tls_cert=pair, tls_key=pair, **section)
        server.context = ssl.create_default_context(cafile=authority.path)
        return server

    return start


def serial(server):
    """The number of the certificate that a new connection gets."""
    with server.connect() as client:
        return client.getpeercert()["serialNumber"]


def settings_lines(server):
    return re.findall(r'event=settings text="(.*)"', server.log.getvalue())


def test_requests_are_answered_by_tls(tls_server):
    server = tls_server()
    status, headers, body = server.ask("GET", "/")
    assert (status, body) == ("200 OK", b'<hello name="Cloud Upload Server" />\n')
    assert headers == [  # as recorded of OBS, and one more
        "Content-Type: text/xml", "Cache-Control: no-cache", "Connection: close", f"Content-Length: {len(body)}",
        f"Strict-Transport-Security: {replies.TLS_ONLY}",
    ]  # fmt: skip
    with server.connect() as client:
        assert client.version() == "TLSv1.3"


def test_tls_1_2_is_spoken_with_forward_secrecy_and_nothing_older(tls_server):
    server = tls_server()
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with server.connect() as client:
        assert re.fullmatch(r"ECDHE-.*(GCM-SHA(256|384)|CHACHA20-POLY1305)", client.cipher()[0])
    server.context.set_ciphers("AES256-GCM-SHA384")  # without forward secrecy
    with pytest.raises(ssl.SSLError), server.connect():
        pass
    context = tls.create_context(server.source.current)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_image_comes_whole_by_tls(tls_server, make_spool, size, is_chunked):
    jobs, data = make_spool(), os.urandom(size)
    server = tls_server(jobs)
    name = server.create(size=size)
    if is_chunked:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (data[:1000], data[1000:]) if piece)
        answer = server.ask("PUT", f"/cloudupload/{name}", chunks + b"0\r\n\r\n", Transfer_Encoding="chunked")
    else:
        answer = server.ask("PUT", f"/cloudupload/{name}", data)
    assert answer[0] == "200 OK"
    assert jobs.file_path(name).read_bytes() == data
    assert jobs.read(name)[0].state is JobState.SCHEDULED


def test_image_in_pieces_comes_by_tls(tls_server, make_spool):
    jobs, data = make_spool(), os.urandom(1_000_000)
    server = tls_server(jobs)
    tus = {"Tus_Resumable": "1.0.0", "Content_Type": "application/offset+octet-stream"}
    image = json.loads(server.ask("POST", "/api/v1/images", b"", Upload_Length="1000000", **tus)[2])["id"]
    for start, end in ((0, 400_000), (400_000, 1_000_000)):
        answer = server.ask("PATCH", f"/api/v1/images/{image}", data[start:end], Upload_Offset=str(start), **tus)
        assert answer[0] == "204 No Content"
    assert (ImageStore(jobs.directory).directory / image).read_bytes() == data


def test_image_that_is_waited_for_with_100_continue_comes_by_tls(tls_server, make_spool):
    jobs = make_spool()
    server = tls_server(jobs)
    name = server.create(size=3)
    head = f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as client:
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"abc")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert jobs.file_path(name).read_bytes() == b"abc"


def test_image_that_is_cut_off_in_tls_fails_its_job(tls_server, make_spool):
    jobs = make_spool()
    server = tls_server(jobs)
    name = server.create(size=10)
    with server.connect() as client:
        client.sendall(f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
        wait_for(lambda: jobs.read(name)[0].state is JobState.RECEIVING)
    wait_for(lambda: jobs.read(name)[0].state is JobState.FAILED)
    assert jobs.read(name)[0].details == Details.CUT_OFF


def test_image_that_is_not_wanted_any_more_is_refused_in_tls_too(tls_server, make_spool):
    """Without a further byte of it."""
    jobs = make_spool()
    server = tls_server(jobs)
    name = server.create(size=10)
    with server.connect() as client:
        client.sendall(f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
        wait_for(lambda: jobs.read(name)[0].state is JobState.RECEIVING)
        assert server.ask("POST", f"/cloudupload/{name}?cmd=kill")[0] == "200 OK"
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_image_in_many_chunks_comes_by_tls_if_they_are_none_too_small(tls_server, make_spool):
    jobs = make_spool()
    server = tls_server(jobs)
    name = server.create(size=64 * 100_000)
    chunks = (b"40\r\n" + b"x" * 64 + b"\r\n") * 100_000 + b"0\r\n\r\n"
    assert server.ask("PUT", f"/cloudupload/{name}", chunks, Transfer_Encoding="chunked")[0] == "200 OK"
    assert jobs.file_path(name).stat().st_size == 64 * 100_000
    name = server.create(size=1_000_000)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        server.ask("PUT", f"/cloudupload/{name}", b"1\r\nx\r\n" * 1_000_000, Transfer_Encoding="chunked")
    wait_for(lambda: jobs.read(name)[0].state is JobState.FAILED)
    assert "the chunks of its body hold a few bytes each" in server.log.getvalue()


def test_log_is_followed_by_tls(tls_server, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, log=b"x" * 3_000_000)
    assert tls_server(jobs).ask("GET", "/cloudupload/1/_log")[2] == b"x" * 3_000_000


# --- what is no TLS


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_what_is_no_tls_gets_no_answer_and_does_no_harm(tls_server, data):
    server = tls_server()
    for _ in range(3):
        with socket.create_connection(server.address, PATIENCE_SECONDS) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert not b"".join(iter(lambda client=client: client.recv(1000), b"")).startswith(b"HTTP")
    assert server.ask("GET", "/")[0] == "200 OK"
    wait_for(lambda: server.log.getvalue().count("no connection with 127.0.0.1: ") == 3)
    assert "Traceback" not in server.log.getvalue()


def test_client_that_begins_no_tls_gives_way_to_others(tls_server, monkeypatch):
    monkeypatch.setattr("clouduploader.server.network.connections.MAX_IDLE", 2)
    server = tls_server()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(server.address, PATIENCE_SECONDS)) for _ in range(4)]
        assert silent[0].recv(1) == b""
        assert silent[1].recv(1) == b""
        assert server.ask("GET", "/")[0] == "200 OK"


def test_client_of_no_network_gets_nothing(tls_server):
    server = tls_server(allow="127.0.0.2")
    with socket.create_connection(server.address, PATIENCE_SECONDS) as client:
        assert client.recv(100) == b""
    server.source_address = ("127.0.0.2", 0)
    assert server.ask("GET", "/")[0] == "200 OK"


# --- certificates that change


def test_new_certificate_is_taken_and_a_bad_one_is_not(tls_server, authority, tmp_path):
    server = tls_server()
    first = serial(server)
    path = server.source.current.tls_cert
    begun = server.connect()
    path.write_bytes(b"nonsense")
    wait_for(lambda: settings_lines(server))
    assert settings_lines(server) == [
        f"the old certificate stays: the certificate {path} and the key {path} can't be used: they are no PEM, or the "
        "key has a passphrase"
    ]
    assert serial(server) == first
    shutil.move(authority.issue("next"), path)
    wait_for(lambda: len(settings_lines(server)) > 1)
    assert settings_lines(server)[-1] == "the certificate was read again"
    assert serial(server) != first
    with begun as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_certificate_behind_links_is_seen_to_change(serve, make_spool, authority, tmp_path):
    """As certbot renews: the new files lie elsewhere, and links are replaced."""
    link = tmp_path / "live.pem"
    link.symlink_to(authority.issue("one"))
    server = serve(make_spool(), tls_cert=str(link), tls_key=str(link))
    server.context = ssl.create_default_context(cafile=authority.path)
    first = serial(server)
    link.unlink()
    link.symlink_to(authority.issue("two"))
    wait_for(lambda: serial(server) != first)


def test_reload_of_the_settings_takes_another_certificate(tls_server, authority):
    server = tls_server()
    first = serial(server)
    other = str(authority.issue("other"))
    server.section.update(tls_cert=other, tls_key=other)
    server.source.request_reload()
    wait_for(lambda: serial(server) != first)
    server.section.update(tls_cert="/nowhere")
    server.source.request_reload()
    wait_for(lambda: "the old certificate stays: /nowhere can't be read" in server.log.getvalue())
    assert server.ask("GET", "/")[0] == "200 OK"


def test_file_that_is_being_written_is_not_read(authority, tmp_path):
    pair = tmp_path / "pair.pem"
    shutil.copy(authority.issue(), pair)
    source = settings.SettingsSource(lambda: loaded(tls_cert=pair, tls_key=pair))
    context = tls.TlsContext(source)
    before = context.current
    assert context.load_if_changed() is None
    for text in (b"", b"ha"):
        pair.write_bytes(text)
        os.utime(pair, ns=(len(text), len(text)))
        assert context.load_if_changed() is None
    shutil.copy(authority.issue("new"), pair)
    assert context.load_if_changed() is None
    assert context.load_if_changed() == "the certificate was read again"
    assert context.current is not before
    assert context.load_if_changed() is None


def loaded(**section):
    return settings.load({key: str(value) for key, value in section.items()}, "clouduploader.conf")


@pytest.fixture
def broken(authority, tmp_path):
    """Pairs of files that are none."""
    good, other = authority.issue("good"), authority.issue("other")
    readable = tmp_path / "readable.pem"
    shutil.copy(good, readable)
    readable.chmod(0o644)
    locked = tmp_path / "locked.pem"
    locked.touch(0o600)
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    empty = tmp_path / "empty"
    empty.touch(0o600)
    return {
        "missing": ({"tls_cert": tmp_path / "no", "tls_key": good}, r"no can't be read: No such file"),
        "fifo": ({"tls_cert": fifo, "tls_key": good}, r"fifo can't be read"),
        "other": ({"tls_cert": good, "tls_key": other}, r"don't belong together"),
        "no pem": ({"tls_cert": good, "tls_key": empty}, r"they are no PEM"),
        "passphrase": ({"tls_cert": good, "tls_key": locked}, r"the key has a passphrase"),
        "readable": ({"tls_cert": readable, "tls_key": readable}, r"all users can get at the key"),
        "no authority": ({"tls_cert": good, "tls_key": good, "tls_client_ca": empty}, r"has no certificates in PEM"),
    }


@pytest.mark.parametrize("case", ["missing", "fifo", "other", "no pem", "passphrase", "readable", "no authority"])
def test_pair_that_is_none_is_an_error_of_the_settings(broken, case):
    section, message = broken[case]
    with pytest.raises(ConfigError, match=message) as caught:
        tls.create_context(loaded(**section))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("section", "message"),
    [({"tls_cert": "/a"}, "both a certificate and its key are needed"), ({"tls_client_ca": "/a"}, "both"),
     ({"tls_cert": "a", "tls_key": "/b"}, "not an absolute path")],
)  # fmt: skip
def test_settings_of_tls_are_whole(section, message):
    with pytest.raises(ConfigError, match=message):
        loaded(**section)


def test_server_without_tls_has_no_context():
    source = settings.SettingsSource(loaded)
    context = tls.TlsContext(source)
    assert context.current is None
    context.request_reload()
    assert context.load_if_changed() is None


# --- certificates of clients


@pytest.fixture
def token(tmp_path):
    """A factory of headers with a token."""
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)

    def make(role):
        now = datetime.datetime.now(datetime.UTC)
        text = TokenStore(home).create("x", role, note="", expires=None, now=now)[1]
        return {"Authorization": f"Bearer {text}"}

    return make


@pytest.mark.parametrize("role", [Role.WORKER, Role.MONITOR])
def test_program_needs_a_certificate_where_an_authority_is_named(tls_server, authority, token, tmp_path, role):
    workers = Authority(tmp_path / "workers")
    server = tls_server(tls_client_ca=str(workers.path))
    worker, user = token(role), token(Role.USER)
    status = server.ask("GET", "/workerstatus", **worker)[0]
    assert status == f"403 a {role}'s token needs a client certificate"
    assert server.ask("GET", "/cloudupload", **user)[0] == "200 OK"
    server.context.load_cert_chain(workers.issue("worker"))
    assert server.ask("GET", "/workerstatus", **worker)[0] == "200 OK"
    assert server.ask("GET", "/cloudupload", **user)[0] == "200 OK"


@pytest.mark.parametrize("case", ["foreign", "expired"])
def test_certificate_of_a_client_that_is_not_good_ends_the_connection(tls_server, tmp_path, case):
    workers, others = Authority(tmp_path / "workers"), Authority(tmp_path / "others")
    server = tls_server(tls_client_ca=str(workers.path))
    age = datetime.timedelta(days=3)
    server.context.load_cert_chain(others.issue() if case == "foreign" else workers.issue(age=age))
    answer = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # or the end of the connection, by what comes first
        answer = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer == b""
    wait_for(lambda: "no connection with 127.0.0.1: CERTIFICATE_VERIFY_FAILED" in server.log.getvalue())


def test_monitor_needs_no_certificate_else(tls_server, token):
    assert tls_server().ask("GET", "/metrics", **token(Role.MONITOR))[0] == "200 OK"
