"""What any cloud must do: in Azure by page blobs in Azurite, and the heart of it by managed disks too."""

import pytest
from e2e.azure.conftest import AzureCase, DiskCase
from e2e.cloud_suite import CloudSuite


class TestAzure(CloudSuite):
    @pytest.fixture
    def case(self, azure):
        return AzureCase(azure)

    def submit_options(self, case):
        described = case.sandbox.description
        return [
            *("--resource-group", described["resource_group"]),
            *("--storage-account", described["storage_account"]),
            *("--container", described["container"]),
        ]


class TestAzureByDisk:
    test_upload_that_is_killed_anywhere_is_gone_on_with = CloudSuite.test_upload_that_is_killed_anywhere_is_gone_on_with
    test_sigterm_leaves_nothing_at_any_moment = CloudSuite.test_sigterm_leaves_nothing_at_any_moment
    test_cleanup_removes_what_a_killed_upload_left = CloudSuite.test_cleanup_removes_what_a_killed_upload_left
    test_secrets_are_nowhere = CloudSuite.test_secrets_are_nowhere

    @pytest.fixture
    def case(self, azure):
        return DiskCase(azure)
