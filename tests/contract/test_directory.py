"""The platform `directory` keeps the contract."""

import pytest

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import Case, PlatformContract, UploadContract


@pytest.fixture
def case(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    source = tmp_path / "42.file"
    source.write_bytes(b"0123456789abcdef" * (3 << 16))  # three blocks of a MiB
    return Case(
        reference="clouduploader.platforms.directory:DirectoryPlatform",
        platform_context=PlatformContext(home=tmp_path, settings={"path": str(images)}, environment={}),
        targetdata={"filename": "my image.raw.xz"},
        image=Image(source, "my image.raw.xz", Compression.XZ, source.stat().st_size),
        remaining=lambda: [path.name for path in images.iterdir()],
        sabotage=source.unlink,
    )


class TestDirectoryPlatform(PlatformContract):
    pass


class TestDirectoryUpload(UploadContract):
    pass
