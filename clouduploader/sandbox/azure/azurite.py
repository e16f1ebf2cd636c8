"""Blobs in Azurite, Microsoft's own emulator of storage accounts, behind the checks that it leaves out.

What it leaves out: rights, and the checksum of a page, for which it refuses the header.
"""

import asyncio
import itertools
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import aiohttp
import multidict
import yarl
from aiohttp import web

from clouduploader.sandbox import installation
from clouduploader.sandbox.azure.account import STORAGE, AzureAccount
from clouduploader.sandbox.azure.layout import AZURITE_PORT, AzureLayout
from clouduploader.sandbox.azure.page_file import PageFile
from clouduploader.sandbox.azure.storage import MAX_BODY_BYTES, Storage, check_page, page_range
from clouduploader.sandbox.foreign_server import ForeignServer
from clouduploader.util.frozen import frozen

PACKAGES = ("azurite@3.35.0",)
URL = f"https://127.0.0.1:{AZURITE_PORT}"
ACCOUNTS = 1000  # how often the sandbox can be reset: each time another one of these is the customer's
KEY = "c2FuZGJveA=="  # of them; it is not used, for tokens let in
API_VERSION = "2021-12-02"
CHECKED = ("x-ms-content-crc64",)  # headers that are checked here


def install(say: installation.Say) -> Path:
    """Install Azurite, unless it is there; return its program."""
    return installation.node_packages("azurite", PACKAGES, say=say) / "node_modules" / ".bin" / "azurite-blob"


class AzuriteStorage(Storage):
    """Answers for one storage account, and for disks; see Storage.

    Args:
        account: Whose they are.
        layout: The sandbox's directory.
    """

    def __init__(self, account: AzureAccount, layout: AzureLayout) -> None:
        super().__init__(account)
        self._layout = layout
        self._numbers = itertools.count()
        self._is_prepared = False

    async def start(self) -> None:
        """Start Azurite."""
        self._layout.azurite.mkdir()
        certificate = self._layout.certificate
        names = ";".join(f"sandbox{number}:{KEY}" for number in range(ACCOUNTS))
        ForeignServer(
            (
                install(lambda _line: None),
                *("--blobHost", "127.0.0.1", "--blobPort", str(AZURITE_PORT), "--location", self._layout.azurite),
                *("--cert", certificate, "--key", certificate, "--oauth", "basic"),
                *("--silent", "--disableTelemetry", "--disableProductStyleUrl", "--skipApiVersionCheck"),
            ),
            port=AZURITE_PORT,
            environment={"PATH": os.environ.get("PATH", os.defpath), "AZURITE_ACCOUNTS": names},
            log=self._layout.azurite_log,
            directory=self._layout.azurite,
        ).await_ready()
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self._layout.ca), limit=0),
            auto_decompress=False,
        )

    def reset(self) -> None:
        """Give the customer another account, with nothing but a container in it."""
        self._account.storage_account = f"sandbox{next(self._numbers)}"
        self._is_prepared = False

    def names(self) -> list[str]:
        """See Storage; in another thread than that of the event loop."""
        return asyncio.run_coroutine_threadsafe(self._names(), self._loop).result()

    async def file(self, url: str) -> PageFile | None:
        """See Storage; a copy."""
        prefix = f"{self._account.blob_endpoint}{self._account.storage_account}/"
        path = url.removeprefix(prefix)
        found = await self._ask("HEAD", path) if url.startswith(prefix) else None
        if found is None or found.status != 200 or found.headers.get("x-ms-blob-type") != "PageBlob":
            return None
        file = PageFile(self._account.new_path(), int(found.headers["Content-Length"]))
        ranges = ElementTree.fromstring((await self._ask("GET", path, {"comp": "pagelist"})).body)  # noqa: S314
        for written in ranges.iter("PageRange"):
            start, end = int(written.findtext("Start", "")), int(written.findtext("End", ""))
            for offset in range(start, end, MAX_BODY_BYTES):
                last = min(end, offset + MAX_BODY_BYTES - 1)
                piece = await self._ask("GET", path, headers={"x-ms-range": f"bytes={offset}-{last}"})
                file.write(offset, piece.body)
        return file

    async def stored(self, request: web.Request, names: list[str]) -> web.Response:
        """See Storage."""
        await self._prepare()
        data = await request.read()
        if request.query.get("comp") == "page" and data:
            start, end = page_range(request.headers)
            check_page(request.headers, data, end - start)
        headers = {
            name: value
            for name, value in request.headers.items()
            if (name.lower().startswith("x-ms-") and name.lower() not in CHECKED) or name == "If-None-Match"
        }
        found = await self._ask(request.method, "/".join(names), dict(request.query), headers, data)
        if request.method == "HEAD" and found.status == 200 and "Content-Length" in found.headers:
            found.headers["x-ms-blob-content-length"] = found.headers["Content-Length"]
        kept = {name: value for name, value in found.headers.items() if name.lower().startswith(("x-ms-", "etag"))}
        return web.Response(
            status=found.status, body=found.body, headers=kept, content_type=found.headers.get("Content-Type") or None
        )

    async def _prepare(self) -> None:
        if not self._is_prepared:
            self._is_prepared = True
            await self._ask("PUT", self._account.container, {"restype": "container"})

    async def _names(self) -> list[str]:
        await self._prepare()
        listed = ElementTree.fromstring((await self._ask("GET", "", {"comp": "list"})).body)  # noqa: S314
        containers = [str(name.text) for name in listed.iterfind("Containers/Container/Name")]
        found = list(containers)
        for container in containers:
            answer = await self._ask("GET", container, {"restype": "container", "comp": "list"})
            blobs = ElementTree.fromstring(answer.body)  # noqa: S314
            found += [f"{container}/{name.text}" for name in blobs.iterfind("Blobs/Blob/Name")]
        return found

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
    ) -> "_Answer":
        """Ask Azurite, with a token of our own: it goes by what is in it."""
        account = self._account
        url = f"{URL}/{account.storage_account}/{path}".rstrip("/")
        own = {"Authorization": f"Bearer {account.issue(STORAGE)}", "x-ms-version": API_VERSION}
        async with self._session.request(
            method,
            yarl.URL(url, encoded=True).with_query(query or {}),
            headers={**own, **(headers or {})},
            data=data if method == "PUT" else None,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        ) as found:
            return _Answer(found.status, multidict.CIMultiDict(found.headers), await found.read())


@frozen()
class _Answer:
    """Of Azurite."""

    status: int
    headers: "multidict.CIMultiDict[str]"
    body: bytes
