"""AWS as the command line, `host` and `init` know it; loads neither moto nor asyncssh."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from clouduploader.errors import UsageError
from clouduploader.sandbox.aws.layout import EBS_ENDPOINT, ENDPOINT, REGIONS, AwsLayout
from clouduploader.sandbox.cloud import CloudOption, Emulator, SandboxCloud, SandboxServices
from clouduploader.sandbox.layout import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwsCloud(SandboxCloud):
    """An emulated AWS.

    Attributes:
        regions: Those with a helper AMI; the first is the one that sandbox.json names.
        wait_factor: What ec2uploadimg's waiting times are multiplied by; 1 leaves them.
    """

    target = "ec2"
    contents = "an AWS account, a customer's role, and a helper instance that the real ec2uploadimg can log in to"
    advice = (
        "Try the following: upload an image; have the service upload one, and job 1; do with job 1 what OBS does.\n"
        "`aws` (from 2.13 on) and boto3 show you the account as a user who may see all."
    )
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

    regions: tuple[str, ...] = dataclasses.field(
        default=("us-east-1", "eu-central-1"),
        metadata={
            "option": CloudOption(
                name="--region",
                metavar="REGION",
                help="Prepare a helper AMI there; can be repeated.",
                choices=REGIONS,
            )
        },
    )
    # 170 s of sleep in an upload become 3.4 s, and no poll gets so dense that it fills the log.
    wait_factor: float = dataclasses.field(
        default=0.02,
        metadata={
            "option": CloudOption(
                name="--wait-factor",
                help="Multiply the waiting times of ec2uploadimg by this; 1 leaves them as they are.",
            )
        },
    )

    def __post_init__(self) -> None:
        """Check the options."""
        unknown = [region for region in self.regions if region not in REGIONS]
        if unknown:
            raise UsageError(f"no such region here: {', '.join(unknown)}", hint=f"Known are: {', '.join(REGIONS)}.")
        if not 0 < self.wait_factor <= 1:
            raise UsageError(
                f"--wait-factor is {self.wait_factor:g}, but must be a number greater than 0 and at most 1",
                hint="See `clouduploader sandbox --help`.",
            )

    def install(self, say: Callable[[str], None]) -> None:
        """Install nothing: all of it comes with the extra `sandbox`."""

    def headline(self, described: Mapping[str, Any]) -> str:
        """Name the endpoint, and how fast ec2uploadimg is."""
        waiting = "are as always" if self.wait_factor == 1 else f"are multiplied by {self.wait_factor:g}"
        return f"{described['endpoint']}; nothing in it is real, and the waiting times of ec2uploadimg {waiting}"

    def facts(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what an upload by hand is told."""
        return {
            "role": described["role_arn"],
            "external id": described["external_id"],
            "region": f"{described['region']} (subnet {described['subnet_id']})",
        }

    def examples(self, layout: Layout) -> Sequence[str]:
        """Return an upload by hand, one by the service, and what OBS does."""
        job = layout.spool / "1"
        return (
            f"clouduploader upload --method ebs-direct --name my-image {layout.sample}",
            "clouduploader list",
            "clouduploader serve 2>serve.log &",
            f"clouduploader submit --wait --method ebs-direct --name my-other-image {layout.sample}",
            f"clouduploader sandbox-user ec2 {job}.file {job}.data {job}.log",
            "aws ec2 describe-images --owners self",
        )

    def describe(self, described: Mapping[str, Any], result: str) -> Mapping[str, str]:
        """Ask as the auditor."""
        import botocore.session

        session = botocore.session.get_session()
        images = session.create_client("ec2", region_name=described["region"]).describe_images(ImageIds=[result])[
            "Images"
        ]
        keys = ("ImageId", "Name", "State", "Architecture", "EnaSupport", "RootDeviceName")
        return {key: str(images[0].get(key)) for key in keys}

    def account_values(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the customer's role."""
        return {"external_id": described["external_id"], "arn": described["role_arn"]}

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

        return AwsEmulator(services, tuple(dict.fromkeys(self.regions)), self.wait_factor)
