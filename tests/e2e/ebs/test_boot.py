"""An AMI that was made by EBS direct comes up."""

from types import MappingProxyType

import pytest
from e2e.boot_suite import BootSuite
from e2e.cloud_suite import CloudCase


class EbsCase(CloudCase):
    """See CloudCase; as much of it as the boot needs."""

    target = "ec2"
    sending = "PutSnapshotBlock"
    refused = MappingProxyType({"action": "RegisterImage", "code": "Oops"})

    def options(self):
        described = self.sandbox.description
        account = [f"--arn={described['role_arn']}", f"--external-id={described['external_id']}"]
        return ["--method=ebs-direct", f"--region={described['region']}", *account]

    def name_option(self):
        return "--name"

    def images(self):
        return [image["id"] for image in self.sandbox.account()["images"]]

    def others(self):
        return [entry["id"] for found in self.sandbox.account().values() for entry in found]

    def disk(self, result):
        (image,) = [image for image in self.sandbox.account()["images"] if image["id"] == result]
        return self.sandbox.content(image["block_device_mappings"][0]["Ebs"]["SnapshotId"]).read_bytes()

    def firmware(self, result):
        (image,) = [image for image in self.sandbox.account()["images"] if image["id"] == result]
        return {"legacy-bios": "bios", "uefi": "uefi"}[image["boot_mode"]]

    def secrets(self):
        return {"key": self.sandbox.description["obs"]["secret_access_key"]}


@pytest.fixture
def case(sandbox):
    return EbsCase(sandbox)


class TestEbsBoot(BootSuite):
    pass
