"""Azure Resource Manager, with as much of Microsoft.Compute as an upload asks for; refuses what the real one refuses.

Source: the REST reference of Microsoft.Compute (Images, Disks, Galleries), "Track asynchronous Azure operations",
"Naming rules and restrictions for Azure resources". What an operation does is done when it begins; it shows as pending
for `AzureAccount.pace_seconds`, and so does its resource.
"""

import dataclasses
import json
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from clouduploader.sandbox.azure import storage
from clouduploader.sandbox.azure.account import LOCATIONS, AzureAccount, Refusal
from clouduploader.sandbox.azure.page_file import PageFile
from clouduploader.sandbox.gateway import Call, HttpFault

API_VERSIONS = {
    "images": ("2023-03-01", "2023-07-01", "2023-09-01", "2024-03-01", "2024-07-01"),
    "disks": ("2023-04-02", "2023-10-02", "2024-03-02"),
    "galleries": ("2022-08-03", "2023-07-03", "2024-03-03"),
    "storageaccounts": ("2023-01-01", "2023-05-01", "2024-01-01"),
    "permissions": ("2018-07-01", "2022-04-01"),
    "": ("2020-01-01", "2021-04-01", "2022-09-01", "2022-12-01"),
}
MAX_TAGS, MAX_TAG_NAME, MAX_TAG_VALUE = 50, 512, 256
MIN_UPLOAD_BYTES, MAX_UPLOAD_BYTES = 20972032, 35183298347520  # Microsoft.Compute, CreationData, uploadSizeBytes
_NAMES = {
    "images": r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?",
    "disks": r"[A-Za-z0-9_-]{1,80}",
    "versions": r"\d{1,10}\.\d{1,10}\.\d{1,10}",
}
_ID = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/.+", re.IGNORECASE)

CopyBlob = Callable[[str], Awaitable[PageFile | None]]
"""Gives what is in a blob, by its address; None if there is none."""


@dataclasses.dataclass
class Operation:
    """Something that goes on.

    Attributes:
        ends_at: When, by the monotonic clock.
        result: What comes out, where it is asked for by Location.
        error: With what it fails; None if it does not.
    """

    ends_at: float
    result: Mapping[str, Any] | None
    error: Mapping[str, str] | None = None


