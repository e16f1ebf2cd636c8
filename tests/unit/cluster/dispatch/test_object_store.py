"""Objects in a store: put in parts with their checksums, lent, and removed."""

import errno
import io
import urllib.error
import urllib.parse
import urllib.request

import pytest
from fakes import object_store as fake

from clouduploader.cluster.dispatch import object_store
from clouduploader.cluster.dispatch.object_store import ObjectStore
from clouduploader.cluster.settings import ClusterSettings, StorePlace
from clouduploader.errors import LocalIOError, PlatformReplyError, StoppedError, TransientError

IMAGE = bytes(range(256)) * 12 + b"end"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(object_store, "PART_BYTES", 1024)
    with fake.running() as running:
        yield running


@pytest.fixture
def store(server, tmp_path):
    fake.write_keys(tmp_path, "store")
    return ObjectStore(StorePlace(bucket="images", prefix="p/", endpoint=server.url, profile="store"), tmp_path)


def put(store, data, key="p/7", check=lambda: None):
    store.put(key, io.BytesIO(data), len(data), check=check)


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 3000])
def test_object_is_put_and_lent(server, store, size):
    put(store, IMAGE[:size])
    assert server.objects == {"/images/p/7": IMAGE[:size]}
    assert server.uploads == {}
    with urllib.request.urlopen(store.lend("p/7")) as answer:  # noqa: S310 it is http
        assert answer.read() == IMAGE[:size]


def test_lent_url_has_no_secret_and_ends(store):
    url = store.lend("p/7")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["X-Amz-Expires"] == [str(object_store.URL_SECONDS)]
    assert "the-secret-key" not in url


@pytest.mark.parametrize("size", [10, 3000])
def test_wrong_checksum_is_refused(store, monkeypatch, size):
    monkeypatch.setattr(object_store, "_checksum", lambda _data: "A" * 43 + "=")
    with pytest.raises(PlatformReplyError, match="refused: BadDigest"):
        put(store, IMAGE[:size])


def test_what_was_given_up_is_removed(server, store):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 2:
            raise StoppedError(15)

    with pytest.raises(StoppedError):
        put(store, IMAGE, check=check)
    put(store, IMAGE, key="p/70")
    assert len(server.uploads) == 1
    store.remove("p/7")
    assert (server.uploads, list(server.objects)) == ({}, ["/images/p/70"])
    store.remove("p/70")
    store.remove("p/70")
    assert server.objects == {}


def test_store_that_fails_is_told_by_its_word(server, store):
    server.refuses = 403
    with pytest.raises(PlatformReplyError, match=r"the object store http://127.0.0.1:\d+ refused: InternalError"):
        put(store, b"x")


def test_request_that_fails_is_over_before_a_lease_is(server, store):
    server.refuses = 503
    with pytest.raises(TransientError, match="InternalError"):
        put(store, b"x")
    assert len(server.requests) == 1
    config = store._client.meta.config
    assert 2 * (config.connect_timeout + config.read_timeout) <= ClusterSettings(host="h").lease_seconds


class BadDisk(io.BytesIO):
    def read(self, _size):
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("size", [10, 3000])
def test_disk_that_fails_is_an_error_of_ours(store, size):
    with pytest.raises(LocalIOError, match="Input/output error"):
        store.put("p/7", BadDisk(), size, check=lambda: None)


def test_store_that_is_gone_is_told_without_the_object(store, server):
    server.close()
    with pytest.raises(TransientError, match=r"can't be reached: \w+$"):
        put(store, b"x")
    server.close = lambda: None


def test_missing_keys_are_told(server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    place = StorePlace(bucket="images", prefix="", endpoint=server.url, profile="none")
    with pytest.raises(PlatformReplyError, match="can't be used") as caught:
        put(ObjectStore(place, tmp_path), b"x")
    assert "image_store_profile" in caught.value.hint
