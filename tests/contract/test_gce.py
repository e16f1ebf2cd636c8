"""The platform `gce` keeps the contract, against the Google of the sandbox."""

import functools
import gzip
import random
import tarfile

import pytest
from fakes.google_cloud import BUCKET, GoogleCloud

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import AccountsContract, Case, PlatformContract, UploadContract

DISK_BYTES = 3 << 20


@pytest.fixture(scope="module")
def google():
    cloud = GoogleCloud()
    yield cloud
    cloud.close()


@pytest.fixture
def case(google, tmp_path):
    google.reset()
    google.site.compute.alignment_bytes = DISK_BYTES  # a GiB takes a while
    source = tmp_path / "42.file"
    source.write_bytes(archive())
    return Case(
        reference="clouduploader.platforms.gce:Gce",
        platform_context=PlatformContext(home=tmp_path, settings={"api_url": google.api_url}, environment={}),
        targetdata={"credentials": google.key, "bucket": BUCKET, "image_name": "my-image"},
        image=Image(source, "my.raw", Compression.RAW, source.stat().st_size),
        remaining=lambda: [*google.objects(), *google.site.compute.images],
        sabotage=lambda: google.faults.replace([{"action": "images.insert", "code": "forbidden"}]),
    )


@functools.cache
def archive():
    """What the core gives as the stream."""
    member = tarfile.TarInfo("disk.raw")
    member.size = DISK_BYTES
    disk = random.Random(1).randbytes(DISK_BYTES)  # noqa: S311
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + disk + bytes(2 * tarfile.BLOCKSIZE), 1, mtime=0)


class TestGcePlatform(PlatformContract):
    pass


class TestGceUpload(UploadContract):
    pass


class TestGceAccounts(AccountsContract):
    pass
