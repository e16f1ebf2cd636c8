"""Where the pages go before there is an image: a page blob in a storage account, or a managed disk.

Each has a name of its own for each upload, with a part that is random: two hosts with the same job do not write into
the same one. It is in the journal before it is used, and a later try of the upload goes on with it.
"""

import contextlib
import secrets
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clouduploader.errors import AbsentError, ClouduploaderError, PlatformReplyError
from clouduploader.model import vhd
from clouduploader.platforms.azure import pages
from clouduploader.platforms.azure.answers import patiently
from clouduploader.platforms.azure.arm import ResourceManager
from clouduploader.platforms.azure.pages import STORAGE_SCOPE, PageFile
from clouduploader.plugin import CloudObject, Context, JsonValue, UploadContext, labels, tokens
from clouduploader.plugin.resources import is_refusal
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from clouduploader.platforms.azure.client import AzureClient

BLOB, CONTAINER, DISK = "page blob", "container", "disk"
ACCESS_SECONDS = 86400  # that a disk's URL is good for: as long as Microsoft's guide takes it for any upload
METADATA_KEY = labels.KEY.replace(":", "_")  # of a blob: they are names of C#
METADATA_JOB = labels.JOB.replace(":", "_")
NEVER_OVERWRITE: Mapping[str, str] = {"If-None-Match": "*"}


@frozen()
class Site:
    """Where all of an upload is to be.

    Attributes:
        group: The id of the resource group.
        location: Of the image.
        tags: Of all that can have some.
    """

    group: str
    location: str
    tags: Mapping[str, str]


class Stage(ABC):
    """What pages are sent to. Its methods block.

    Attributes:
        kind: Of the object.
    """

    kind = ""

    def __init__(self, ctx: UploadContext, site: Site) -> None:
        self._ctx = ctx
        self._client: AzureClient = ctx.client
        self._manager = ResourceManager(ctx)
        self._site = site

    @abstractmethod
    def new_id(self) -> str:
        """Make up the id of a new one."""

    @abstractmethod
    def create(self, thing_id: str, size_bytes: int) -> None:
        """Make one of this id, or find that an earlier request has made it; it is undone if the upload fails."""

    @abstractmethod
    def open(self, thing_id: str, size_bytes: int) -> PageFile | None:
        """Return the pages of one that is there; None if it is not, or is no good any more."""

    @abstractmethod
    def close(self, thing_id: str) -> None:
        """End the writing, so that an image can be made of it."""

    @abstractmethod
    def source(self, thing_id: str) -> dict[str, JsonValue]:
        """Return what names it where a gallery's version is made."""

    @abstractmethod
    def image_source(self, thing_id: str) -> dict[str, JsonValue]:
        """Return what names it where a managed image is made."""


class BlobStage(Stage):
    """A page blob in a storage account.

    Args:
        ctx: The upload.
        site: See Site.
        account: See `storage_account`.
    """

    kind = BLOB

    def __init__(self, ctx: UploadContext, site: Site, account: Mapping[str, Any]) -> None:
        super().__init__(ctx, site)
        self._account_id = str(account["id"])
        self._container_url = container_url(account, ctx.targetdata)

    def new_id(self) -> str:
        """See Stage."""
        return f"{self._container_url}/{unique_name(self._ctx)}.vhd"

    def create(self, thing_id: str, size_bytes: int) -> None:
        """See Stage; the container is made too if it is not there."""
        self._make_container()
        headers = {
            "x-ms-blob-type": "PageBlob",
            "x-ms-blob-content-length": str(size_bytes),
            f"x-ms-meta-{METADATA_KEY}": self._ctx.request.journal.key,
            f"x-ms-meta-{METADATA_JOB}": self._ctx.request.job_name or "",
            **NEVER_OVERWRITE,
        }
        file = self._file(thing_id)

        def put() -> None:
            try:
                file.call("PUT", headers={name: value for name, value in headers.items() if value})
            except PlatformReplyError:
                if file.size_bytes() != size_bytes:  # else the answer to our first request was lost
                    raise

        with creating(self._ctx, CloudObject(BLOB, thing_id)) as made:
            patiently(self._ctx, put, subject="the page blob")
            made()

    def open(self, thing_id: str, size_bytes: int) -> PageFile | None:
        """See Stage."""
        file = self._file(thing_id)
        found = patiently(self._ctx, file.size_bytes, subject="the page blob")
        return file if found == size_bytes else None

    def close(self, thing_id: str) -> None:
        """A blob can be read at any time."""

    def source(self, thing_id: str) -> dict[str, JsonValue]:
        """See Stage."""
        return {"uri": thing_id, "storageAccountId": self._account_id}

    def image_source(self, thing_id: str) -> dict[str, JsonValue]:
        """See Stage."""
        return {"blobUri": thing_id}

    def _make_container(self) -> None:
        name = f"container {self._ctx.targetdata['container']}"
        container = PageFile(self._client, self._container_url, scope=STORAGE_SCOPE, name=name)
        query = {"restype": "container"}

        def put() -> None:
            try:
                container.call("PUT", parameters=query)
            except PlatformReplyError:
                container.call("HEAD", parameters=query)  # it may be there by now: our first answer was lost

        try:
            patiently(self._ctx, lambda: container.call("HEAD", parameters=query), subject=name)
        except AbsentError:
            with creating(self._ctx, CloudObject(CONTAINER, self._container_url)) as made:
                patiently(self._ctx, put, subject=name)
                made()

    def _file(self, thing_id: str) -> PageFile:
        return PageFile(self._client, thing_id, scope=STORAGE_SCOPE, name="the page blob")


