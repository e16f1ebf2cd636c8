"""A second cloud with accounts and files of its own keeps the contract: nothing in it is EC2's alone."""

import pytest

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import AccountsContract, Case, PlatformContract


@pytest.fixture
def case(tmp_path):
    cloud = tmp_path / "cloud"
    cloud.mkdir()
    (cloud / "password").write_text("open sesame\n")
    source = tmp_path / "42.file"
    source.write_bytes(b"0123456789abcdef")
    return Case(
        reference="fakes.file_cloud:FileCloud",
        platform_context=PlatformContext(home=tmp_path, settings={"path": str(cloud)}, environment={}),
        targetdata={"region": "r1", "password": "open sesame", "tenant": "tom"},
        image=Image(source, "my.raw", Compression.RAW, source.stat().st_size),
    )


class TestFileCloudPlatform(PlatformContract):
    pass


class TestFileCloudAccounts(AccountsContract):
    pass
