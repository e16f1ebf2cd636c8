"""The clouds that a sandbox can have, by target; the only shared module that imports a cloud's package."""

import dataclasses
import json
from collections.abc import Mapping

from clouduploader.sandbox.aws.cloud import AwsCloud
from clouduploader.sandbox.azure.cloud import AzureCloud
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.gce.cloud import GceCloud
from clouduploader.sandbox.openstack.cloud import OpenStackCloud

DEFAULT_CLOUD: type[SandboxCloud] = AwsCloud
"""What `clouduploader sandbox` starts."""
CLOUDS: Mapping[str, type[SandboxCloud]] = {
    cloud.target: cloud for cloud in (AwsCloud, AzureCloud, GceCloud, OpenStackCloud)
}


def encode(cloud: SandboxCloud) -> str:
    """Write a cloud with its options as one argument of a command line."""
    return json.dumps([cloud.target, dataclasses.asdict(cloud)])  # type: ignore[call-overload]


def decode(argument: str) -> SandboxCloud:
    """Read what `encode` wrote."""
    target, options = json.loads(argument)
    return CLOUDS[target](**options)
