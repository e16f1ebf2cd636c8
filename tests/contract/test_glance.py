"""A plugin for OpenStack keeps the contract, against a Keystone and a Glance of our own."""

import pytest
from fakes.openstack_cloud import OpenStackCloud

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import Case, PlatformContract, UploadContract, upload

pytestmark = [  # openstacksdk warns of itself
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
]


@pytest.fixture
def cloud():
    made = OpenStackCloud()
    yield made
    made.close()


@pytest.fixture
def case(tmp_path, cloud):
    source = tmp_path / "42.file"
    source.write_bytes(b"0123456789abcdef" * (3 << 16))
    return Case(
        reference="contract.glance:Glance",
        platform_context=PlatformContext(home=tmp_path, settings={}, environment={}),
        targetdata={
            "image_name": "my image",
            "region": "RegionOne",
            "auth_url": f"{cloud.url}/identity/v3",
            "application_credential_id": cloud.CREDENTIAL["id"],
            "application_credential_secret": cloud.CREDENTIAL["secret"],
        },
        image=Image(source, "my.raw", Compression.RAW, source.stat().st_size),
        remaining=lambda: list(cloud.images),
        sabotage=lambda: cloud.failures.append(413),
    )


class TestGlancePlatform(PlatformContract):
    pass


class TestGlanceUpload(UploadContract):
    pass


def test_image_holds_the_disk_and_where_it_came_from(case, cloud, tmp_path):
    result = upload(case.make(), case.request(tmp_path / "work"))
    assert cloud.data[result.id] == case.image.path.read_bytes()
    image = cloud.images[result.id]
    assert (image["name"], image["disk_format"], image["visibility"]) == ("my image", "raw", "private")
    assert {"clouduploader:project=home:tom", "clouduploader:arch=x86_64", "clouduploader:job=42"} <= set(image["tags"])
