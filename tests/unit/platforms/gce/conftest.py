"""A Google's cloud for all tests, empty for each, and uploads into it."""

import dataclasses
import gzip
import random
import tarfile
import types

import pytest
from fakes.google_cloud import BUCKET, GoogleCloud

from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.gce import Gce, staging
from clouduploader.plugin import PlatformContext, UploadContext
from clouduploader.plugin.testing import FakeClock, MemoryJournal, RecordingReporter, facts_of, make_request, upload
from clouduploader.util.cancel import Cancel

DISK_BYTES = 5 << 20
CHUNK_BYTES = 1 << 20


@pytest.fixture(scope="session")
def running_google():
    cloud = GoogleCloud()
    yield cloud
    cloud.close()


@pytest.fixture
def google(running_google, monkeypatch):
    monkeypatch.setattr(staging, "CHUNK_BYTES", CHUNK_BYTES)
    # between google-auth's own tries to get a token
    monkeypatch.setattr("google.auth._exponential_backoff.time", types.SimpleNamespace(sleep=lambda _: None))
    running_google.reset()
    running_google.site.compute.alignment_bytes = DISK_BYTES  # a GiB takes a while
    return running_google


def archive(seed):
    """A disk as the core gives it for Google; another one for another seed."""
    member = tarfile.TarInfo("disk.raw")
    member.size = DISK_BYTES
    disk = random.Random(seed).randbytes(DISK_BYTES)  # noqa: S311
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + disk + bytes(2 * tarfile.BLOCKSIZE), 1, mtime=0)


ARCHIVES = [archive(1), archive(2)]


class DeathError(BaseException):
    """The process dies."""


class MortalReporter(RecordingReporter):
    """Lets the process die when a call was answered.

    Args:
        journal: See RecordingReporter.
        call: How the line about it begins, such as "PUT".
        count: How many are survived.
    """

    def __init__(self, journal, call, count):
        super().__init__(journal=journal)
        self._call, self._count = call, count

    def detail(self, text):
        super().detail(text)
        if text.startswith(self._call):
            self._count -= 1
            if self._count < 0:
                raise DeathError


class Uploads:
    """Uploads of one image by one user, which have one journal.

    Attributes:
        journal: Theirs.
        record: The reporter of the last one.
        facts: What is known of the image.
        is_by_hand: Whether they are by hand.
    """

    def __init__(self, google, tmp_path, **targetdata):
        self._google = google
        self._work_dir = tmp_path / "work"
        self._work_dir.mkdir(exist_ok=True)
        self._path = tmp_path / "42.file"
        self._path.write_bytes(ARCHIVES[0])
        self.targetdata = {"credentials": google.key, "bucket": BUCKET, "image_name": "my-image", **targetdata}
        self.journal = MemoryJournal(tmp_path / "journal")
        self.record = RecordingReporter(journal=self.journal)
        self.facts = {}
        self.is_by_hand = False

    def change_image(self):
        """Put another image in the place of the first."""
        self._path.write_bytes(ARCHIVES[1])

    @property
    def platform(self):
        return Gce(PlatformContext(home=self._work_dir, settings={"api_url": self._google.api_url}, environment={}))

    @property
    def session_file(self):
        return self.journal.directory / staging.SESSION_FILE

    def request(self):
        image = Image(self._path, "My Image.raw", Compression.RAW, self._path.stat().st_size)
        return dataclasses.replace(
            make_request(image, self.targetdata, self._work_dir),
            journal=self.journal,
            is_by_hand=self.is_by_hand,
            inspect_image=lambda: dataclasses.replace(facts_of(image), **self.facts),
        )

    def context(self, record=None):
        return UploadContext(self.platform, self.request(), record or RecordingReporter(), Cancel(), clock=FakeClock())

    def run(self, on_event=None, cancel=None):
        """Upload."""
        self.record = RecordingReporter(on_event, journal=self.journal)
        return upload(self.platform, self.request(), self.record, cancel)

    def die(self, call, count=0):
        """Upload until the process dies, see MortalReporter: nothing is undone."""
        self.record = MortalReporter(self.journal, call, count)
        with pytest.raises(DeathError):
            self.platform.upload(self.context(self.record))


@pytest.fixture
def uploads(google, tmp_path):
    """A factory of Uploads; target data can be given."""
    return lambda **targetdata: Uploads(google, tmp_path, **targetdata)
