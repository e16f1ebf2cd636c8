"""The image of a claimed job: for its host alone, as long as it has the lease."""

import datetime
import hashlib
import io

import pytest
from fakes import cluster_site
from fakes import object_store as fake
from fakes.authority import Authority
from fakes.cluster_site import claim_id
from fakes.waiting import wait_for

from clouduploader.client.cluster import Claim, ClusterServer
from clouduploader.cluster.dispatch.object_store import ObjectStore
from clouduploader.cluster.host import fetch
from clouduploader.cluster.settings import StorePlace
from clouduploader.errors import NetworkError
from clouduploader.server import send_image
from clouduploader.store.tokens import Role, TokenStore
from clouduploader.util.arrival import ArrivalWriter
from clouduploader.util.cancel import Cancel
from clouduploader.util.certificates import ClientTls

IMAGE = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(IMAGE).hexdigest()
QUERY = f"attempt=1&claim={claim_id(1)}"


class Client:
    """A host that has claimed job 7 of a server."""

    def __init__(self, site, serve, home, image=IMAGE, *, lend=lambda _name: None, **section):
        self.site = site
        name = site.make()
        site.jobs.file_path(name).write_bytes(image)
        self.sha256 = hashlib.sha256(image).hexdigest()
        site.publish_known(self.sha256, name)
        site.claim()
        self.server = serve(site.jobs, cluster=site.parts(lend_image=lend), **section)
        now = datetime.datetime.now(datetime.UTC)
        self.token = TokenStore(home).create("tom", Role.WORKER, note="", expires=None, now=now)[1]

    def ask(self, method="GET", query=QUERY, **headers):
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        status, lines, body = self.server.ask(method, f"/api/v1/cluster/jobs/7/image?{query}", **headers)
        return int(status[:3]), dict(line.split(": ", 1) for line in lines), body


@pytest.fixture
def site(make_spool, make_job, home, install_package, monkeypatch):
    cluster_site.install_platform(install_package, monkeypatch)
    made = cluster_site.Site(make_spool(), home, make_job)
    yield made
    made.leases.close()


@pytest.fixture
def connect(site, serve, home):
    """Return a function that makes a Client."""
    return lambda *arguments, **section: Client(site, serve, home, *arguments, **section)


def test_host_gets_the_image_with_its_digest(connect):
    client = connect()
    status, headers, body = client.ask()
    assert (status, body, headers["ETag"], headers["Cache-Control"]) == (200, IMAGE, f'"{SHA256}"', "no-store")
    status, headers, body = client.ask("HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(IMAGE)))
    status, headers, body = client.ask(Range="bytes=5-", If_Range=f'"{SHA256}"')
    assert (status, body) == (206, IMAGE[5:])
    status, headers, body = client.ask(Range=f"bytes={len(IMAGE)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(IMAGE)}")


@pytest.mark.parametrize(
    "query",
    [f"attempt=2&claim={claim_id(1)}", f"attempt=1&claim={claim_id(2)}"],
)
def test_other_claims_get_nothing(connect, query):
    assert connect().ask(query=query)[0] == 409


def test_stranger_gets_nothing(connect):
    client = connect(allow="")
    assert client.ask(Authorization="Bearer x")[0] == 401


def test_image_that_has_changed_is_not_sent(connect, site):
    client = connect()
    site.jobs.file_path("7").write_bytes(b"another")
    assert client.ask()[0] == 409


def test_link_is_not_followed(connect, site, tmp_path):
    """What a job by hand leaves there is not the business of a cluster."""
    client = connect()
    site.jobs.file_path("7").rename(tmp_path / "image")
    site.jobs.file_path("7").symlink_to(tmp_path / "image")
    assert client.ask()[0] == 409


def test_sending_ends_with_the_lease(connect, site, monkeypatch):
    monkeypatch.setattr(send_image, "CHECK_SECONDS", 0.01)
    client = connect(bytes(64 << 20))
    head = f"GET /api/v1/cluster/jobs/7/image?{QUERY} HTTP/1.1\r\nHost: obs\r\nAuthorization: Bearer {client.token}\r\n"
    with client.server.connect() as sock:
        sock.sendall(f"{head}\r\n".encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        site.leases.release("7", 1, claim_id(1), "enough")
        wait_for(lambda: "status=499" in client.server.log.getvalue())
        received = sum(map(len, iter(lambda: sock.recv(1 << 20), b"")))
    assert received < 64 << 20


@pytest.mark.parametrize("has_tls", [False, True])
def test_host_fetches_it(connect, tmp_path, has_tls):
    """Over TLS it goes through asyncio's transport, and is the same."""
    authority, section, scheme = Authority(tmp_path / "pki"), {}, "http"
    if has_tls:
        path = str(authority.issue())
        section, scheme = {"tls_cert": path, "tls_key": path}, "https"
    client = connect(**section)
    host, port = client.server.address
    server = ClusterServer(f"{scheme}://{host}:{port}", client.token, tls=ClientTls(ca=authority.path))
    path = tmp_path / "fetched"
    claim = Claim("7", 1, claim_id(1))
    with ArrivalWriter() as arrival:
        fetch.fetch(server, claim, path, size=len(IMAGE), sha256=SHA256, cancel=Cancel(), arrival=arrival)
    assert path.read_bytes() == IMAGE


def test_image_in_a_store_is_fetched_from_there(connect, tmp_path):
    fake.write_keys(tmp_path)
    with fake.running() as server:
        store = ObjectStore(StorePlace(bucket="b", prefix="", endpoint=server.url, profile="default"), tmp_path)
        store.put("7-x", io.BytesIO(IMAGE), len(IMAGE), check=lambda: None)
        client = connect(lend=lambda name: store.lend(f"{name}-x"))
        status, headers, body = client.ask()
        assert (status, body, headers["Cache-Control"]) == (307, b"", "no-store")
        assert client.ask("HEAD")[0] == 200
        assert client.ask(query=f"{QUERY}&direct=true")[::2] == (200, IMAGE)
        assert fetched(client, tmp_path) == IMAGE
        assert "GET /b/7-x" in server.requests
        assert "Signature" not in client.server.log.getvalue()
        server.refuses = 503
        assert fetched(client, tmp_path) == IMAGE  # from the server itself


def test_store_that_lends_nothing_leaves_it_to_the_server(connect):
    def lend(_name):
        raise NetworkError("the store is gone")

    assert connect(lend=lend).ask()[0] == 200


def fetched(client, directory):
    """Fetch the image as a host does; return what came."""
    host, port = client.server.address
    path = directory / "fetched"
    server = ClusterServer(f"http://{host}:{port}", client.token)
    claim = Claim("7", 1, claim_id(1))
    with ArrivalWriter() as arrival:
        fetch.fetch(server, claim, path, size=len(IMAGE), sha256=SHA256, cancel=Cancel(), arrival=arrival)
    return path.read_bytes()
