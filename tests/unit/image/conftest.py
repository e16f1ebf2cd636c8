"""Image files for the tests."""

import pytest

from clouduploader.image import open as image_open
from clouduploader.util.cancel import Cancel


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image file with these bytes, as `describe` sees it."""

    def make(data, filename="a.raw.xz"):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        return image_open.describe(path, filename, Cancel())

    return make
