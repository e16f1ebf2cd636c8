"""All of Google's cloud at one address: each API below a path of its own name, as the setting api_url has it."""

import re
import urllib.parse
from pathlib import Path

from aiohttp import web

from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.gateway import Call, HttpFault
from clouduploader.sandbox.gce import refusal
from clouduploader.sandbox.gce.compute import Compute
from clouduploader.sandbox.gce.identity import Identity
from clouduploader.sandbox.gce.refusal import RefusedError
from clouduploader.sandbox.gce.storage import StorageGate
from clouduploader.util.frozen import frozen

ACTIONS = (
    (r"POST /oauth2/token", "token"),
    (r"POST /sts/v1/token", "sts.token"),
    (r"POST /storage/upload/.*uploadType=resumable.*", "objects.insert"),
    (r"PUT /storage/upload/.*", "objects.upload"),
    (r"DELETE /storage/upload/.*", "objects.cancel"),
    (r"GET /storage/.*/iam/testPermissions.*", "buckets.testIamPermissions"),
    (r"GET /storage/.*/o/.*", "objects.get"),
    (r"DELETE /storage/.*/o/.*", "objects.delete"),
    (r"GET /storage/.*/o(?:\?.*)?", "objects.list"),
    (r"POST /cloudresourcemanager/.*:testIamPermissions", "projects.testIamPermissions"),
    (r"GET /compute/.*/operations/.*", "globalOperations.get"),
    (r"POST /compute/.*/images(?:\?.*)?", "images.insert"),
    (r"GET /compute/.*/images(?:\?.*)?", "images.list"),
    (r".* /compute/.*/images/[^/]*/(\w+)", "images."),
    (r"GET /compute/.*/images/.*", "images.get"),
    (r"DELETE /compute/.*/images/.*", "images.delete"),
)
"""Method and path of a request, and what Google's documentation calls it; what is in parentheses ends the name."""


@frozen(kw_only=True)
class SiteSettings:
    """What there is.

    Attributes:
        project: The project's id.
        bucket: The bucket's name.
        email: The address of the service account.
        public_key: Its key, in PEM.
        api_url: Where the APIs are; see the platform's setting.
    """

    project: str
    bucket: str
    email: str
    public_key: str
    api_url: str

    def url(self, service: str) -> str:
        """Return where an API is."""
        return self.api_url.replace("{service}", service)


class GoogleSite:
    """Answers for all APIs.

    Args:
        settings: See SiteSettings.
        backend: The URL of gcp-storage-emulator.
        directory: Holds the disks of images.
        clock: The cloud's.

    Attributes:
        identity: Who may do what.
        storage: Cloud Storage.
        compute: Compute Engine.
    """

    def __init__(self, settings: SiteSettings, *, backend: str, directory: Path, clock: CloudClock) -> None:
        self._settings = settings
        self.identity = Identity(
            email=settings.email,
            public_key=settings.public_key,
            now=lambda: clock.now().timestamp(),
        )
        self.storage = StorageGate(self.identity, backend=backend, bucket=settings.bucket)
        self.compute = Compute(
            self.identity,
            project=settings.project,
            bucket=settings.bucket,
            directory=directory,
            fetch=self.storage.save,
            now=clock.now,
            api_url=settings.url("compute"),
        )

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        service, slash, rest = request.rel_url.raw_path.lstrip("/").partition("/")
        path = slash + rest
        try:
            match service:
                case "oauth2" if path == "/token":
                    return self.identity.issue(await request.post())
                case "sts" if path == "/v1/token":
                    return self.identity.exchange(await request.post())
                case "storage":
                    return await self.storage.answer(request, path, self._settings.url("storage"))
                case "compute":
                    return await self.compute.answer(request, path)
                case "cloudresourcemanager" if path == f"/v1/projects/{self._settings.project}:testIamPermissions":
                    self.identity.authenticate(request, "cloudresourcemanager")
                    return self.identity.test_project(await request.read())
        except RefusedError as exc:
            return refusal.response(exc.status, exc.reason, exc.message)
        return refusal.response(404, "notFound", "Not Found")


def name_call(request: web.Request) -> Call:
    """Tell what a request asks for; the key of a session is no part of it."""
    line = f"{request.method} {request.raw_path}"
    subject = urllib.parse.unquote(request.path.rpartition("/")[2])
    for pattern, action in ACTIONS:
        if found := re.fullmatch(pattern, line):
            return Call(action + "".join(found.groups()), subject)
    return Call("unknown", subject)


def refuse(fault: HttpFault, _call: Call) -> web.Response:
    """Make the answer of a fault."""
    status = fault.status or refusal.CODES.get(fault.code or "", 500)
    return refusal.response(status, fault.code or "internalError", fault.message)
