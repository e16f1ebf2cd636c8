"""Images of jobs in a store: put before they are published, removed with their jobs, also after a crash."""

import hashlib
import math
import threading

import pytest
from fakes import object_store as fake
from fakes.waiting import wait_for

from clouduploader.cluster.dispatch import object_store
from clouduploader.cluster.dispatch.stored_images import StoredImages
from clouduploader.cluster.settings import StorePlace
from clouduploader.errors import ClouduploaderError

IMAGE = bytes(range(256)) * 12
SHA256 = hashlib.sha256(IMAGE).hexdigest()


class Site:
    """A spool with jobs, and a store for their images.

    Attributes:
        place: Where images are put; None for nowhere.
        troubles: What was told.
        woken: Set when an image was put, or could not be.
    """

    def __init__(self, jobs, home, server, make_job):
        self.jobs, self.server, self._home, self._make_job = jobs, server, home, make_job
        self.place = StorePlace(bucket="images", prefix="p/", endpoint=server.url, profile="default")
        self.troubles, self.woken, self.images = [], threading.Event(), None
        self.start()

    def start(self):
        """Begin with what an earlier server has left."""
        if self.images:
            self.images.close()
        self.images = StoredImages(
            self.jobs,
            self._home,
            place=lambda: self.place,
            wake=self.woken.set,
            on_trouble=lambda name, text: self.troubles.append((name, text)),
        )

    def make(self, name="7"):
        self._make_job(self.jobs, name, image=IMAGE)

    def put(self, name="7", sha256=SHA256):
        """Have the image of a job put, as the dispatcher does; return whether that took a while."""
        self.woken.clear()
        if self.images.take(name, sha256):
            return False
        assert self.woken.wait(60)
        assert self.images.take(name, sha256)
        return True

    def end(self, name="7"):
        self.jobs.job_path(name).unlink()

    def sweep(self):
        """Sweep until nothing is left to do."""
        wait_for(lambda: self.images.sweep() or not self.images._removing)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(object_store, "PART_BYTES", 1024)
    with fake.running() as running:
        yield running


@pytest.fixture
def site(server, make_spool, make_job, tmp_path):
    home = tmp_path / "home"
    fake.write_keys(home)
    found = Site(make_spool(), home, server, make_job)
    yield found
    found.images.close()


def test_image_is_put_once_and_lent(site):
    site.make()
    assert site.put()
    assert list(site.server.objects.values()) == [IMAGE]
    assert not site.put()
    assert site.images.lend("7").startswith(f"{site.server.url}/images/p/7-")


def test_image_is_removed_with_its_job(site):
    site.make()
    site.make("8")
    site.put()
    site.put("8")
    site.end()
    site.sweep()
    assert [path.startswith("/images/p/8-") for path in site.server.objects] == [True]
    assert site.jobs.stored_names() == ["8"]


def test_without_a_store_the_job_is_published_at_once(site):
    site.make()
    site.place = None
    assert not site.put()
    assert site.images.lend("7") is None
    assert site.server.requests == []


def test_next_server_goes_on_with_what_is_there(site):
    site.make()
    site.put()
    site.start()
    assert not site.put()


def test_what_a_server_has_begun_and_not_removed_is_removed_by_the_next(site):
    site.make()
    site.server.good_requests = 2
    site.put()
    assert list(site.server.uploads.values()) == [{1: IMAGE[:1024]}]
    assert site.images.lend("7") is None
    site.server.good_requests = math.inf
    site.end()
    site.start()
    site.sweep()
    assert (site.server.uploads, site.server.objects, site.jobs.stored_names()) == ({}, {}, [])


def test_other_image_takes_the_place_of_the_first(site):
    site.make()
    site.put()
    site.put(sha256="0" * 64)
    assert len(site.server.objects) == 1


def test_store_that_fails_lets_the_server_send(site):
    site.make()
    site.make("8")
    site.server.refuses = 403
    assert site.put()
    assert site.images.lend("7") is None
    name, text = site.troubles[0]
    assert (name, text.startswith("hosts get the image from this server: the object store http://")) == ("7", True)
    asked = len(site.server.requests)
    assert not site.put("8")
    assert len(site.server.requests) == asked  # it is not asked for a while
    site.server.refuses = None
    site.end()
    site.sweep()
    assert site.jobs.stored_names() == []


def test_image_that_can_not_be_removed_is_removed_later_and_holds_up_no_other(site):
    site.make()
    site.put()
    site.end()
    site.server.refuses = 403
    site.sweep()
    assert "can't be removed yet" in site.troubles[0][1]
    assert site.jobs.stored_names() == ["7"]
    site.server.refuses = None
    site.make("8")
    assert site.put("8")
    assert len(site.server.objects) == 2
    asked = len(site.server.requests)
    site.sweep()
    assert len(site.server.requests) == asked
    site.images._remove_at["7"] = 0.0  # a while later
    site.sweep()
    assert site.jobs.stored_names() == ["8"]


def test_image_that_can_not_be_read_is_sent_by_the_server_and_others_are_put(site):
    site.make()
    site.make("8")
    site.jobs.file_path("7").unlink()
    site.jobs.file_path("7").mkdir()
    assert site.put()
    assert site.troubles[0][0] == "7"
    assert site.put("8")
    assert len(site.server.objects) == 1


def test_image_of_a_job_that_is_over_is_given_up(site):
    site.make()
    site.images.take("7", SHA256)
    site.end()
    wait_for(lambda: site.images.sweep() or not site.jobs.stored_names())
    assert (site.server.objects, site.server.uploads) == ({}, {})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"place": {}}', "\udcff"])
def test_damaged_record_lends_nothing(site, text):
    site.jobs.stored_path("7").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ClouduploaderError, match="does not say where the image is"):
        site.images.lend("7")


def test_no_key_is_in_the_record(site):
    site.make()
    site.put()
    assert "the-secret-key" not in site.jobs.stored_path("7").read_text()
