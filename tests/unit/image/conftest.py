"""Image files for the tests."""

import pytest

from clouduploader.image import packing
from clouduploader.stop import Stop


@pytest.fixture
def make_image(tmp_path):
    """A factory of an image file with these bytes, as `describe` sees it."""

    def make(data, filename="a.raw.xz"):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        return packing.describe(path, filename, Stop())

    return make
