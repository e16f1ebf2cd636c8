"""An image that was uploaded into Azure comes up; run by `packaging/boot`."""

import pytest
from e2e.azure.conftest import AzureCase
from e2e.boot_suite import BootSuite


class TestAzureBoots(BootSuite):
    @pytest.fixture
    def case(self, azure):
        return AzureCase(azure)
