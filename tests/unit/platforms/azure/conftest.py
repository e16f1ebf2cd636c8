import dataclasses

import pytest
from fakes.azure_cloud import AzureCloud

from clouduploader.image import open as image_open
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.azure import Azure
from clouduploader.plugin import Context, PlatformContext, UploadContext
from clouduploader.plugin.testing import FakeClock, RecordingReporter, make_request, upload
from clouduploader.plugin.testing.fakes import facts_of
from clouduploader.util.cancel import Cancel


@pytest.fixture(scope="session")
def azure_cloud(tmp_path_factory):
    made = AzureCloud(tmp_path_factory.mktemp("azure"))
    yield made
    made.close()


@pytest.fixture
def cloud(azure_cloud, monkeypatch):
    """The sandbox's Azure as it begins."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azure_cloud.ca))
    azure_cloud.servers.reset()
    azure_cloud.forget_calls()
    return azure_cloud


class Uploader:
    """Uploads one image, try by try, with one journal.

    Attributes:
        disk: What is in the image.
        reporter: Of the last try.
    """

    def __init__(self, cloud, directory, targetdata, *, settings=None, **facts):
        self.cloud, self.directory = cloud, directory
        self.path = directory / "image.raw"
        self.reporter = RecordingReporter()
        context = PlatformContext(
            home=directory,
            settings={"cloud": cloud.url, **(settings or {})},
            environment={"REQUESTS_CA_BUNDLE": str(cloud.ca)},
        )
        self.platform = Azure(context)
        self.put(b"begin" + bytes(9 << 20) + b"0123456789abcdef" * (1 << 16) + b"end!" * 128)
        work_dir = directory / "work"
        work_dir.mkdir()
        size_bytes = facts.pop("file_bytes", None)
        image = Image(self.path, "my.raw", facts.pop("compression", Compression.RAW), size_bytes or len(self.disk))
        request = make_request(image, targetdata, work_dir)
        found = dataclasses.replace(facts_of(image), **facts)
        self.request = dataclasses.replace(request, inspect_image=lambda: found, open_blocks=self.open_blocks)

    def put(self, disk):
        self.disk = disk
        self.path.write_bytes(disk)

    def open_blocks(self, block_bytes, zero_blocks):
        return image_open.open_blocks(
            Image(self.path, "my.raw", Compression.RAW, len(self.disk)),
            block_bytes=block_bytes,
            zero_blocks=zero_blocks,
            expected_sha256=None,
            max_size_bytes=None,
            cancel=Cancel(),
            reporter=self.reporter,
        )

    def run(self, *, cancel=None):
        """Upload as the core does."""
        self.reporter = RecordingReporter(journal=self.request.journal)
        return upload(self.platform, self.request, self.reporter, cancel)

    def run_until_killed(self):
        """Upload without what the core does at the end of one that failed."""
        self.reporter = RecordingReporter(journal=self.request.journal)
        self.platform.upload(UploadContext(self.platform, self.request, self.reporter, Cancel(), clock=FakeClock()))

    def context(self, targetdata=None):
        data = self.request.targetdata if targetdata is None else targetdata
        return Context(self.platform, data, self.reporter, Cancel(), clock=FakeClock())

    def content(self, thing_id):
        """What is in an image of the cloud, without the footer; and that."""
        data = self.cloud.account.disks[thing_id.lower()].path.read_bytes()
        return data[:-512], data[-512:]


@pytest.fixture
def make_uploader(cloud, tmp_path):
    """Makes an uploader with these target data besides those of an application."""

    def make(*, is_by_blob=False, settings=None, facts=None, **values):
        targetdata = cloud.through_storage(**values) if is_by_blob else cloud.targetdata(**values)
        given = {name: value for name, value in targetdata.items() if value is not None}
        return Uploader(cloud, tmp_path, given, settings=settings, **(facts or {}))

    return make
