"""AWS as `host` and `init` know it; loads neither moto nor asyncssh."""

import dataclasses
from types import MappingProxyType

from clouduploader.sandbox.aws.layout import EBS_ENDPOINT, ENDPOINT, AwsLayout
from clouduploader.sandbox.cloud import Emulator, SandboxCloud, SandboxServices
from clouduploader.sandbox.layout import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwsCloud(SandboxCloud):
    """An emulated AWS.

    Attributes:
        regions: Those with a helper AMI; the first is the one that sandbox.json names.
        wait_factor: What ec2uploadimg's waiting times are multiplied by; 1 leaves them.
    """

    name = "aws"
    # For certificates, and for helper instances.
    programs = MappingProxyType({"openssl": "openssl", "xz": "xz-utils", "tar": "tar"})
    modules = ("moto", "flask", "asyncssh", "ec2imgutils")
    variable_prefixes = ("AWS_", "MOTO_")
    # moto's own settings: verify every signature, no AMIs of other accounts, refuse unknown ids.
    server_environment = MappingProxyType(
        {
            "INITIAL_NO_AUTH_ACTION_COUNT": "0",
            "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
            "MOTO_ENABLE_AMI_VALIDATION": "true",
            "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )

    regions: tuple[str, ...]
    wait_factor: float

    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables that lead the SDK to the endpoints, as the auditor."""
        paths = AwsLayout(layout.root)
        return {
            "AWS_ENDPOINT_URL": ENDPOINT,
            "AWS_ENDPOINT_URL_EBS": EBS_ENDPOINT,
            "AWS_CA_BUNDLE": str(paths.ca),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(paths.auditor / "credentials"),
            "AWS_CONFIG_FILE": str(paths.auditor / "config"),
        }

    def create_emulator(self, services: SandboxServices) -> Emulator:
        """Load moto and create all servers; none listens before the first `reset`."""
        from clouduploader.sandbox.aws.emulator import AwsEmulator

        return AwsEmulator(services, tuple(self.regions), self.wait_factor)
