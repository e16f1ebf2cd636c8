"""Images in pieces on the disk: what the record tells is there, after any crash."""

import datetime
import os

import pytest

from clouduploader.errors import LocalIOError, LockedError, MissingFileError
from clouduploader.store.images import ImageStore

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path)


@pytest.fixture
def image(store):
    return store.create("tom", 6, metadata={"filename": "a.raw"}, now=NOW)


def append(store, image, data, *, is_synced=True):
    with store.open(image.id) as opened:
        opened.write(data)
        if is_synced:
            opened.sync()


def test_image_is_the_owners_alone(store, image):
    assert store.find(image.id) == image
    assert {oct(path.stat().st_mode & 0o777) for path in store.directory.iterdir()} == {"0o600"}
    assert oct(store.directory.stat().st_mode & 0o777) == "0o700"


def test_what_was_not_noted_is_sent_again(store, image):
    append(store, image, b"abc")
    append(store, image, b"xyz", is_synced=False)  # a crash
    assert store.path(image).read_bytes() == b"abcxyz"
    assert store.find(image.id).offset_bytes == 3
    append(store, image, b"def")
    assert store.path(image).read_bytes() == b"abcdef"
    assert store.find(image.id).is_whole


def test_image_has_one_writer(store, image):
    with store.open(image.id), pytest.raises(LockedError):
        store.open(image.id)


def test_image_that_is_written_is_not_removed(store, image):
    """Its writer would bring the record back, and a job would be made of what is not there."""
    with store.open(image.id) as opened:
        opened.write(b"abc")
        with pytest.raises(LockedError):
            store.remove(image.id)
        assert store.expire(seconds=0, now=NOW + DAY) == []
        opened.sync()
    assert store.find(image.id).offset_bytes == 3
    store.remove(image.id)
    assert list(store.directory.iterdir()) == []


@pytest.mark.parametrize("name", ["", "0" * 32, "../x", "a" * 31, "A" * 32])
def test_image_that_is_not_there_is_not_found(store, image, name):
    with pytest.raises(MissingFileError):
        store.find(name)
    with pytest.raises(MissingFileError):
        store.open(name)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10_000, '{"owner": null, "size": 1, "offset": 2}'])
def test_damaged_record_hides_no_other(store, image, text):
    (store.directory / f"{'0' * 32}.json").write_text(text)
    with pytest.raises(LocalIOError, match="is damaged"):
        store.find("0" * 32)
    assert store.images() == [image]


def test_link_is_not_followed(store, image, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    store.path(image).unlink()
    store.path(image).symlink_to(tmp_path / "precious")
    with pytest.raises(LocalIOError):
        store.open(image.id)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_images_expire_with_what_a_crash_left(store, image):
    young = store.create("tom", 6, metadata={}, now=NOW + 2 * DAY)
    made = store.bind(store.create("tom", 6, metadata={}, now=NOW), "7")
    store.give_up(made)
    for name in ("f" * 32, ".x.json.new"):
        (store.directory / name).touch()
        os.utime(store.directory / name, (NOW.timestamp(), NOW.timestamp()))
    assert store.expire(seconds=DAY.total_seconds(), now=NOW) == []
    later = NOW + 2 * DAY
    with store.open(image.id):
        assert store.expire(seconds=DAY.total_seconds(), now=later) == []
    assert store.expire(seconds=DAY.total_seconds(), now=later) == [image]
    assert sorted(path.name for path in store.directory.iterdir()) == [young.id, f"{young.id}.json"]


def test_store_that_was_never_used_is_empty(store):
    assert store.images() == []
    assert store.expire(seconds=1, now=NOW) == []
