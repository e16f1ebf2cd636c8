"""The sandbox's Azure in a thread of the test: Entra, Resource Manager, and pages of blobs and disks."""

import asyncio
import datetime
import gc
import selectors
import threading

from fakes.waiting import wait_for

from clouduploader.platforms.azure import rights
from clouduploader.sandbox import certificates
from clouduploader.sandbox.azure.servers import AzureServers
from clouduploader.sandbox.call_record import CallRecord


class AzureCloud:
    """An Azure of one customer.

    Attributes:
        url: Of Resource Manager: the setting `cloud`.
        ca: What its certificates are checked by: REQUESTS_CA_BUNDLE.
        record: The calls.
        servers: See AzureServers; so are account, storage and faults.
    """

    def __init__(self, directory):
        self.ca = directory / "ca.pem"
        certificates.create(self.ca, directory / "server.pem")
        self._calls = directory / "calls.jsonl"
        self._calls.touch()
        (directory / "disks").mkdir()
        self.record = CallRecord(self._calls)
        self.servers = AzureServers(directory / "disks", lambda: datetime.datetime.now(datetime.UTC), self.record)
        self.account, self.storage, self.faults = self.servers.account, self.servers.storage, self.servers.faults
        self.servers.reset()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.url = self._run(self.servers.start(directory / "server.pem"))

    def close(self):
        gc.collect()  # sessions of uploads, whose connections a server would wait for
        self._run(self.servers.close())
        wait_for(lambda: len(self._selector.get_map()) == 1)  # the loop's own; no connection is open any more
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def forget_calls(self):
        """Begin the record of calls anew."""
        self._calls.write_text("")

    def allow(self, extras):
        """Let the application do what the guide for its user says with these extras, and no more."""
        least = rights.chosen(extras)
        self.account.rights = {"actions": least.actions, "dataActions": least.data_actions}

    def define_image(self, gallery, name, **properties):
        """Make an image definition; return its id."""
        return self.account.define_image(self.account.group, gallery, name, **properties)

    def staged_file(self):
        """The pages of the only upload that is under way."""
        disks = [file for key, file in self.account.disks.items() if "/disks/" in key]
        (file,) = [*disks, *(file for file, _metadata in self.storage.blobs.values())]
        return file

    def actions(self):
        """The names of all calls so far."""
        return [call["action"] for call in self.record.calls()]

    def targetdata(self, **values):
        """What an application sends for an upload by a managed disk."""
        account = self.account
        return {
            "tenant": account.tenant,
            "application_id": account.application_id,
            "application_key": account.application_key,
            "resource_group": account.group,
            "image_name": "my-image",
            **values,
        }

    def through_storage(self, **values):
        """The same by a page blob."""
        return self.targetdata(storage_account=self.account.storage_account, container=self.account.container, **values)

    def remaining(self):
        """All that is in the cloud."""
        return [*self.account.resources, *self.storage.containers, *self.storage.blobs]
