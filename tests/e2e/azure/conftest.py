from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from e2e import sandboxes
from e2e.cloud_suite import CloudCase
from e2e.sandboxes import Sandbox

from clouduploader.sandbox.azure.cloud import AzureCloud
from clouduploader.sandbox.azure.layout import AzureLayout

FOOTER_BYTES = 512


class AzureSandbox(Sandbox):
    """A running sandbox with an Azure."""

    layout: AzureLayout

    def account(self) -> dict[str, Any]:
        """What is in the subscription: `resources` by id, the file of each of `disks`, and what is `stored`."""
        found: dict[str, Any] = self.control("GET", "account")
        return found


class AzureCase(CloudCase):
    """See CloudCase; uploads by a page blob."""

    target = "azure"
    sending = "PutPage"
    login = "Token"
    refused = MappingProxyType({"action": "images/PUT", "code": "InvalidParameter", "status": 400})
    sandbox: AzureSandbox
    method = "blob"

    def options(self) -> Sequence[str | Path]:
        return ("--data", self.sandbox.layout.target_data, "--method", self.method)

    def name_option(self) -> str:
        return "--name"

    def images(self) -> Sequence[str]:
        return [name for name in self.sandbox.account()["resources"] if "/images/" in name]

    def others(self) -> Sequence[str]:
        found = self.sandbox.account()
        own = self.sandbox.description["container"]
        others = [name for name in found["resources"] if "/images/" not in name]
        return others + [name for name in found["stored"] if name != own]

    def disk(self, result: str) -> bytes:
        return Path(self.sandbox.account()["disks"][result]).read_bytes()[:-FOOTER_BYTES]

    def firmware(self, result: str) -> str:
        image = self.sandbox.account()["resources"][result]
        return {"V1": "bios", "V2": "uefi"}[image["properties"]["hyperVGeneration"]]

    def secrets(self) -> Mapping[str, str]:
        return {name: self.sandbox.description[name] for name in ("application_id", "application_key")}


class DiskCase(AzureCase):
    """The same by a managed disk."""

    method = "disk"


@pytest.fixture(scope="session")
def running_azure() -> Iterator[AzureSandbox]:
    """One sandbox for all tests."""
    with sandboxes.running(AzureSandbox, AzureLayout, AzureCloud()) as made:
        yield made


@pytest.fixture
def azure(running_azure: AzureSandbox) -> Iterator[AzureSandbox]:
    """The sandbox as at its start."""
    running_azure.reset()
    yield running_azure
    running_azure.kill_all()
