"""Page blobs as Azure's Blob service has them: those of a storage account, and the disks that are being uploaded.

Source: Blob service REST API: Put Blob, Put Page, Get Page Ranges, Get Blob, Delete Blob, List Blobs, Create Container,
and "Blob service error codes".
"""

import base64
import email.utils
import re
from collections.abc import Mapping
from xml.sax import saxutils

from aiohttp import web

from clouduploader.sandbox.azure.account import STORAGE, AzureAccount, Refusal
from clouduploader.sandbox.azure.page_file import PAGE_BYTES, PageFile
from clouduploader.sandbox.gateway import Call, HttpFault

MAX_BODY_BYTES = 4 << 20  # of Put Page
MAX_RANGES = 10_000  # of one answer
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
DISK_HOST = "/md-impexp/"
"""How the path of a disk begins; Azure's have hosts of their own, called so."""
_METADATA = "x-ms-meta-"


class Storage:
    """Answers for one storage account, and for disks.

    Args:
        account: Whose they are.
    """

    def __init__(self, account: AzureAccount) -> None:
        self._account = account
        self.containers: set[str] = set()
        self.blobs: dict[str, tuple[PageFile, dict[str, str]]] = {}

    async def start(self) -> None:
        """Start what blobs are in."""

    def reset(self) -> None:
        """Forget all blobs."""
        self.containers, self.blobs = {self._account.container}, {}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        try:
            return await self._answer(request)
        except Refusal as exc:
            return refused(exc.status, exc.code, exc.message)

    def name_call(self, request: web.Request) -> Call:
        """Name what is asked for, in the words of the documentation."""
        return name_call(request)

    def refuse(self, fault: HttpFault, _call: Call) -> web.Response:
        """Make the answer of a fault."""
        return refused(fault.status or 503, fault.code or "ServerBusy", fault.message)

    def names(self) -> list[str]:
        """List all containers, and all blobs with theirs."""
        return [*sorted(self.containers), *sorted(self.blobs)]

    async def file(self, url: str) -> PageFile | None:
        """Return what is in a blob, by its address; None if there is none."""
        prefix = f"{self._account.blob_endpoint}{self._account.storage_account}/"
        found = self.blobs.get(url.removeprefix(prefix)) if url.startswith(prefix) else None
        return found[0] if found else None

    async def _answer(self, request: web.Request) -> web.Response:
        if "x-ms-version" not in request.headers:
            raise Refusal(400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is missing.")
        if request.path.startswith(DISK_HOST):
            return await self._on_disk(request)
        self._account.check_token(request.headers.get("Authorization", ""), STORAGE)
        parts = request.path.split("/", 3)[1:]
        if parts[0] != self._account.storage_account or len(parts) < 2:
            raise Refusal(404, "ResourceNotFound", "The specified resource does not exist.")
        self._check_right(request, parts[1])
        return await self.stored(request, parts[1:])

    def _check_right(self, request: web.Request, container: str) -> None:
        """Check what the application needs for this request."""
        is_data = request.query.get("restype") != "container" or request.query.get("comp") == "list"
        action = {"PUT": "write", "DELETE": "delete"}.get(request.method, "read")
        if is_data:
            self._account.check_right(f"{BLOBS}/{action}", container, kind="dataActions")
        else:
            self._account.check_right(f"{CONTAINERS}/{action}", container)

    async def stored(self, request: web.Request, names: list[str]) -> web.Response:
        """Answer a request that may be made.

        Args:
            request: The request.
            names: Of the container, and of the blob if there is one.
        """
        if request.query.get("restype") == "container":
            return self._on_container(request, names[0])
        return await self._on_blob(request, "/".join(names))

    def _on_container(self, request: web.Request, name: str) -> web.Response:
        is_there = name in self.containers
        if request.method == "PUT":
            if is_there:
                raise Refusal(409, "ContainerAlreadyExists", "The specified container already exists.")
            if not re.fullmatch(r"[a-z0-9](?:-?[a-z0-9]){2,62}", name):
                raise Refusal(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
            self.containers.add(name)
            return web.Response(status=201)
        if not is_there:
            raise Refusal(404, "ContainerNotFound", "The specified container does not exist.")
        if request.method == "DELETE":
            self.containers.discard(name)
            for path in [path for path in self.blobs if path.startswith(f"{name}/")]:
                self.blobs.pop(path)[0].remove()
            return web.Response(status=202)
        if request.query.get("comp") == "list":
            return self._listed(name, request.query)
        return web.Response(status=200)

    def _listed(self, name: str, query: Mapping[str, str]) -> web.Response:
        found = []
        for path, (file, metadata) in sorted(self.blobs.items()):
            blob = path.removeprefix(f"{name}/")
            if blob == path or not blob.startswith(query.get("prefix", "")):
                continue
            created = email.utils.formatdate(file.path.stat().st_mtime, usegmt=True)
            shown = "".join(f"<{key}>{saxutils.escape(value)}</{key}>" for key, value in metadata.items())
            found.append(
                f"<Blob><Name>{saxutils.escape(blob)}</Name><Properties><Creation-Time>{created}</Creation-Time>"
                f"</Properties>{f'<Metadata>{shown}</Metadata>' if query.get('include') == 'metadata' else ''}</Blob>"
            )
        return _xml(f"<EnumerationResults><Blobs>{''.join(found)}</Blobs><NextMarker /></EnumerationResults>")

    async def _on_blob(self, request: web.Request, path: str) -> web.Response:
        if path.partition("/")[0] not in self.containers:
            raise Refusal(404, "ContainerNotFound", "The specified container does not exist.")
        if request.method == "PUT" and "comp" not in request.query:
            return self._put_blob(request, path)
        if path not in self.blobs:
            raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
        if request.method == "DELETE":
            self.blobs.pop(path)[0].remove()
            return web.Response(status=202)
        return await _on_pages(request, self.blobs[path][0])

    def _put_blob(self, request: web.Request, path: str) -> web.Response:
        if request.headers.get("x-ms-blob-type") != "PageBlob":
            raise Refusal(400, "InvalidHeaderValue", "The value for one of the HTTP headers is not correct.")
        size = request.headers.get("x-ms-blob-content-length", "")
        if not size.isdecimal() or int(size) % PAGE_BYTES:
            raise Refusal(400, "InvalidHeaderValue", "The page blob size must be aligned to a 512-byte boundary.")
        if path in self.blobs:
            if request.headers.get("If-None-Match") == "*":
                raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
            self.blobs.pop(path)[0].remove()
        metadata = {
            name[len(_METADATA) :]: value
            for name, value in request.headers.items()
            if name.lower().startswith(_METADATA)
        }
        if any(not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in metadata):
            raise Refusal(400, "InvalidMetadata", "The metadata specified is invalid. It has characters not permitted.")
        self.blobs[path] = (PageFile(self._account.new_path(), int(size)), metadata)
        return web.Response(status=201)

    async def _on_disk(self, request: web.Request) -> web.Response:
        """Answer for a disk: its URL is the key, until access to it is ended."""
        key = self._account.signatures.get(request.query.get("sig", ""))
        if key is None or request.path != f"{DISK_HOST}{key.rpartition('/')[2]}":
            raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        is_pages = request.query.get("comp") in ("page", "pagelist")
        if request.method not in ("GET", "HEAD") and not is_pages:
            raise Refusal(403, "AuthorizationPermissionMismatch", "This request is not authorized.")
        return await _on_pages(request, self._account.disks[key])


async def _on_pages(request: web.Request, file: PageFile) -> web.Response:
    comp = request.query.get("comp")
    if request.method == "HEAD":
        return web.Response(headers={"x-ms-blob-content-length": str(file.size_bytes), "x-ms-blob-type": "PageBlob"})
    if request.method == "GET" and comp == "pagelist":
        return _page_list(file, request.query.get("marker", ""))
    if request.method == "GET":
        offset, end = _range(request, file)
        return web.Response(status=206, body=file.read(offset, end - offset))
    if request.method == "PUT" and comp == "page":
        offset, end = _range(request, file)
        if offset % PAGE_BYTES or end % PAGE_BYTES:
            raise Refusal(400, "InvalidHeaderValue", "The page range specified is not aligned to 512 bytes.")
        data = await request.read()
        if request.headers.get("x-ms-page-write") == "clear" and not data:
            file.clear(offset, end - offset)
        elif request.headers.get("x-ms-page-write") == "update":
            check_page(request.headers, data, end - offset)
            file.write(offset, data)
        else:
            raise Refusal(400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is missing.")
        return web.Response(status=201)
    raise Refusal(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")


def check_page(headers: Mapping[str, str], data: bytes, size: int) -> None:
    """Check the body of Put Page against its range and its checksum.

    Raises:
        Refusal: It is not what the headers say.
    """
    if size > MAX_BODY_BYTES:
        raise Refusal(
            413, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit."
        )
    if len(data) != size:
        raise Refusal(400, "InvalidHeaderValue", "The content length is not that of the range.")
    if checksum := headers.get("x-ms-content-crc64"):
        import anycrc

        found = anycrc.Model("CRC64-NVME").calc(data).to_bytes(8, "little")
        if base64.b64encode(found).decode() != checksum:
            raise Refusal(400, "Crc64Mismatch", "The CRC64 value specified in the request did not match.")


def page_range(headers: Mapping[str, str]) -> tuple[int, int]:
    """Read which bytes a request is about: the first one, and the one behind the last."""
    found = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", headers.get("x-ms-range") or headers.get("Range", ""))
    if found is None:
        raise Refusal(400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is missing.")
    return int(found[1]), int(found[2]) + 1


def _range(request: web.Request, file: PageFile) -> tuple[int, int]:
    offset, end = page_range(request.headers)
    if end <= offset or end > file.size_bytes:
        raise Refusal(416, "InvalidPageRange", "The page range specified is invalid.")
    return offset, end


def _page_list(file: PageFile, marker: str) -> web.Response:
    first = int(marker or 0)
    chosen = file.ranges[first : first + MAX_RANGES]
    ranges = "".join(f"<PageRange><Start>{start}</Start><End>{end - 1}</End></PageRange>" for start, end in chosen)
    following = first + MAX_RANGES
    more = f"<NextMarker>{following}</NextMarker>" if following < len(file.ranges) else ""
    return _xml(f"<PageList>{ranges}{more}</PageList>")


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="utf-8"?>{text}', content_type="application/xml")


def name_call(request: web.Request) -> Call:
    """Name a call to the Blob service, in the words of its documentation; its subject is container or blob."""
    comp, is_container = request.query.get("comp"), request.query.get("restype") == "container"
    names = {
        ("PUT", "page"): "PutPage",
        ("GET", "pagelist"): "GetPageRanges",
        ("GET", "list"): "ListBlobs",
    }
    verbs = {"PUT": "Create" if is_container else "Put", "GET": "Get", "HEAD": "Get", "DELETE": "Delete"}
    suffix = "Properties" if request.method == "HEAD" else ""
    plain = f"{verbs.get(request.method, request.method)}{'Container' if is_container else 'Blob'}{suffix}"
    return Call(names.get((request.method, comp or ""), plain), request.path)


def refused(status: int, code: str, message: str) -> web.Response:
    """Make an error as the Blob service words it."""
    text = f"<Error><Code>{code}</Code><Message>{saxutils.escape(message)}</Message></Error>"
    return web.Response(
        status=status,
        text=f'<?xml version="1.0" encoding="utf-8"?>{text}',
        content_type="application/xml",
        headers={"x-ms-error-code": code},
    )
