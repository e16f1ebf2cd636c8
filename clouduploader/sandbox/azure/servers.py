"""The endpoints of an emulated Azure: Microsoft Entra, Resource Manager, and the pages of disks and blobs."""

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aiohttp import web

from clouduploader.sandbox.azure.account import AzureAccount
from clouduploader.sandbox.azure.entra import Entra
from clouduploader.sandbox.azure.resource_manager import ResourceManager
from clouduploader.sandbox.azure.storage import Storage
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.gateway import Call, Gateway, Handler, HttpFault


class _Service(Protocol):
    """One endpoint."""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""

    def name_call(self, request: web.Request) -> Call:
        """Name what is asked for."""

    def refuse(self, fault: HttpFault, call: Call) -> web.Response:
        """Make the answer of a fault."""


class AzureServers:
    """One account and what serves it.

    Args:
        directory: For the content of disks; there, private and empty.
        now: The cloud's clock.
        record: Gets the calls.
        make_storage: Makes what serves the storage account.

    Attributes:
        account: See AzureAccount.
        storage: The pages.
        manager: Resource Manager.
        faults: What goes wrong on purpose.
    """

    def __init__(
        self,
        directory: Path,
        now: Callable[[], datetime.datetime],
        record: CallRecord,
        make_storage: Callable[[AzureAccount], Storage] = Storage,
    ) -> None:
        self.faults = Faults(HttpFault)
        self.account = AzureAccount(directory, now)
        self.storage = make_storage(self.account)
        self._entra = Entra(self.account)
        self.manager = ResourceManager(self.account, self.storage.file)
        self._record = record
        self._gateways: list[Gateway] = []

    async def start(self, certificate: Path, ports: tuple[int, int, int] = (0, 0, 0)) -> str:
        """Serve Entra, Resource Manager and pages at these ports, 0 for any; return Resource Manager's address."""
        services: tuple[tuple[str, _Service], ...] = (
            ("entra", self._entra),
            ("arm", self.manager),
            ("blob", self.storage),
        )
        urls = []
        for (name, service), port in zip(services, ports, strict=True):
            gateway = Gateway(self._record, self.faults, service.refuse)
            self._gateways.append(gateway)
            found = await gateway.serve(
                port, self._locked(service.answer), service=name, name_call=service.name_call, certificate=certificate
            )
            urls.append(f"https://127.0.0.1:{found}")
        self._entra.root, self.manager.root, self.manager.disk_root = urls
        self._entra.resource_manager, self.manager.login = urls[1], urls[0]
        self.account.blob_endpoint = f"{urls[2]}/"
        return urls[1]

    def reset(self) -> None:
        """Return to the beginning."""
        with self.account.lock:
            self.account.reset()
            self.storage.reset()
            self.manager.reset()
        self.faults.replace([])

    async def close(self) -> None:
        """Serve no more."""
        await asyncio.gather(*(gateway.close() for gateway in self._gateways))

    def _locked(self, handler: Handler) -> Handler:
        """Keep other threads from the account while a request is answered, but for its body."""

        async def answer(request: web.Request) -> web.Response:
            await request.read()
            with self.account.lock:
                return await handler(request)

        return answer
