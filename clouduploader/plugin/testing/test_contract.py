"""What `pytest --pyargs clouduploader.plugin.testing` collects; the fixture `case` is the author's."""

from clouduploader.plugin.testing.contract import PlatformContract, UploadContract


class TestPlatform(PlatformContract):
    """What holds without any cloud."""


class TestUpload(UploadContract):
    """What an upload owes."""
