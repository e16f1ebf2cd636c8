"""What an upload would do, with all checked that can be checked without changing anything."""

from typing import Any

from clouduploader.errors import ConfigError, TargetDataError
from clouduploader.platform import PlatformContext, Reporter, UploadRequest
from clouduploader.platforms.ec2 import api, refusals, regions, tool, upload
from clouduploader.platforms.ec2.settings import Settings


def make(context: PlatformContext, settings: Settings, *, request: UploadRequest, reporter: Reporter) -> list[str]:
    """See `Platform.plan`."""
    upload.check_role(request)
    data = request.targetdata
    region = str(data["region"])
    helper = regions.helper(context.home, region)
    program = tool.find(settings.ec2uploadimg, context.environment.get("PATH"))
    architecture = upload.machine(request)
    way = upload.account(
        context,
        settings,
        targetdata=data,
        user=request.user,
        job_name=request.job_name,
        reporter=reporter,
    )
    ec2 = way.client("ec2", way.fresh_keys())
    check_helper(ec2, helper.ami, region)
    check_name(ec2, str(data["ami_name"]), region)
    if data.get("vpc_subnet_id"):
        check_subnet(ec2, str(data["vpc_subnet_id"]), region)
    unpacked_bytes = request.measure_image()
    wanted = data.get("root_volume_size")
    volume_gib = tool.volume_gib(unpacked_bytes, wanted if isinstance(wanted, int) else None)
    subnet = data.get("vpc_subnet_id")
    return [
        f"assume role {way.role_arn}" if way.role_arn else "use your own AWS credentials",
        f"make a security group in the VPC of {subnet}" if subnet else "make a VPC with all that belongs to it",
        f"start a helper instance ({helper.instance_type}, {helper.ami}) in {region}",
        f"upload {request.image.path.name} ({request.image.size_bytes} bytes) with {program.script}",
        f"write {unpacked_bytes} bytes to a volume of {volume_gib} GiB, and make a snapshot of it",
        f"register the AMI '{data['ami_name']}' for {architecture}",
        "remove everything but snapshot and AMI",
    ]


def check_helper(ec2: Any, ami: str, region: str) -> None:  # noqa: ANN401 a client of boto3
    """Look whether the helper's AMI is there.

    Raises:
        ConfigError: It is not.
        ClouduploaderError: AWS refuses to tell.
    """
    with api.translated(f"region {region}"):
        found = ec2.describe_images(ImageIds=[ami])["Images"]
    if not found:
        raise ConfigError(f"the helper AMI {ami} does not exist in {region}", hint="Put another into .ec2utils.conf.")
    if found[0].get("State") != "available":
        raise ConfigError(f"the helper AMI {ami} in {region} is {found[0].get('State')}, not available")


def check_name(ec2: Any, name: str, region: str) -> None:  # noqa: ANN401 a client of boto3
    """Look whether the account has an image of that name.

    Raises:
        PlatformReplyError: It has.
        ClouduploaderError: AWS refuses to tell.
    """
    with api.translated(f"region {region}"):
        images = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
    if images:
        raise refusals.name_taken(images[0]["ImageId"])


def check_subnet(ec2: Any, subnet: str, region: str) -> None:  # noqa: ANN401 a client of boto3
    """Look whether a subnet is there.

    Raises:
        TargetDataError: It is not.
        ClouduploaderError: AWS refuses to tell.
    """
    with api.translated(f"region {region}"):
        found = ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": [subnet]}])["Subnets"]
    if not found:
        raise TargetDataError(f"vpc_subnet_id: there is no {subnet} in {region}")
