"""Compute Engine, as far as images go: strict, and no quicker to say yes than the real one.

Sources: Compute Engine API v1, images and globalOperations; "Requirements for labels"; "Guest OS features".
"""

import asyncio
import datetime
import json
import re
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from clouduploader.sandbox.gce import archive
from clouduploader.sandbox.gce.identity import BUCKET, PROJECT, Identity
from clouduploader.sandbox.gce.refusal import RefusedError

NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
SOURCE = re.compile(r"https://storage\.googleapis\.com/(?P<bucket>[^/]+)/(?P<name>.+)")
MEMBER = re.compile(r"(?:user|group|serviceAccount|domain|principal|principalSet):[^\s]+|allAuthenticatedUsers")
MAX_LABELS = 64
GIB = 1 << 30
LOCATIONS = ("us", "eu", "asia", "europe-west1", "europe-west4", "us-central1", "us-east1", "asia-east1")
FEATURES = (
    *("BARE_METAL_LINUX_COMPATIBLE", "CCA_CAPABLE", "GVNIC", "IDPF", "MULTI_IP_SUBNET", "SEV_CAPABLE"),
    *("SEV_LIVE_MIGRATABLE", "SEV_LIVE_MIGRATABLE_V2", "SEV_SNP_CAPABLE", "SNP_SVSM_CAPABLE"),
    *("SUSPEND_RESUME_COMPATIBLE", "TDX_CAPABLE", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "WINDOWS"),
)
STATES = ("ACTIVE", "DEPRECATED", "OBSOLETE", "DELETED")
PATH = re.compile(
    r"/compute/v1/projects/(?P<project>[^/]+)/global/(?P<collection>images|operations)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<action>\w+))?)?"
)
FILTER = re.compile(r'(?P<key>family|labels\.[a-z0-9_-]+)(?: ?= ?"?(?P<value>[^"]*)"?|(?P<any>:\*))')
KNOWN = (
    *("name", "description", "family", "architecture", "guestOsFeatures", "labels", "licenses", "rawDisk"),
    "storageLocations",
)

Fetch = Callable[[str, Path], Awaitable[bool]]
"""Writes an object of the bucket into a file; false if there is none."""