class DiskStage(Stage):
    """A managed disk that is made for an upload.

    Args:
        ctx: The upload.
        site: See Site.
        properties: Of the disk: its generation and architecture.
    """

    kind = DISK

    def __init__(self, ctx: UploadContext, site: Site, properties: Mapping[str, JsonValue]) -> None:
        super().__init__(ctx, site)
        self._properties = properties

    def new_id(self) -> str:
        """See Stage."""
        return f"{self._site.group}/providers/Microsoft.Compute/disks/{unique_name(self._ctx)}"

    def create(self, thing_id: str, size_bytes: int) -> None:
        """See Stage."""
        document: dict[str, JsonValue] = {
            "location": self._site.location,
            "sku": {"name": "Standard_LRS"},  # lives for as long as the upload
            "tags": dict(self._site.tags),
            "properties": {
                **self._properties,
                "osType": "Linux",
                "creationData": {"createOption": "Upload", "uploadSizeBytes": size_bytes},
            },
        }
        with creating(self._ctx, CloudObject(DISK, thing_id)) as made:
            self._manager.put(thing_id, document, subject="the disk", accepted=made)

    def open(self, thing_id: str, size_bytes: int) -> PageFile | None:
        """See Stage; an address that an earlier try had is lost with it, so a new one is asked for."""
        found = self._manager.find(thing_id, subject="the disk")
        if found is None or _upload_bytes(found) != size_bytes:
            return None
        addresses = DiskAddresses(self._ctx)
        try:
            addresses.get(thing_id)
        except PlatformReplyError as exc:
            self._ctx.reporter.detail(f"The disk can't be written: {exc.message}")
            return None
        return PageFile(self._client, thing_id, scope=None, name="the disk", addresses=addresses)

    def close(self, thing_id: str) -> None:
        """See Stage; nothing can be written from here on."""
        self._ctx.ensure_ours()
        self._manager.post(f"{thing_id}/endGetAccess", subject="the end of access to the disk")

    def source(self, thing_id: str) -> dict[str, JsonValue]:
        """See Stage."""
        return {"id": thing_id}

    def image_source(self, thing_id: str) -> dict[str, JsonValue]:
        """See Stage."""
        return {"managedDisk": {"id": thing_id}}


class DiskAddresses(tokens.Tokens):
    """The URLs by which disks are written, with a signature that expires; see Tokens."""

    def ask(self, scope: str) -> tuple[str, float]:
        """Ask for the URL of a disk, by its id."""
        wanted: dict[str, JsonValue] = {"access": "Write", "durationInSeconds": ACCESS_SECONDS}
        answer = ResourceManager(self._ctx).post(f"{scope}/beginGetAccess", wanted, subject="access to the disk")
        url = str(answer.get("accessSAS") or answer.get("accessSas") or "")
        if not url.startswith("https://"):
            raise PlatformReplyError("Azure gave no address for the pages of the disk")
        self._ctx.reporter.hide(urllib.parse.urlsplit(url).query)
        return url, ACCESS_SECONDS


@contextlib.contextmanager
def creating(ctx: UploadContext, thing: CloudObject) -> Iterator[Callable[[], None]]:
    """Surround the making of something whose id is ours to choose; see `UploadContext.creating`.

    What a request without an answer may have made is undone like what was made.

    Yields:
        What to call once it is there, or begins to be: what fails after that leaves something to undo.
    """
    is_made = False

    def made() -> None:
        nonlocal is_made
        is_made = True
        ctx.resources.made(thing)

    ctx.resources.asked(thing.kind, thing.region, id=thing.id)
    try:
        yield made
    except BaseException as exc:
        if not is_made and isinstance(exc, ClouduploaderError) and is_refusal(exc):
            ctx.resources.refused(thing.kind, thing.region)
        else:
            ctx.resources.adopt(thing)
        raise


