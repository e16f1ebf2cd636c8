"""Platforms and contexts to try the plugin API with."""

import pytest
from fakes.platforms import FakePlatform

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import Context, UploadContext
from clouduploader.plugin.testing import FakeClock, RecordingReporter, make_request
from clouduploader.util.cancel import Cancel


@pytest.fixture
def platform():
    return FakePlatform()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ctx(platform, clock):
    return Context(platform, {"region": "here"}, RecordingReporter(), Cancel(), clock=clock)


@pytest.fixture
def upload_ctx(platform, clock, tmp_path):
    path = tmp_path / "42.file"
    path.write_bytes(bytes(range(256)) * 10_000)
    request = make_request(Image(path, "a\x07.raw", Compression.RAW, path.stat().st_size), {"region": "here"}, tmp_path)
    return UploadContext(platform, request, RecordingReporter(journal=request.journal), Cancel(), clock=clock)