class Compute:
    """The images of a project.

    Args:
        identity: Who may do what.
        project: Its id.
        bucket: The name of the bucket.
        directory: Holds the disks of the images.
        fetch: See Fetch.
        now: By the cloud's clock.
        api_url: Where this API is, for links.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        project: str,
        bucket: str,
        directory: Path,
        fetch: Fetch,
        now: Callable[[], datetime.datetime],
        api_url: str,
    ) -> None:
        self._identity = identity
        self._project = project
        self._bucket = bucket
        self._directory = directory
        self._fetch = fetch
        self._now = now
        self._url = f"{api_url}/compute/v1/projects/{project}/global"
        self._lock = asyncio.Lock()
        self._requests: dict[str, str] = {}
        self._ends: dict[str, Callable[[], None]] = {}  # what an operation does when it ends
        self._ready_at: dict[str, datetime.datetime] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.image_seconds = 0.0
        self.alignment_bytes = GIB  # of disks; "size in an increment of 1 GB"
        self.page_size = 500  # "maxResults", the default
        self.max_images = 2000  # the usual quota

    def disk(self, name: str) -> Path:
        """Return the file with the disk of an image."""
        return self._directory / f"{name}.raw"

    async def answer(self, request: web.Request, path: str) -> web.Response:
        """Answer a request.

        Raises:
            RefusedError: It is refused.
        """
        self._identity.authenticate(request, "compute")
        found = PATH.fullmatch(path)
        if not found:
            raise RefusedError(404, "notFound", "Not Found")
        if found["project"] != self._project:
            raise RefusedError(404, "notFound", f"The resource 'projects/{found['project']}' was not found")
        await self._advance()
        words = (request.method, found["collection"], bool(found["name"]), found["action"])
        name = urllib.parse.unquote(found["name"] or "")
        body = await request.json() if request.can_read_body else {}
        match words:
            case ("POST", "images", False, None):
                made = await self._insert(body, request.query)
            case ("GET", "images", False, None):
                made = self._list(request.query)
            case ("GET", "images", True, None):
                made = self._get(name)
            case ("DELETE", "images", True, None):
                made = self._delete(name)
            case ("POST", "images", True, "deprecate"):
                made = self._deprecate(name, body)
            case ("GET", "images", True, "getIamPolicy"):
                made = self._get_policy(name)
            case ("POST", "images", True, "setIamPolicy"):
                made = self._set_policy(name, body)
            case ("GET", "operations", True, None):
                made = self._operation(name)
            case _:
                raise RefusedError(404, "notFound", "Not Found")
        return web.json_response(made)

    async def _insert(self, body: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
        request_id = query.get("requestId", "")
        if request_id in self._requests:
            return self.operations[self._requests[request_id]]
        if request_id and (not _is_uuid(request_id) or not uuid.UUID(request_id).int):
            raise _invalid("requestId", request_id)
        name = body.get("name", "")
        self._identity.require(PROJECT, "compute.images.create", self._path(name))
        if body.get("labels"):
            self._identity.require(PROJECT, "compute.images.setLabels", self._path(name))
        _check_image(body)
        if name in self.images:
            raise RefusedError(409, "alreadyExists", f"The resource '{self._path(name)}' already exists")
        if len(self.images) >= self.max_images:
            raise RefusedError(403, "quotaExceeded", f"Quota 'IMAGES' exceeded. Limit: {self.max_images} globally.")
        source = SOURCE.fullmatch(body["rawDisk"]["source"])
        assert source  # noqa: S101 `_check_image` has looked
        self._identity.require(BUCKET, "storage.objects.get", "the Google Cloud Storage object")
        packed = self._directory / f".{name}.tar.gz"
        if source["bucket"] != self._bucket or not await self._fetch(urllib.parse.unquote(source["name"]), packed):
            raise RefusedError(404, "notFound", f"The Google Cloud Storage object '{source[0]}' was not found.")
        operation = self._begin("insert", name)
        if request_id:
            self._requests[request_id] = operation["name"]
        self.images[name] = {
            "kind": "compute#image",
            "id": operation["targetId"],
            "creationTimestamp": operation["insertTime"],
            "selfLink": f"{self._url}/images/{name}",
            "sourceType": "RAW",
            "status": "PENDING",
            "archiveSizeBytes": str(packed.stat().st_size),
            "storageLocations": ["us"],
            **body,
        }
        self.policies[name] = {"version": 1, "etag": uuid.uuid4().hex, "bindings": []}

        def finish() -> None:
            image = self.images.get(name)
            if image is None:
                return
            try:
                size_bytes = archive.unpack(packed, self.disk(name), alignment_bytes=self.alignment_bytes)
                image |= {"status": "READY", "diskSizeGb": str(-(-size_bytes // GIB))}
            except archive.BadArchiveError as exc:
                image["status"] = "FAILED"
                operation["error"] = {"errors": [{"code": "INVALID_ARGUMENT", "message": str(exc)}]}
            finally:
                packed.unlink()

        self._ends[operation["name"]] = finish
        return dict(operation)

    def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        self._identity.require(PROJECT, "compute.images.list", f"projects/{self._project}")
        chosen = list(self.images.values())
        if expression := query.get("filter"):
            asked = FILTER.fullmatch(expression)
            if not asked:
                raise _invalid("filter", expression)
            chosen = [image for image in chosen if _fits(image, asked)]
        start = int(query.get("pageToken", "0"))
        page, rest = chosen[start : start + self.page_size], chosen[start + self.page_size :]
        more = {"nextPageToken": str(start + self.page_size)} if rest else {}
        return {"kind": "compute#imageList", **({"items": page} if page else {}), **more}

    def _get(self, name: str) -> dict[str, Any]:
        self._identity.require(PROJECT, "compute.images.get", self._path(name))
        return self._image(name)

    def _delete(self, name: str) -> dict[str, Any]:
        self._identity.require(PROJECT, "compute.images.delete", self._path(name))
        if self._image(name)["status"] == "PENDING":
            raise RefusedError(400, "resourceNotReady", f"The resource '{self._path(name)}' is not ready")
        operation = self._begin("delete", name)

        def finish() -> None:
            self.images.pop(name, None)
            self.policies.pop(name, None)
            self.disk(name).unlink(missing_ok=True)

        self._ends[operation["name"]] = finish
        return dict(operation)

    def _deprecate(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._identity.require(PROJECT, "compute.images.deprecate", self._path(name))
        image = self._image(name)
        if body.get("state") not in STATES or body.keys() - {"state", "replacement"}:
            raise _invalid("state", str(body.get("state")))
        operation = self._begin("deprecate", name)
        self._ends[operation["name"]] = lambda: image.update(deprecated=body)
        return dict(operation)

    def _get_policy(self, name: str) -> dict[str, Any]:
        self._image(name)
        self._identity.require(PROJECT, "compute.images.getIamPolicy", self._path(name))
        return self.policies[name]

    def _set_policy(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._image(name)
        self._identity.require(PROJECT, "compute.images.setIamPolicy", self._path(name))
        policy = body["policy"]
        if policy.get("etag") not in (None, self.policies[name]["etag"]):
            raise RefusedError(412, "conditionNotMet", "The etag of the policy is not the current one")
        for binding in policy.get("bindings", []):
            if not binding["role"].startswith(("roles/", "projects/", "organizations/")):
                raise _invalid("policy.bindings.role", binding["role"])
            for member in binding["members"]:
                if not MEMBER.fullmatch(member):
                    raise _invalid("policy.bindings.members", member)
        self.policies[name] = {"version": 1, "bindings": policy.get("bindings", []), "etag": uuid.uuid4().hex}
        return self.policies[name]

    def _operation(self, name: str) -> dict[str, Any]:
        self._identity.require(PROJECT, "compute.globalOperations.get", f"projects/{self._project}/operations/{name}")
        if name not in self.operations:
            raise RefusedError(404, "notFound", f"The resource 'operations/{name}' was not found")
        return self.operations[name]

    def _begin(self, kind: str, name: str) -> dict[str, Any]:
        """Begin an operation: it is RUNNING when it is first looked at, and DONE when its time has come."""
        operation_name = f"operation-{uuid.uuid4()}"
        self.operations[operation_name] = operation = {
            "kind": "compute#operation",
            "name": operation_name,
            "operationType": kind,
            "status": "PENDING",
            "insertTime": self._now().isoformat(timespec="milliseconds"),
            "targetId": str(uuid.uuid4().int >> 65),
            "targetLink": f"{self._url}/images/{name}",
            "selfLink": f"{self._url}/operations/{operation_name}",
        }
        seconds = self.image_seconds if kind == "insert" else 0.0
        self._ready_at[operation_name] = self._now() + datetime.timedelta(seconds=seconds)
        return operation

    async def _advance(self) -> None:
        """Let time pass: end what is due, and start what was pending."""
        async with self._lock:
            for name, operation in list(self.operations.items()):
                if operation["status"] == "RUNNING" and self._ready_at[name] <= self._now():
                    await asyncio.to_thread(self._ends.pop(name))
                    operation["status"] = "DONE"
                elif operation["status"] == "PENDING":
                    operation["status"] = "RUNNING"

    def _image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise RefusedError(404, "notFound", f"The resource '{self._path(name)}' was not found")
        return self.images[name]

    def _path(self, name: str) -> str:
        return f"projects/{self._project}/global/images/{name}"


def _check_image(body: Mapping[str, Any]) -> None:
    if unknown := body.keys() - set(KNOWN):
        raise RefusedError(400, "badRequest", f'Invalid JSON payload received. Unknown name "{min(unknown)}"')
    for name in ("name", "family"):
        if (name == "name" or name in body) and not NAME.fullmatch(str(body.get(name))):
            raise _invalid(name, str(body.get(name)))
    if body.get("architecture", "X86_64") not in ("X86_64", "ARM64"):
        raise _invalid("architecture", body["architecture"])
    features = [feature.get("type") for feature in body.get("guestOsFeatures", [])]
    for feature in features:
        if feature not in FEATURES:
            raise _invalid("guestOsFeatures[0].type", feature)
    if body.get("architecture") == "ARM64" and "UEFI_COMPATIBLE" not in features:
        raise RefusedError(400, "invalid", "ARM64 images must have the guest OS feature UEFI_COMPATIBLE.")
    labels = body.get("labels", {})
    if len(labels) > MAX_LABELS:
        raise _invalid("labels", str(len(labels)))
    for key, text in labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(text):
            raise _invalid("labels", json.dumps({key: text}))
    if len(body.get("description", "")) > 2048:
        raise _invalid("description", "")
    locations = body.get("storageLocations", ["us"])
    if len(locations) != 1 or locations[0] not in LOCATIONS:
        raise _invalid("storageLocations", str(locations))
    disk = body.get("rawDisk")
    if not isinstance(disk, dict) or not SOURCE.fullmatch(str(disk.get("source"))):
        raise _invalid("rawDisk.source", str(disk))
    if disk.get("containerType", "TAR") != "TAR":
        raise _invalid("rawDisk.containerType", disk["containerType"])


def _invalid(field: str, value: str) -> RefusedError:
    return RefusedError(400, "invalid", f"Invalid value for field 'resource.{field}': '{value}'.")


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _fits(image: Mapping[str, Any], asked: re.Match[str]) -> bool:
    first, _, label = asked["key"].partition(".")
    found = image.get("labels", {}).get(label) if first == "labels" else image.get("family")
    return found is not None if asked["any"] else found == asked["value"]
