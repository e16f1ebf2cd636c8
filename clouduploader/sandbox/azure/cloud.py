"""The emulated Azure as the command line, `host` and `init` know it; loads no server."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from clouduploader.sandbox.azure.layout import AzureLayout
from clouduploader.sandbox.cloud import Emulator, SandboxCloud, SandboxServices
from clouduploader.sandbox.layout import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class AzureCloud(SandboxCloud):
    """An emulated Azure."""

    target = "azure"
    contents = (
        "an Azure subscription with a resource group, an application that may upload into it, and a storage account in "
        "Azurite, Microsoft's own emulator"
    )
    advice = (
        "Try the following: upload an image through the storage account, or by a managed disk; have the service\n"
        "upload one, and job 1; do with job 1 what OBS does."
    )
    programs = MappingProxyType({"openssl": "openssl", "node": "nodejs", "npm": "npm"})
    modules = ("aiohttp", "anycrc", "azure.identity", "requests", "werkzeug")
    variable_prefixes = ("AZURE_", "AZURITE_")
    server_environment = MappingProxyType({})

    def install(self, say: Callable[[str], None]) -> None:
        """Install Azurite."""
        from clouduploader.sandbox.azure import azurite

        azurite.install(say)

    def headline(self, described: Mapping[str, Any]) -> str:
        """Name the endpoint."""
        return f"{described['resource_manager']}; nothing in it is real but Azurite"

    def facts(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what an upload by hand is told."""
        return {
            "tenant": described["tenant"],
            "subscription": described["subscription"],
            "resource group": described["resource_group"],
            "storage": f"{described['storage_account']} (container {described['container']})",
        }

    def examples(self, layout: Layout) -> Sequence[str]:
        """Return uploads by hand by both methods, one by the service, and what OBS does."""
        job = layout.spool / "1"
        data = AzureLayout(layout.root).target_data
        return (
            f"clouduploader upload --target azure --data {data} --name my-image {layout.sample}",
            f"clouduploader upload --target azure --data {data} --method disk --name by-disk {layout.sample}",
            "clouduploader list",
            "clouduploader serve 2>serve.log &",
            "clouduploader submit --wait --target azure --resource-group clouduploader-sandbox --name my-other-image "
            f"{layout.sample}",
            f"clouduploader sandbox-user azure {job}.file {job}.data {job}.log",
        )

    def describe(self, described: Mapping[str, Any], result: str) -> Mapping[str, str]:
        """Ask Resource Manager as the application does."""
        from clouduploader.sandbox.azure import files

        return files.describe_image(described, result)

    def account_values(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the customer's application."""
        return {name: described[name] for name in ("tenant", "application_id", "application_key")}

    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the variable that makes the SDK trust the endpoints."""
        return {"REQUESTS_CA_BUNDLE": str(layout.ca)}

    def create_emulator(self, services: SandboxServices) -> Emulator:
        """Create all servers; none listens before the first `reset`."""
        from clouduploader.sandbox.azure.emulator import AzureEmulator

        return AzureEmulator(services, AzureLayout(services.layout.root))
