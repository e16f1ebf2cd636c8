"""The servers of the cloud in a sandbox, and the gateway before them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from clouduploader.sandbox import certificates, sealing
from clouduploader.sandbox.cloud import Emulator, InitialState, SandboxServices, WsgiApp
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.foreign_server import ForeignServer
from clouduploader.sandbox.gateway import Call, Gateway, HttpFault
from clouduploader.sandbox.openstack import servers, template
from clouduploader.sandbox.openstack.layout import (
    AUTH_URL,
    CLOUD_NAME,
    GLANCE_PORTS,
    GLANCES_BEHIND,
    KEYSTONE,
    KEYSTONE_BEHIND,
    KEYSTONE_PORT,
    OpenStackLayout,
)
from clouduploader.sandbox.openstack.rest import User

MANY = 1000  # Glance, api_limit_max
_IMAGE = re.compile(r"(?P<front>/v2/images/)(?P<id>[0-9a-f-]{36})(?P<rest>/.*)?")


class OpenStackEmulator(Emulator):
    """One project in a cloud of two regions.

    Args:
        services: What the sandbox's server has.
        environment: Where Keystone and Glance are installed, with a template.
    """

    def __init__(self, services: SandboxServices, environment: Path) -> None:
        self.faults = Faults(HttpFault)
        self._layout = OpenStackLayout(services.layout.root)
        self._environment = environment
        self._facts: dict[str, Any] = json.loads((environment / template.NAME / template.FACTS).read_text())
        self._servers: list[ForeignServer] = []
        self._tokens: set[str] = set()
        self._expired: set[str] = set()
        self._user: User | None = None
        self._gateway = Gateway(services.record, self.faults, _refusal)
        self.routes = {
            ("GET", "account"): lambda _: self._account(),
            ("POST", "expire"): lambda _: self._expired.update(self._tokens.copy()),
        }

    async def start(self, control: WsgiApp) -> None:
        """Start to serve; see Emulator. The control channel is not offered here."""
        paths = self._layout
        certificates.create(paths.ca, paths.certificate)
        await self._gateway.serve(
            KEYSTONE_PORT, KEYSTONE, service="identity", name_call=self._call, certificate=paths.certificate
        )
        for region, port in GLANCE_PORTS.items():
            await self._gateway.serve(
                port,
                f"http://127.0.0.1:{GLANCES_BEHIND[region]}",
                service=f"image {region}",
                name_call=self._call,
                certificate=paths.certificate,
            )

    def reset(self) -> InitialState:
        """Return to the initial state; see Emulator."""
        if self._servers:
            self._remove_images()
        else:
            self._servers = [self._start_keystone(), *(self._start_glance(region) for region in GLANCES_BEHIND)]
            for server in self._servers:
                server.await_ready()
        self._write_home()
        known = ("project_id", "other_project_id", "full_credential", "user")
        credential = {f"application_credential_{name}": text for name, text in self._facts["credential"].items()}
        return InitialState(
            description={
                "auth_url": AUTH_URL,
                "regions": list(GLANCE_PORTS),
                "stores": {region: str(self._layout.servers / region / "store") for region in GLANCE_PORTS},
                **{name: self._facts[name] for name in known},
                **credential,
            },
            target="openstack",
            target_data={
                "user_id": 7,
                "cloud": CLOUD_NAME,
                "region": "RegionOne",
                "image_name": "clouduploader-sample",
                **{
                    name: sealing.encrypt(self._layout.home, text) if name.endswith("secret") else text
                    for name, text in credential.items()
                },
            },
        )

    def _start_keystone(self) -> ForeignServer:
        directory = self._layout.servers / "keystone"
        directory.mkdir(mode=0o700, parents=True)
        shutil.copy(self._environment / template.NAME / "keystone.sqlite", directory)
        servers.write_keystone(directory)
        return servers.start_keystone(self._environment, directory, KEYSTONE_BEHIND)

    def _start_glance(self, region: str) -> ForeignServer:
        directory = self._layout.servers / region
        directory.mkdir(mode=0o700, parents=True)
        shutil.copy(self._environment / template.NAME / "glance.sqlite", directory)
        servers.write_glance(
            directory,
            self._environment,
            url=f"https://127.0.0.1:{GLANCE_PORTS[region]}",
            keystone=f"{KEYSTONE}/v3",
            password=self._facts["passwords"]["glance"],
        )
        return servers.start_glance(self._environment, directory, GLANCES_BEHIND[region])

    def _remove_images(self) -> None:
        """Remove all images; to start the servers again would take ten seconds."""
        admin = self._admin()
        for region, port in GLANCES_BEHIND.items():
            for image in admin.call("GET", f"{_images_url(port)}&visibility=all")["images"]:
                admin.call("DELETE", f"http://127.0.0.1:{port}/v2/images/{image['id']}")
            for path in (self._layout.servers / region / "staging").iterdir():
                path.unlink()

    def _write_home(self) -> None:
        """Write the service's clouds.yaml, which opens nothing, and that of the user. JSON is YAML."""
        cloud: dict[str, Any] = {"auth": {"auth_url": AUTH_URL}, "cacert": str(self._layout.ca)}
        (self._layout.home / "clouds.yaml").write_text(json.dumps({"clouds": {CLOUD_NAME: cloud}}, indent=2))
        user = self._facts["user"]
        auth = {
            "auth_url": AUTH_URL,
            "username": user["name"],
            "password": user["password"],
            "project_name": user["project"],
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        self._layout.clouds.touch(mode=0o600)
        own = {**cloud, "auth": auth, "regions": list(GLANCE_PORTS)}
        self._layout.clouds.write_text(json.dumps({"clouds": {CLOUD_NAME: own}}, indent=2))

    def _call(self, request: web.Request) -> Call:
        """Name a call; its token is kept, and one that has expired is refused, as the middleware of Keystone does it.

        Keystone itself revokes no token of a credential with access rules: it finds none (bug of its DELETE).
        """
        if token := request.headers.get("X-Auth-Token"):
            self._tokens.add(token)
        if token in self._expired:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": f"Keystone uri='{AUTH_URL}'"})
        found = _IMAGE.fullmatch(request.path)
        if found is None:
            return Call(f"{request.method} {request.path}")
        return Call(f"{request.method} {found['front']}{{image_id}}{found['rest'] or ''}", found["id"])

    def _account(self) -> dict[str, Any]:
        user = self._user = self._user or User(f"{KEYSTONE}/v3", **self._facts["user"])
        found: dict[str, Any] = {"images": {}, "stored": {}, "staged": {}}
        for region, port in GLANCES_BEHIND.items():
            found["images"][region] = user.call("GET", _images_url(port))["images"]
            for kind, name in (("stored", "store"), ("staged", "staging")):
                found[kind][region] = sorted(path.name for path in (self._layout.servers / region / name).iterdir())
        return found

    def _admin(self) -> User:
        return User(f"{KEYSTONE}/v3", name="admin", password=self._facts["passwords"]["admin"], project="admin")


def _images_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v2/images?limit={MANY}"


def _refusal(fault: HttpFault, call: Call) -> web.Response:
    """Answer as Keystone or Glance would."""
    response = web.Response(status=fault.status or 500)
    status = response.status
    if "/v2/" in call.action:
        text = f"{fault.message}<br /><br />\n\n\n"
        return web.json_response({"message": text, "code": f"{status} {response.reason}"}, status=status)
    error = {"code": status, "message": fault.message, "title": response.reason}
    return web.json_response({"error": error}, status=status)