class ResourceManager:
    """Answers for one subscription.

    Args:
        account: Whose it is.
        copy_blob: See CopyBlob.

    Attributes:
        root: Where it is, without a slash at the end.
        login: Where Entra is.
        disk_root: Where disks can be written.
    """

    def __init__(self, account: AzureAccount, copy_blob: CopyBlob) -> None:
        self._account = account
        self._copy_blob = copy_blob
        self._operations: dict[str, Operation] = {}
        self._busy: dict[str, tuple[float, str]] = {}
        self.root = self.login = self.disk_root = ""

    def reset(self) -> None:
        """Forget all operations."""
        self._operations, self._busy = {}, {}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        try:
            if request.path == "/metadata/endpoints":
                return web.json_response(self._metadata())
            self._account.check_token(request.headers.get("Authorization", ""), self.root)
            return await self._answer(request)
        except Refusal as exc:
            return refused(exc.status, exc.code, exc.message)

    def name_call(self, request: web.Request) -> Call:
        """Name a call by what it works on and its verb, such as `images/PUT`; its subject is the resource's name."""
        parts = request.path.strip("/").split("/")
        if len(parts) <= 6:
            return Call(f"{parts[-2] if len(parts) > 1 else parts[0]}/{request.method}", parts[-1])
        if parts[4] == "providers" and len(parts) % 2:
            return Call(f"{parts[-1]}/{request.method}", parts[-2])
        return Call(f"{parts[-2]}/{request.method}", parts[-1])

    def refuse(self, fault: HttpFault, _call: Call) -> web.Response:
        """Make the answer of a fault."""
        status = fault.status or 429
        return refused(status, fault.code or {429: "TooManyRequests"}.get(status, "InternalServerError"), fault.message)

    def _metadata(self) -> dict[str, Any]:
        return {
            "name": "clouduploader sandbox",
            "resourceManager": self.root,
            "authentication": {"loginEndpoint": self.login, "audiences": [self.root], "tenant": "common"},
            "suffixes": {"storage": "storage.sandbox.invalid"},
        }

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        if found := re.fullmatch(r"/operations/([0-9a-f-]+)(/result)?", path):
            return self._operation(found[1], is_result=bool(found[2]))
        parts = path.strip("/").split("/")
        if parts[0] != "subscriptions":
            raise Refusal(404, "NotFound", "There is no such resource.")
        kind = parts[6].lower() if len(parts) > 6 else ""
        self._check_version(request, kind)
        if len(parts) == 1:
            ids = [self._account.subscription, *self._account.other_subscriptions]
            shown = [{"id": f"/subscriptions/{name}", "subscriptionId": name, "state": "Enabled"} for name in ids]
            return web.json_response({"value": shown})
        if parts[1].lower() != self._account.subscription:
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{parts[1]}' could not be found.")
        return await self._in_subscription(request, parts, kind)

    async def _in_subscription(self, request: web.Request, parts: list[str], kind: str) -> web.Response:
        account = self._account
        group = {"id": account.group_id, "name": account.group, "location": account.location}
        if len(parts) == 3 and parts[2].lower() == "resourcegroups":
            names = [account.group, account.gallery_group, *account.other_groups]
            return web.json_response(
                {"value": [{**group, "id": account.id_of_group(name), "name": name} for name in names]}
            )
        if len(parts) < 4 or parts[2].lower() != "resourcegroups":
            raise Refusal(404, "NotFound", "There is no such resource.")
        if parts[3] in account.other_groups and kind == "permissions":
            return web.json_response({"value": []})
        if parts[3].lower() not in (account.group.lower(), account.gallery_group.lower()):
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{parts[3]}' could not be found.")
        if len(parts) == 4:
            account.check_right("Microsoft.Resources/subscriptions/resourceGroups/read", account.group_id)
            group |= {"id": account.id_of_group(parts[3]), "name": parts[3]}
            return web.json_response({**group, "properties": {"provisioningState": "Succeeded"}})
        if kind == "permissions":
            rights: dict[str, list[str]] = {"notActions": [], "notDataActions": []}
            return web.json_response(
                {"value": [{**{name: list(have) for name, have in account.rights.items()}, **rights}]}
            )
        if kind == "storageaccounts" and len(parts) == 8:
            return self._storage_account(parts[7])
        if kind not in ("images", "disks", "galleries"):
            raise Refusal(400, "InvalidResourceType", f"The resource type '{kind}' could not be found.")
        return await self._in_compute(request, parts)

    def _storage_account(self, name: str) -> web.Response:
        account = self._account
        account.check_right("Microsoft.Storage/storageAccounts/read", account.group_id)
        if name != account.storage_account:
            raise Refusal(
                404, "ResourceNotFound", f"The Resource 'Microsoft.Storage/storageAccounts/{name}' was not found."
            )
        return web.json_response(
            {
                "id": f"{account.group_id}/providers/Microsoft.Storage/storageAccounts/{name}",
                "name": name,
                "kind": "StorageV2",
                "location": account.storage_location,
                "properties": {"primaryEndpoints": {"blob": f"{account.blob_endpoint}{name}/"}},
            }
        )

    async def _in_compute(self, request: web.Request, parts: list[str]) -> web.Response:
        account = self._account
        types, names = parts[6::2], parts[7::2]
        if types[-1] in ("beginGetAccess", "endGetAccess") and request.method == "POST":
            action = f"Microsoft.Compute/disks/{types[-1]}/action"
            account.check_right(action, account.group_id)
            return self._access(await _document(request), "/".join(["", *parts[:-1]]), is_begin=types[-1][0] == "b")
        kind = "/".join(types)
        verb = {"PUT": "write", "DELETE": "delete", "GET": "read"}.get(request.method)
        if verb is None:
            raise Refusal(405, "MethodNotAllowed", "The method is not allowed here.")
        account.check_right(f"Microsoft.Compute/{kind}/{verb}", account.group_id)
        prefix = "/".join(["", *parts]).lower()
        if len(types) > len(names):
            found = [
                self._shown(key)
                for key in sorted(account.resources)
                if key.startswith(f"{prefix}/") and "/" not in key[len(prefix) + 1 :]
            ]
            return web.json_response({"value": found})
        if request.method == "GET":
            return web.json_response(self._shown(prefix, expand=request.query.get("$expand", "")))
        if request.method == "DELETE":
            return self._delete(prefix)
        makers = {"images": self._put_image, "disks": self._put_disk, "galleries/images/versions": self._put_version}
        if kind not in makers:
            raise Refusal(405, "MethodNotAllowed", "The sandbox makes no such resource.")
        with_name = _NAMES[types[-1]]
        if not re.fullmatch(with_name, names[-1]):
            raise Refusal(400, "InvalidParameter", f"The entity name '{names[-1]}' is invalid. Regex: '{with_name}'.")
        document = await _document(request)
        _check_common(document)
        return await makers[kind]("/".join(["", *parts]), document)

    def _shown(self, key: str, *, expand: str = "") -> dict[str, Any]:
        """Return a resource as it shows: it is not ready before its operation is.

        Raises:
            Refusal: There is none.
        """
        found = self._account.resources.get(key) or self._account.definitions.get(key)
        if found is None:
            *_, kind, name = key.split("/")
            raise Refusal(404, "ResourceNotFound", f"The Resource 'Microsoft.Compute/{kind}/{name}' was not found.")
        properties = dict(found["properties"])
        ends_at, state = self._busy.get(key, (0.0, ""))
        if time.monotonic() < ends_at:
            properties["provisioningState"] = state
        if expand == "ReplicationStatus" and "publishingProfile" in properties:
            regions = properties["publishingProfile"]["targetRegions"]
            summary = [{"region": region["name"], "state": "Completed", "progress": 100} for region in regions]
            properties["replicationStatus"] = {"aggregatedState": "Completed", "summary": summary}
        return {**found, "properties": properties}

    async def _put_image(self, path: str, document: dict[str, Any]) -> web.Response:
        properties = _object(document, "properties")
        generation = properties.get("hyperVGeneration")
        if generation not in ("V1", "V2"):
            raise _missing("properties.hyperVGeneration")
        disk = _object(_object(properties, "storageProfile"), "osDisk")
        if disk.get("osType") not in ("Linux", "Windows"):
            raise _missing("osDisk.osType")
        if disk.get("osState") not in ("Generalized", "Specialized"):
            raise _missing("osDisk.osState")
        images = [key for key in self._account.resources if "/providers/microsoft.compute/images/" in key]
        if path.lower() not in self._account.resources and len(images) >= self._account.image_quota:
            raise Refusal(409, "QuotaExceeded", "Creating the image would exceed the quota of images.")
        source = disk.get("managedDisk") and {"id": _object(disk, "managedDisk").get("id")}
        return await self._made(path, document, source or {"uri": disk.get("blobUri")}, generation)

    async def _put_version(self, path: str, document: dict[str, Any]) -> web.Response:
        definition = self._account.definitions.get(path.rpartition("/versions/")[0].lower())
        if definition is None:
            raise Refusal(404, "ResourceNotFound", "The gallery image definition was not found.")
        properties = _object(document, "properties")
        profile = _object(properties, "publishingProfile")
        regions = [str(region.get("name")).replace(" ", "").lower() for region in profile.get("targetRegions", [])]
        unknown = [name for name in regions if name not in LOCATIONS]
        if unknown:
            raise Refusal(400, "InvalidParameter", f"The region '{unknown[0]}' is not valid.")
        if document["location"] not in regions:
            raise Refusal(400, "InvalidParameter", "The location of the version must be one of its target regions.")
        source = _object(_object(_object(properties, "storageProfile"), "osDiskImage"), "source")
        if "uri" in source and not source.get("storageAccountId"):
            raise _missing("osDiskImage.source.storageAccountId")
        return await self._made(path, document, source, definition["properties"].get("hyperVGeneration", "V1"))

    async def _made(
        self, path: str, document: dict[str, Any], source: Mapping[str, Any], generation: str
    ) -> web.Response:
        """Make an image or a version of a disk or of a blob."""
        key = path.lower()
        is_new = key not in self._account.resources
        if not is_new and "publishingProfile" in document["properties"]:  # its disk need not be there any more
            return self._changed(path, document)
        file, its_generation = await self._source(document, source)
        if not is_new:
            _check_unchanged(self._account.resources[key]["properties"], document["properties"])
        if its_generation not in (None, generation):
            raise Refusal(
                400, "InvalidParameter", f"The disk is of generation {its_generation}, the image {generation}."
            )
        if problem := file.vhd_problem():  # found when the content is looked at, after the request was accepted
            error = {"code": "InvalidVhd", "message": problem}
            return self._accepted(path, document, "Creating", status=201 if is_new else 200, error=error)
        if is_new:
            self._account.disks[key] = self._copied(file)
        properties = json.loads(json.dumps(document["properties"]))
        profile = properties["storageProfile"]
        for disk in (profile.get("osDisk"), profile.get("osDiskImage")):
            if disk is not None:
                disk["diskSizeGB" if "osState" in disk else "sizeInGB"] = -(-file.size_bytes // (1 << 30))
        return self._accepted(path, {**document, "properties": properties}, "Creating", status=201 if is_new else 200)

    def _changed(self, path: str, document: dict[str, Any]) -> web.Response:
        """Publish a version in other regions; what it was made of stays."""
        existing = self._account.resources[path.lower()]["properties"]
        _check_unchanged(existing, document["properties"])
        properties = {**document["properties"], "storageProfile": existing["storageProfile"]}
        return self._accepted(path, {**document, "properties": properties}, "Updating", status=200)

    async def _source(self, document: Mapping[str, Any], source: Mapping[str, Any]) -> tuple[PageFile, str | None]:
        """Return the content that an image is made of, and its generation."""
        if source.get("id"):
            key = str(source["id"]).lower()
            disk = self._account.resources.get(key)
            if disk is None:
                raise Refusal(404, "NotFound", f"Resource '{source['id']}' not found.")
            if disk["properties"]["diskState"] != "Unattached":
                raise Refusal(409, "OperationNotAllowed", f"Disk is in state {disk['properties']['diskState']}.")
            if disk["location"] != document["location"]:
                raise Refusal(400, "InvalidParameter", "The disk is in another location.")
            return self._account.disks[key], disk["properties"]["hyperVGeneration"]
        if not source.get("uri"):
            raise _missing("the source of the disk")
        if document["location"] != self._account.storage_location:
            raise Refusal(400, "InvalidParameter", "The storage account of the blob is in another location.")
        file = await self._copy_blob(str(source["uri"]))
        if file is None:
            raise Refusal(400, "InvalidParameter", f"Disk image uri {source['uri']} is not a valid page blob.")
        return file, None

    def _copied(self, file: PageFile) -> PageFile:
        copy = PageFile(self._account.new_path(), file.size_bytes)
        for start, end in file.ranges:
            for offset in range(start, end, 1 << 20):
                copy.write(offset, file.read(offset, min(1 << 20, end - offset)))
        return copy

    async def _put_disk(self, path: str, document: dict[str, Any]) -> web.Response:
        properties = _object(document, "properties")
        creation = _object(properties, "creationData")
        if creation.get("createOption") != "Upload":
            raise Refusal(400, "InvalidParameter", "The sandbox makes disks for uploads only.")
        size = creation.get("uploadSizeBytes")
        if not isinstance(size, int) or not MIN_UPLOAD_BYTES <= size <= MAX_UPLOAD_BYTES or (size - 512) % (1 << 20):
            raise Refusal(400, "InvalidParameter", f"The value '{size}' of parameter uploadSizeBytes is out of range.")
        if properties.get("hyperVGeneration") not in ("V1", "V2"):
            raise _missing("properties.hyperVGeneration")
        key = path.lower()
        existing = self._account.resources.get(key)
        if existing is None:
            self._account.disks[key] = PageFile(self._account.new_path(), size)
        elif existing["properties"]["creationData"] != creation:
            raise Refusal(409, "PropertyChangeNotAllowed", "Changing property 'creationData' is not allowed.")
        state = existing["properties"]["diskState"] if existing else "ReadyToUpload"
        made = {**properties, "diskState": state, "timeCreated": self._account.now().isoformat()}
        return self._accepted(path, {**document, "properties": made}, "Updating", status=202)

    def _access(self, document: Mapping[str, Any], path: str, *, is_begin: bool) -> web.Response:
        key = path.lower()
        properties = self._shown(key)["properties"]
        stored = self._account.resources[key]["properties"]
        state = properties["diskState"]
        for signature in [text for text, disk in self._account.signatures.items() if disk == key]:
            del self._account.signatures[signature]
        if not is_begin:
            if state == "ActiveUpload":
                stored["diskState"] = "Unattached"
            return self._started(None)
        if document.get("access") != "Write" or not isinstance(document.get("durationInSeconds"), int):
            raise _missing("access and durationInSeconds")
        if state not in ("ReadyToUpload", "ActiveUpload"):
            raise Refusal(
                409, "OperationNotAllowed", f"Write access is not allowed while the disk is in state {state}."
            )
        stored["diskState"] = "ActiveUpload"
        signature = secrets.token_urlsafe(32)
        self._account.signatures[signature] = key
        url = f"{self.disk_root}{storage.DISK_HOST}{key.rpartition('/')[2]}?sv=2018-03-28&sr=b&sig={signature}"
        return self._started({"accessSAS": url})

    def _delete(self, key: str) -> web.Response:
        resource = self._account.resources.get(key)
        if resource is None:
            return web.Response(status=204)
        if resource["properties"].get("diskState") == "ActiveUpload":
            raise Refusal(409, "OperationNotAllowed", "The disk has active access; end it before the disk is deleted.")
        del self._account.resources[key]
        if key in self._account.disks:
            self._account.disks.pop(key).remove()
        return self._started(None)

    def _accepted(
        self, path: str, document: dict[str, Any], state: str, *, status: int, error: Mapping[str, str] | None = None
    ) -> web.Response:
        """Store a resource, and begin the operation that makes it."""
        key = path.lower()
        outcome = "Failed" if error else "Succeeded"
        properties = {**document["properties"], "provisioningState": outcome}
        self._account.resources[key] = {
            **document,
            "id": path,
            "name": path.rpartition("/")[2],
            "properties": properties,
        }
        self._busy[key] = (time.monotonic() + self._account.pace_seconds, state)
        return self._started(self._shown(key), status=status, error=error)

    def _started(
        self, result: Mapping[str, Any] | None, *, status: int = 202, error: Mapping[str, str] | None = None
    ) -> web.Response:
        number = str(uuid.uuid4())
        self._operations[number] = Operation(time.monotonic() + self._account.pace_seconds, result, error)
        url = f"{self.root}/operations/{number}"
        headers = {"Azure-AsyncOperation": f"{url}?api-version=2024-07-01"}
        if status == 202 and result is not None:
            headers["Location"] = f"{url}/result?api-version=2024-07-01"
        return (
            web.json_response(result, status=status, headers=headers)
            if status < 202
            else web.Response(status=status, headers=headers)
        )

    def _operation(self, number: str, *, is_result: bool) -> web.Response:
        operation = self._operations.get(number)
        if operation is None:
            raise Refusal(404, "OperationNotFound", "The operation was not found.")
        is_pending = time.monotonic() < operation.ends_at
        if is_result:
            return web.Response(status=202) if is_pending else web.json_response(operation.result)
        state = "InProgress" if is_pending else "Failed" if operation.error else "Succeeded"
        error = {"error": dict(operation.error)} if operation.error and not is_pending else {}
        return web.json_response({"name": number, "status": state, **error})

    def _check_version(self, request: web.Request, kind: str) -> None:
        version = request.query.get("api-version")
        if not version:
            words = "The api-version query parameter (?api-version=) is required for all requests."
            raise Refusal(400, "MissingApiVersionParameter", words)
        if version not in API_VERSIONS.get(kind, ()):
            words = f"No registered resource provider found for type '{kind}' and API version '{version}'."
            raise Refusal(400, "NoRegisteredProviderFound", words)


def refused(status: int, code: str, message: str) -> web.Response:
    """Make an error as Resource Manager words it."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


async def _document(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.read() or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "InvalidRequestContent", "The request content was invalid and could not be deserialized.")
    return found


def _check_common(document: Mapping[str, Any]) -> None:
    """Check location and tags."""
    location = document.get("location")
    if not location:
        raise Refusal(400, "LocationRequired", "The location property is required for this definition.")
    if location not in LOCATIONS:
        raise Refusal(
            400, "LocationNotAvailableForResourceType", f"The provided location '{location}' is not available."
        )
    tags = document.get("tags", {})
    if not isinstance(tags, dict) or len(tags) > MAX_TAGS:
        raise Refusal(400, "InvalidTags", f"A resource has at most {MAX_TAGS} tags.")
    for name, value in tags.items():
        if not 0 < len(name) <= MAX_TAG_NAME or re.search(r"[<>%&\\?/\x00-\x1f]", name):
            raise Refusal(400, "InvalidTagNameCharacters", f"The tag name '{name}' has reserved characters.")
        if not isinstance(value, str) or len(value) > MAX_TAG_VALUE:
            raise Refusal(400, "InvalidTagValue", f"The value of tag '{name}' is longer than {MAX_TAG_VALUE}.")
    unknown = document.keys() - {"location", "tags", "properties", "sku", "zones", "extendedLocation"}
    if unknown:
        raise Refusal(
            400, "InvalidRequestContent", f"Could not find member '{min(unknown)}' on object of the resource."
        )


def _check_unchanged(properties: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to make something that is there already of another disk."""
    for name, disk in wanted["storageProfile"].items():
        if not disk.items() <= properties["storageProfile"][name].items():
            raise Refusal(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.")


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise _missing(name)
    return found


def _missing(name: str) -> Refusal:
    return Refusal(400, "InvalidParameter", f"Required parameter '{name}' is missing (null) or wrong.")
