"""The emulator of Google's cloud: gcp-storage-emulator, what stands before it, and Compute Engine."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from aiohttp import web
from gcp_storage_emulator.server import create_server

from clouduploader.sandbox import certificates, sealing
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.cloud import Emulator, InitialState, SandboxServices, WsgiApp
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.gateway import Gateway, HttpFault
from clouduploader.sandbox.gce.identity import BUCKET as ON_BUCKET
from clouduploader.sandbox.gce.identity import PROJECT as ON_PROJECT
from clouduploader.sandbox.gce.layout import (
    API_URL,
    BACK_PORT,
    BUCKET,
    EMAIL,
    EMULATOR_PORT,
    PORT,
    PROJECT,
    GceLayout,
)
from clouduploader.sandbox.gce.site import GoogleSite, SiteSettings, name_call, refuse

RIGHTS = {  # what docs/how-to/gce.rst lets the user grant, all of it
    ON_BUCKET: ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"),
    ON_PROJECT: (
        "compute.globalOperations.get",
        "compute.images.create",
        "compute.images.delete",
        "compute.images.deprecate",
        "compute.images.get",
        "compute.images.getIamPolicy",
        "compute.images.list",
        "compute.images.setIamPolicy",
        "compute.images.setLabels",
    ),
}


class GceEmulator(Emulator):
    """One project, and everything that serves it.

    Args:
        services: What the sandbox's server has.
    """

    def __init__(self, services: SandboxServices) -> None:
        self.faults = Faults(HttpFault)
        self._layout = GceLayout(services.layout.root)
        self._clock = services.clock
        self._front = Gateway(services.record, self.faults, refuse)
        unseen = self._layout.root / "behind.jsonl"  # what the gateway has let through
        unseen.touch()
        self._back = Gateway(CallRecord(unseen), Faults(HttpFault), refuse)
        self._server = create_server("127.0.0.1", EMULATOR_PORT, in_memory=True, default_bucket=BUCKET)
        self._server.start()
        self._key, self._public_key = _key_pair()
        self.routes = {
            ("GET", "account"): lambda _: self._contents(),
            ("GET", "image"): lambda body: str(self._site.compute.disk(body["name"])),
            ("POST", "expire"): lambda _: self._site.identity.expire(),
            ("POST", "pace"): self._set_pace,
            ("POST", "quota"): self._set_quota,
            ("POST", "rights"): self._set_rights,
        }

    async def start(self, control: WsgiApp) -> None:
        """Start to serve; see Emulator. Control requests come by the Unix socket alone."""
        certificates.create(self._layout.ca, self._layout.certificate)
        await self._back.serve(BACK_PORT, self._answer, service="behind", name_call=name_call)
        await self._front.serve(
            PORT,
            f"http://127.0.0.1:{BACK_PORT}",
            service="google",
            name_call=name_call,
            certificate=self._layout.certificate,
        )

    def reset(self) -> InitialState:
        """Return to the initial state; see Emulator."""
        shutil.rmtree(self._layout.disks, ignore_errors=True)
        self._layout.disks.mkdir(mode=0o700)
        self._server.wipe(keep_buckets=True)
        settings = SiteSettings(
            project=PROJECT, bucket=BUCKET, email=EMAIL, public_key=self._public_key, api_url=API_URL
        )
        self._site = GoogleSite(
            settings,
            backend=f"http://127.0.0.1:{EMULATOR_PORT}",
            directory=self._layout.disks,
            clock=self._clock,
        )
        self._site.identity.rights = RIGHTS
        key = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "sandbox",
            "private_key": self._key,
            "client_email": EMAIL,
            "token_uri": f"{settings.url('oauth2')}/token",
        }
        _write_secret(self._layout.key, json.dumps(key))
        (self._layout.home / "clouduploader.conf").write_text(f"[gce]\napi_url = {API_URL}\n")
        return InitialState(
            description={
                "api_url": API_URL,
                "project": PROJECT,
                "bucket": BUCKET,
                "service_account": EMAIL,
                "credentials": json.dumps(key),
            },
            target="gce",
            target_data={
                "credentials": sealing.encrypt(self._layout.home, json.dumps(key)),
                "bucket": BUCKET,
                "image_name": "clouduploader-sample",
            },
        )

    async def _answer(self, request: web.Request) -> web.Response:
        return await self._site.answer(request)

    def _contents(self) -> dict[str, Any]:
        """Tell what is in the project."""
        compute = self._site.compute
        return {
            "objects": [one["name"] for one in asyncio.run(self._site.storage.objects())],
            "sessions": self._site.storage.sessions,
            "images": [{**image, "policy": compute.policies[name]} for name, image in compute.images.items()],
        }

    def _set_pace(self, body: dict[str, float]) -> None:
        self._site.compute.image_seconds = body["image_seconds"]

    def _set_quota(self, body: dict[str, int]) -> None:
        self._site.compute.max_images = body["images"]

    def _set_rights(self, body: dict[str, list[str]]) -> None:
        self._site.identity.rights = {ON_BUCKET: body["bucket"], ON_PROJECT: body["project"]}


def _key_pair() -> tuple[str, str]:
    """Make an RSA key; return the private and the public one in PEM."""
    private = _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    return private, _openssl("pkey", "-pubout", text=private)


def _openssl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
