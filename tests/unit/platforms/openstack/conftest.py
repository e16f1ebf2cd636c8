"""A cloud of our own, and functions that make uploads into it."""

import dataclasses

import pytest
from fakes.openstack_cloud import OpenStackCloud

from clouduploader.model.disk import Compression, DiskFormat, Image
from clouduploader.platforms.openstack import OpenStack
from clouduploader.plugin import Context, PlatformContext
from clouduploader.plugin.testing import FakeClock, RecordingReporter, facts_of, make_request
from clouduploader.plugin.testing import upload as run_upload
from clouduploader.util.cancel import Cancel

CONTENT = bytes(range(256)) * (10 << 10)  # two and a half pieces


@pytest.fixture(scope="session")
def server():
    made = OpenStackCloud()
    yield made
    made.close()


@pytest.fixture
def cloud(server):
    """The cloud as it is in the beginning."""
    server.reset()
    return server


@pytest.fixture
def make_platform(tmp_path):
    """Return a function that makes the platform with settings, which list the host of the cloud: it speaks http."""

    def make(**settings):
        settings = {"auth_hosts": "127.0.0.1", **settings}
        return OpenStack(PlatformContext(home=tmp_path, settings=settings, environment={}, target="openstack"))

    return make


@pytest.fixture
def targetdata(cloud):
    """Target data of our credential."""
    return {
        "image_name": "my image",
        "region": "RegionOne",
        "auth_url": f"{cloud.url}/identity/v3",
        "application_credential_id": cloud.CREDENTIAL["id"],
        "application_credential_secret": cloud.CREDENTIAL["secret"],
    }


@pytest.fixture
def make_context(make_platform, targetdata):
    """Return a function that makes a context for what is no upload."""

    def make(region=None, settings=None, record=None, **data):
        values = {name: value for name, value in {**targetdata, **data}.items() if value is not None}
        record = record or RecordingReporter()
        return Context(make_platform(**(settings or {})), values, record, Cancel(), clock=FakeClock(), region=region)

    return make


@pytest.fixture
def make_upload(tmp_path, targetdata):
    """Return a function that makes a request, with changes to the facts about the image and to the target data."""
    source = tmp_path / "42.file"

    def make(*, content=CONTENT, facts=None, disk_format=DiskFormat.RAW, **data):
        source.write_bytes(content)
        image = Image(source, "my.raw", Compression.RAW, len(content), disk_format=disk_format)
        values = {name: value for name, value in {**targetdata, **data}.items() if value is not None}
        told = dataclasses.replace(facts_of(image), **(facts or {}))
        return dataclasses.replace(make_request(image, values, tmp_path / "work"), inspect_image=lambda: told)

    return make


@pytest.fixture
def upload(make_upload, make_platform):
    """Return a function that uploads what `make_upload` makes."""

    def run(*, record=None, settings=None, cancel=None, made=None, **options):
        request = made or make_upload(**options)
        record = record or RecordingReporter(journal=request.journal)
        return run_upload(make_platform(**(settings or {})), request, record, cancel)

    return run
