"""The platform keeps the contract, against a depot of our own."""

import threading

import pytest
from depot_server import TOKEN, DepotServer

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import Case, PlatformContract, UploadContract, upload


@pytest.fixture
def depot():
    with DepotServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def case(tmp_path, depot):
    file = tmp_path / "42.file"
    file.write_bytes(b"0123456789abcdef" * (3 << 16))
    return Case(
        reference="depot_platform:DepotPlatform",
        platform_context=PlatformContext(home=tmp_path, settings={"url": depot.url}, environment={}),
        targetdata={"image_name": "my image", "token": TOKEN},
        image=Image(file, "my.raw", Compression.RAW, file.stat().st_size),
        remaining=lambda: list(depot.images),
        sabotage=lambda: setattr(depot, "is_full", True),
    )


class TestDepotPlatform(PlatformContract):
    pass


class TestDepotUpload(UploadContract):
    pass


def test_image_bears_where_it_came_from(case, depot, tmp_path):
    result = upload(case.make(), case.request(tmp_path / "work"))
    image = depot.images[result.id]
    assert image["name"] == "my image"
    assert image["labels"]["clouduploader:project"] == "home:tom"
