"""The emulator of Azure: Microsoft Entra, Resource Manager and disks of ours, and blobs in Azurite."""

from typing import Any

from clouduploader.sandbox import certificates
from clouduploader.sandbox.azure import files
from clouduploader.sandbox.azure.azurite import AzuriteStorage
from clouduploader.sandbox.azure.layout import PORTS, RESOURCE_MANAGER, AzureLayout
from clouduploader.sandbox.azure.servers import AzureServers
from clouduploader.sandbox.cloud import Emulator, InitialState, SandboxServices, WsgiApp


class AzureEmulator(Emulator):
    """One account, and everything that serves it.

    Args:
        services: What the sandbox's server has.
        layout: The sandbox's directory.
    """

    def __init__(self, services: SandboxServices, layout: AzureLayout) -> None:
        self._layout = layout
        layout.disks.mkdir(mode=0o700)
        self._servers = AzureServers(
            layout.disks, services.clock.now, services.record, lambda account: AzuriteStorage(account, layout)
        )
        self.faults = self._servers.faults
        account = self._servers.account
        self.routes = {
            ("GET", "account"): lambda _: {**account.contents(), "stored": self._servers.storage.names()},
            ("GET", "rights"): lambda _: account.rights,
            ("POST", "expire"): lambda _: account.expire(),
            ("POST", "pace"): lambda body: setattr(account, "pace_seconds", float(body["seconds"])),
            ("POST", "rights"): self._set_rights,
        }

    async def start(self, control: WsgiApp) -> None:
        """Start to serve; see Emulator."""
        certificates.create(self._layout.ca, self._layout.certificate)
        await self._servers.storage.start()
        await self._servers.start(self._layout.certificate, PORTS)

    def reset(self) -> InitialState:
        """Return to the initial state; see Emulator."""
        self._servers.reset()
        account = self._servers.account
        described = files.prepare(self._layout, account, RESOURCE_MANAGER)
        data = files.target_data(self._layout, account)
        return InitialState(description=described, target="azure", target_data=data)

    def _set_rights(self, body: dict[str, Any]) -> None:
        self._servers.account.rights = {name: tuple(body[name]) for name in ("actions", "dataActions")}
