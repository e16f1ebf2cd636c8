"""The platform `openstack` keeps the contract, against a Keystone and a Glance of our own."""

import pytest
from fakes.openstack_cloud import OpenStackCloud, fault

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import AccountsContract, Case, PlatformContract, UploadContract


@pytest.fixture(scope="module")
def server():
    made = OpenStackCloud()
    yield made
    made.close()


@pytest.fixture
def case(tmp_path, server):
    server.reset()
    source = tmp_path / "42.file"
    source.write_bytes(b"0123456789abcdef" * (3 << 16))
    return Case(
        reference="clouduploader.platforms.openstack:OpenStack",
        platform_context=PlatformContext(home=tmp_path, settings={"auth_hosts": "127.0.0.1"}, environment={}),
        targetdata={
            "image_name": "my image",
            "region": "RegionOne",
            "auth_url": f"{server.url}/identity/v3",
            "application_credential_id": server.CREDENTIAL["id"],
            "application_credential_secret": server.CREDENTIAL["secret"],
        },
        image=Image(source, "my.raw", Compression.RAW, source.stat().st_size),
        remaining=lambda: list(server.all_images()),
        sabotage=lambda: server.faults.append(fault("PUT", ".*/file", refuse=413, times=100)),
    )


class TestOpenStackPlatform(PlatformContract):
    pass


class TestOpenStackAccounts(AccountsContract):
    pass


class TestOpenStackUpload(UploadContract):
    pass