def of_earlier_tries(ctx: UploadContext, kind: str) -> list[CloudObject]:
    """List what earlier tries made or may have made of a kind, the last one first; it need not be there."""
    found: dict[str, None] = {}
    for entry in ctx.request.journal.entries():
        if entry.get("kind") == kind and isinstance(entry.get("id"), str):
            if entry["what"] == "asked":
                found[str(entry["id"])] = None
            elif entry["what"] == "removed":
                found.pop(str(entry["id"]), None)
    return [CloudObject(kind, thing_id) for thing_id in reversed(found)]


def unique_name(ctx: UploadContext) -> str:
    """Make up a name that no other upload has, nor another try of this one."""
    return f"clouduploader-{ctx.request.journal.key}-{secrets.token_hex(4)}"


def storage_account(ctx: Context, group: str) -> Mapping[str, Any]:
    """Return what is known of the target data's storage account: its id, and where its blobs are.

    It need not be in the image's resource group, nor be shown to us: then its address is made from its name.
    """
    name = str(ctx.targetdata["storage_account"])
    path = f"{group}/providers/Microsoft.Storage/storageAccounts/{name}"
    try:
        return ResourceManager(ctx).get(path, subject=f"storage account {name}", needed=("id",))
    except (AbsentError, ClouduploaderError) as exc:
        if not is_refusal(exc):
            raise
        ctx.reporter.detail(f"Going by its name: {exc.message}")
    suffix = ctx.client.cloud.storage_suffix
    return {"id": path, "properties": {"primaryEndpoints": {"blob": f"https://{name}.blob.{suffix}/"}}}


def container_url(account: Mapping[str, Any], targetdata: Mapping[str, JsonValue]) -> str:
    """Return the address of the target data's container."""
    try:
        root = str(account["properties"]["primaryEndpoints"]["blob"]).rstrip("/")
    except (KeyError, TypeError):
        raise PlatformReplyError(
            f"storage account {targetdata['storage_account']} has no address for blobs",
            hint="It must be one of general purpose (StorageV2).",
        ) from None
    if not root.startswith("https://"):
        raise PlatformReplyError(
            f"storage account {targetdata['storage_account']} is at {root}, where others could read the token"
        )
    return f"{root}/{targetdata['container']}"


def blobs(ctx: Context, url: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield address, metadata and time of making of all blobs in a container that uploads may have made."""
    container = PageFile(ctx.client, url, scope=STORAGE_SCOPE, name="the container")
    query = {"restype": "container", "comp": "list", "include": "metadata", "prefix": "clouduploader-"}
    marker = ""
    while True:
        parameters = {**query, **({"marker": marker} if marker else {})}
        response = patiently(ctx, lambda p=parameters: container.call("GET", parameters=p), subject="the container")  # type: ignore[misc]
        answer = pages.parse(response, "the container")
        for blob in answer.iter("Blob"):
            metadata = {item.tag: item.text or "" for item in blob.find("Metadata") or ()}
            yield f"{url}/{blob.findtext('Name')}", metadata, blob.findtext("Properties/Creation-Time") or ""
        marker = answer.findtext("NextMarker") or ""
        if not marker:
            return


def remove_blob(ctx: Context, thing: CloudObject) -> None:
    """Delete a blob, or a container with nothing in it.

    Raises:
        AbsentError: It is not there.
        PlatformReplyError: There is something in it.
    """
    file = PageFile(ctx.client, thing.id, scope=STORAGE_SCOPE, name=f"the {thing.kind}")
    parameters = {}
    if thing.kind == CONTAINER:
        parameters = {"restype": "container"}
        listed = patiently(
            ctx,
            lambda: file.call("GET", parameters={**parameters, "comp": "list", "maxresults": "1"}),
            subject=thing.id,
        )
        if pages.parse(listed, "the container").find("Blobs/Blob") is not None:
            raise PlatformReplyError("there are blobs in it")
    patiently(ctx, lambda: file.call("DELETE", parameters=parameters), subject=f"the {thing.kind}")


def remove_disk(ctx: Context, thing: CloudObject) -> None:
    """Delete a disk; its writing is ended first, for a disk is kept as long as it has an address.

    Raises:
        AbsentError: It is not there.
    """
    manager = ResourceManager(ctx)
    state = manager.get(thing.id, subject="the disk").get("properties", {}).get("diskState")
    if state in ("ActiveUpload", "ActiveSAS"):
        manager.post(f"{thing.id}/endGetAccess", subject="the end of access to the disk")
    manager.delete(thing.id, subject="the disk")


def _upload_bytes(disk: Mapping[str, Any]) -> int | None:
    made = disk.get("properties", {}).get("creationData", {})
    state = disk.get("properties", {}).get("diskState")
    if state not in ("ReadyToUpload", "ActiveUpload") or made.get("createOption") != "Upload":
        return None
    return int(made.get("uploadSizeBytes") or 0)


def file_bytes(disk_bytes: int) -> int:
    """Return the size of a fixed VHD of a disk."""
    return disk_bytes + vhd.FOOTER_BYTES
