"""A sandbox with Google's cloud, as at its start for each test."""

import json
import os
from pathlib import Path
from types import MappingProxyType

import pytest
from e2e.cloud_suite import CloudCase
from e2e.sandboxes import Sandbox, running

from clouduploader.sandbox.gce.cloud import GceCloud
from clouduploader.sandbox.gce.layout import BUCKET, GceLayout

WITHOUT_HOLES_BYTES = 64 << 20  # so much of a disk is read at least


class GceCase(CloudCase):
    """See CloudCase."""

    target = "gce"
    sending = "objects.upload"
    login = "token"
    large_mib = 40  # of which 30 are noise: four chunks
    refused = MappingProxyType({"action": "images.insert", "code": "forbidden"})

    def options(self):
        return [f"--bucket={BUCKET}", f"--credentials-file={self.sandbox.layout.key}"]

    def name_option(self):
        return "--name"

    def images(self):
        return [image["name"] for image in self.account()["images"] if image["status"] == "READY"]

    def others(self):
        failed = [image["name"] for image in self.account()["images"] if image["status"] != "READY"]
        return [*self.account()["objects"], *failed]

    def disk(self, result):
        path = Path(self.sandbox.control("GET", "image", {"name": result}))
        assert path.stat().st_size % (1 << 30) == 0
        with path.open("rb") as file:
            size_bytes = max(WITHOUT_HOLES_BYTES, end_of_data(file.fileno()))
            file.seek(0)
            return file.read(size_bytes)

    def firmware(self, result):
        features = next(image["guestOsFeatures"] for image in self.account()["images"] if image["name"] == result)
        return "uefi" if {"type": "UEFI_COMPATIBLE"} in features else "bios"

    def secrets(self):
        key = json.loads(self.sandbox.layout.key.read_text())["private_key"]
        lines = key.splitlines()
        return {"key": key, "a line of the key": lines[1], "the same as JSON": json.dumps(key)[1:-1]}

    def account(self):
        return self.sandbox.control("GET", "account")


def end_of_data(descriptor):
    """Where the last byte that is no hole ends."""
    end, size = 0, os.fstat(descriptor).st_size
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # no more data
            return end
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        assert end <= size


@pytest.fixture(scope="package")
def gce_sandbox():
    with running(Sandbox, GceLayout, GceCloud()) as sandbox:
        yield sandbox


@pytest.fixture
def case(gce_sandbox):
    gce_sandbox.reset()
    yield GceCase(gce_sandbox)
    gce_sandbox.kill_all()
