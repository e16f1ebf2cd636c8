"""What an upload would do, with all checked that can be checked without changing anything."""

from typing import Any

from clouduploader.errors import ConfigError, TargetDataError
from clouduploader.platform import PlatformContext, Reporter, UploadRequest
from clouduploader.platforms.ec2 import api, credentials, earlier, fields, refusals, regions, tool, upload
from clouduploader.platforms.ec2.credentials import Account
from clouduploader.platforms.ec2.settings import Settings

PUT_DOLLARS = 0.006 / 1000  # a block; "Amazon EBS pricing", EBS direct APIs, PutSnapshotBlock: most regions


def make(context: PlatformContext, settings: Settings, *, request: UploadRequest, reporter: Reporter) -> list[str]:
    """See `Platform.plan`."""
    credentials.check_role(request)
    way = credentials.account(
        context,
        settings,
        targetdata=request.targetdata,
        user=request.user,
        job_name=request.job_name,
        reporter=reporter,
    )
    method = fields.method(request.targetdata, settings)
    if method == "ec2uploadimg":
        return _by_tool(context, settings, request=request, way=way, reporter=reporter)
    steps = direct(request, way, reporter)
    if method == "auto":
        steps.append("if the role may not start a snapshot: do it with ec2uploadimg instead")
    return steps


def _by_tool(
    context: PlatformContext, settings: Settings, *, request: UploadRequest, way: Account, reporter: Reporter
) -> list[str]:
    tool.link_name(request.image)  # refuses what it can't take
    data = request.targetdata
    region = way.region
    helper = regions.helper(context.home, region)
    program = tool.find(settings.ec2uploadimg, context.environment.get("PATH"))
    architecture, boot_mode = upload.look_inside(request, reporter)
    ec2 = way.client("ec2", way.renewing())
    check_helper(ec2, helper.ami, region)
    taken = earlier.image(ec2, request, upload.own_tags(request), architecture=architecture, boot_mode=boot_mode)
    if taken.objects and not taken.is_wreck:
        image_id = taken.objects[0].id
        return [_who(way), f"take {image_id}, which an earlier upload of this image made", *_afterwards(request)]
    if data.get("vpc_subnet_id"):
        check_subnet(ec2, str(data["vpc_subnet_id"]), region)
    unpacked_bytes = request.measure_image()
    wanted = data.get("root_volume_size")
    volume_gib = tool.volume_gib(unpacked_bytes, wanted if isinstance(wanted, int) else None)
    subnet = data.get("vpc_subnet_id")
    return [
        _who(way),
        f"make a security group in the VPC of {subnet}" if subnet else "make a VPC with all that belongs to it",
        f"start a helper instance ({helper.instance_type}, {helper.ami}) in {region}",
        f"upload {request.image.path.name} ({request.image.size_bytes} bytes) with {program.script}",
        f"write {unpacked_bytes} bytes to a volume of {volume_gib} GiB, and make a snapshot of it",
        f"register the AMI '{data['ami_name']}' for {architecture}, boot mode {boot_mode or 'not set'}",
        "remove everything but snapshot and AMI",
        *_afterwards(request),
    ]


def direct(request: UploadRequest, way: Account, reporter: Reporter) -> list[str]:
    """The steps of an upload through the EBS direct APIs.

    Raises:
        ClouduploaderError: See `Platform.plan`.
    """
    from clouduploader.platforms.ec2 import tags
    from clouduploader.platforms.ec2.ebs_direct import register, snapshot, wanted, wire

    data = request.targetdata
    keys = way.renewing()
    ec2 = way.client("ec2", keys)
    aim = wanted.settle(request, reporter)
    key = data.get("kms_key_id")
    key_arn = snapshot.key_arn(str(key), lambda: way.client("kms", keys), way.region) if key else None
    taken = register.named(ec2, str(data["ami_name"]), way.region)
    blocks = -(-aim.size_bytes // wire.BLOCK_BYTES)
    about = "" if aim.is_size_exact else "about "
    with_key = f", encrypted with {key_arn or 'the default key of the account'}"
    is_encrypted = bool(key or data.get("encrypted"))
    verification = {"none": "nothing", "full": "all of them"}.get(str(data.get("verify")), "a sample of them")
    steps = [
        _who(way),
        f"start a snapshot of {aim.volume_gib} GiB in {way.region}{with_key if is_encrypted else ''}",
        f"send {request.image.filename}, {about}{aim.size_bytes} bytes unpacked, as {about}{blocks} blocks at most, "
        f"for {blocks * PUT_DOLLARS:.2f} USD at most",
        f"seal it with the checksum of all blocks, and read back {verification}",
        f"register the AMI '{data['ami_name']}' for {aim.architecture}, boot mode {aim.boot_mode or 'not set'}",
        *_afterwards(request),
    ]
    if taken:
        if not {tags.CONTENT, tags.SHA256} & tags.as_mapping(taken.get("Tags")).keys():
            raise refusals.name_taken(str(taken["ImageId"]))
        steps.insert(1, f"compare with {taken['ImageId']}, which has that name: end there if its content is the same")
    return steps


def _who(way: Account) -> str:
    return f"assume role {way.role_arn}" if way.role_arn else "use your own AWS credentials"


def _afterwards(request: UploadRequest) -> list[str]:
    """The steps once the AMI is there."""
    data = request.targetdata
    regions_, share = (value if isinstance(value, list) else [] for value in (data.get("regions"), data.get("share")))
    steps = [f"copy the AMI to {region}" for region in map(str, regions_)]
    if share:
        steps.append(f"share it with {', '.join(map(str, share))}")
    if data.get("deprecate_at"):
        steps.append(f"have it deprecated from {data['deprecate_at']}")
    return steps


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
