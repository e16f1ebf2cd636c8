"""The platform `azure` keeps the contract, by both methods, against the sandbox's Azure."""

import pytest
from fakes.azure_cloud import AzureCloud

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import AccountsContract, Case, PlatformContract, UploadContract


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    made = AzureCloud(tmp_path_factory.mktemp("azure"))
    yield made
    made.close()


@pytest.fixture
def make_case(tmp_path, cloud, monkeypatch):
    """Makes a case with these target data."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cloud.ca))
    cloud.servers.reset()
    source = tmp_path / "42.file"
    source.write_bytes(b"0123456789abcdef" * (3 << 16) + bytes(5 << 20) + b"end!" * 128)

    def make(targetdata):
        return Case(
            reference="clouduploader.platforms.azure:Azure",
            platform_context=PlatformContext(
                home=tmp_path, settings={"cloud": cloud.url}, environment={"REQUESTS_CA_BUNDLE": str(cloud.ca)}
            ),
            targetdata=targetdata,
            image=Image(source, "my.raw", Compression.RAW, source.stat().st_size),
            remaining=cloud.remaining,
            sabotage=lambda: cloud.faults.replace([{"action": "PutPage", "code": "InvalidInput", "status": 400}]),
        )

    return make


@pytest.fixture
def case(make_case, cloud):
    return make_case(cloud.targetdata())


class TestAzurePlatform(PlatformContract):
    pass


class TestAzureAccounts(AccountsContract):
    pass


class TestAzureUploadByDisk(UploadContract):
    pass


class TestAzureUploadByBlob(UploadContract):
    @pytest.fixture
    def case(self, make_case, cloud):
        return make_case(cloud.through_storage())
