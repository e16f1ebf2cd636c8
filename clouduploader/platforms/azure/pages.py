"""The pages of a page blob, or of a managed disk that is being uploaded, which is written like one.

Source: Blob service REST API: Put Page, Get Page Ranges, Get Blob, Put Blob.
"""

import base64
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import AbsentError, DeniedError, PlatformReplyError, TransientError
from clouduploader.plugin.http import Answer
from clouduploader.plugin.tokens import Tokens

if TYPE_CHECKING:
    from clouduploader.platforms.azure.client import AzureClient

PAGE_BYTES = 4 << 20  # the most that Put Page takes
STORAGE_SCOPE = "https://storage.azure.com/.default"  # of all clouds ("Authorize access to blobs with Entra ID")
API_VERSION = "2021-12-02"  # that of all of Microsoft's clouds
_PARSE = ElementTree.fromstring


class PageFile:
    """One page blob. Its methods may be called by several threads, and make one request each.

    Args:
        client: Makes them.
        url: Of the blob; the id of a disk.
        scope: What the token is for; None for a disk.
        name: For messages.
        addresses: Gives the URL of a disk, which holds a signature and expires; None for a blob.
    """

    def __init__(
        self, client: "AzureClient", url: str, *, scope: str | None, name: str, addresses: Tokens | None = None
    ) -> None:
        self._client = client
        self._url = url
        self._scope = scope
        self._name = name
        self._addresses = addresses

    def size_bytes(self) -> int | None:
        """Return its size; None if it is not there."""
        try:
            return int(self.call("HEAD").header("x-ms-blob-content-length") or 0)
        except AbsentError:
            return None

    def put(self, offset: int, data: bytes) -> None:
        """Write whole pages of 512 bytes, with a checksum that the service compares."""
        headers = {
            "x-ms-page-write": "update",
            "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}",
            "x-ms-content-crc64": base64.b64encode(self._client.crc64(data).to_bytes(8, "little")).decode(),
        }
        self.call("PUT", parameters={"comp": "page"}, headers=headers, data=data)

    def clear(self, offset: int, size: int) -> None:
        """Make pages zeros, as they were when the blob was new."""
        headers = {"x-ms-page-write": "clear", "x-ms-range": f"bytes={offset}-{offset + size - 1}"}
        self.call("PUT", parameters={"comp": "page"}, headers=headers)

    def read(self, offset: int, size: int) -> bytes:
        """Read so many bytes.

        Raises:
            TransientError: Fewer came.
        """
        data = self.call("GET", headers={"x-ms-range": f"bytes={offset}-{offset + size - 1}"}).data
        if len(data) != size:
            raise TransientError(f"{self._name} was not read whole: {len(data)} bytes of {size} at byte {offset}")
        return data

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield where something was written, in ascending order: the first byte, and the one behind the last."""
        marker = ""
        while True:
            parameters = {"comp": "pagelist", **({"marker": marker} if marker else {})}
            answer = parse(self.call("GET", parameters=parameters), self._name)
            for found in answer.iter("PageRange"):
                yield int(found.findtext("Start", "0")), int(found.findtext("End", "-1")) + 1
            marker = answer.findtext("NextMarker") or ""
            if not marker:
                return

    def call(
        self,
        method: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        """Make a request to the blob, the container or the disk.

        Raises:
            TransientError: The address of the disk has expired; the next request gets another one.
        """
        url = self._addresses.get(self._url) if self._addresses else self._url
        try:
            answer = self._client.call(
                method,
                url,
                scope=self._scope,
                subject=self._name,
                parameters=parameters,
                headers={"x-ms-version": API_VERSION, **(headers or {})},
                data=b"" if method == "PUT" and data is None else data,
            )
        except DeniedError as exc:
            if self._addresses and self._addresses.refused(url):
                raise TransientError(f"{self._name}: its address has expired") from exc
            raise
        if self._addresses:
            self._addresses.accepted(url)
        return answer


def parse(response: Answer, subject: str) -> ElementTree.Element:
    """Read an answer that is XML.

    Raises:
        PlatformReplyError: It is something else.
    """
    try:
        return _PARSE(response.data)
    except ElementTree.ParseError:
        raise PlatformReplyError(f"{subject}: the answer is no XML") from None
