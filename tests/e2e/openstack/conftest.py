"""A sandbox with a real Keystone and Glance, as at its start for each test."""

from pathlib import Path
from types import MappingProxyType

import pytest
from e2e.cloud_suite import CloudCase
from e2e.sandboxes import Sandbox, running

from clouduploader.sandbox.openstack.cloud import OpenStackCloud
from clouduploader.sandbox.openstack.layout import CLOUD_NAME, OpenStackLayout


class OpenStackCase(CloudCase):
    """See CloudCase; uploads have the credential with the least rights."""

    target = "openstack"
    is_resumable = False  # a PUT can't go on where it broke
    sending = "PUT /v2/images/{image_id}/file"
    login = "POST /v3/auth/tokens"
    refused = MappingProxyType({"action": "GET /v2/images/{image_id}", "status": 403})

    def options(self):
        return [f"--cloud={CLOUD_NAME}", "--region=RegionOne", *self.credential()]

    def credential(self, given=None):
        """Options that give a credential: id and secret, or that with the least rights."""
        described = self.sandbox.description
        given = given or {name: described[f"application_credential_{name}"] for name in ("id", "secret")}
        path = self.sandbox.layout.root / given["id"]
        path.touch(mode=0o600)
        path.write_text(given["secret"])
        return [f"--application-credential-id={given['id']}", f"--application-credential-secret-file={path}"]

    def is_sending(self):
        return bool(self.sandbox.calls("POST /v2/images"))  # a call is recorded when it was answered

    def name_option(self):
        return "--name"

    def images(self):
        return [image["id"] for image in self.all_images() if image["status"] == "active"]

    def others(self):
        account = self.account()
        listed = [image for images in account["images"].values() for image in images]
        images = [image["id"] for image in listed if image["status"] == "active"]
        unfinished = [f"{image['status']} {image['id']}" for image in listed if image["id"] not in images]
        stored = [name for names in account["stored"].values() for name in names if name not in images]
        return [*unfinished, *stored, *(name for names in account["staged"].values() for name in names)]

    def disk(self, result):
        for directory in self.sandbox.description["stores"].values():
            if (path := Path(directory, result)).exists():
                return path.read_bytes()
        raise AssertionError(f"nothing is stored of {result}")

    def firmware(self, result):
        return self.image(result)["hw_firmware_type"]

    def secrets(self):
        described = self.sandbox.description
        return {
            "secret": described["application_credential_secret"],
            "other secret": described["full_credential"]["secret"],
            "password": described["user"]["password"],
        }

    def account(self):
        """What is in the project."""
        return self.sandbox.control("GET", "account")

    def all_images(self):
        return [image for images in self.account()["images"].values() for image in images]

    def image(self, result):
        """An image as Glance shows it."""
        return next(image for image in self.all_images() if image["id"] == result)


@pytest.fixture(scope="package")
def openstack_sandbox():
    with running(Sandbox, OpenStackLayout, OpenStackCloud()) as sandbox:
        yield sandbox


@pytest.fixture
def case(openstack_sandbox):
    openstack_sandbox.reset()
    yield OpenStackCase(openstack_sandbox)
    openstack_sandbox.kill_all()
