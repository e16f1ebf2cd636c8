"""Paths and endpoints of Azure in a sandbox."""

from pathlib import Path

from clouduploader.sandbox.layout import Layout
from clouduploader.util.frozen import frozen

PORTS = (5001, 5002, 5003)  # of Microsoft Entra, Resource Manager, and storage; free in a network namespace that is new
RESOURCE_MANAGER = f"https://127.0.0.1:{PORTS[1]}"
AZURITE_PORT = 5004  # behind the endpoint of storage


@frozen()
class AzureLayout(Layout):
    """The paths of Azure in a sandbox's directory, beside those that every sandbox has."""

    @property
    def disks(self) -> Path:
        """What is in disks and images: a sparse file each."""
        return self.root / "disks"

    @property
    def azurite(self) -> Path:
        """What Azurite keeps."""
        return self.root / "azurite"

    @property
    def azurite_log(self) -> Path:
        """What Azurite says."""
        return self.root / "azurite.log"

    @property
    def target_data(self) -> Path:
        """Target data for uploads by hand, with secrets in clear."""
        return self.root / "azure.json"

    @property
    def certificate(self) -> Path:
        """Private key and certificate of all endpoints."""
        return self.root / "azure.pem"
