"""Say what an upload would do, having checked all that can be checked without a change."""

from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.platforms.ec2 import ami, aws_errors, compare, fields, image_spec, labels, preflight, replicate
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol, snapshot, verify
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config, upload
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import Cost, JsonValue, Plan, PlatformContext

PUT_USD = 0.006 / 1000  # a block; "Amazon EBS pricing", EBS direct APIs, PutSnapshotBlock: most regions
GET_USD = 0.003 / 1000  # the same, GetSnapshotBlock


def make(context: Ec2Context, platform: PlatformContext) -> Plan:
    """Plan an upload; see `Platform.plan`.

    Args:
        context: The upload.
        platform: What the platform was made from.
    """
    method = fields.method(context.ctx.targetdata, context.settings)
    if method == "ec2uploadimg":
        return _by_helper(context, platform)
    found = direct(context)
    if method == "auto":
        more = "if the role may not start a snapshot: do it with ec2uploadimg instead"
        return Plan((*found.steps, more), found.costs)
    return found


def _by_helper(context: Ec2Context, platform: PlatformContext) -> Plan:
    ctx, region = context.ctx, context.region
    request, data = ctx.request, ctx.targetdata
    command.link_name(request.image)  # refuses what it can't take
    helper = helper_config.helper(platform.home, region)
    program = command.named(context.settings, platform)
    attributes = image_spec.inspect(request, ctx.reporter)
    helper_config.check_ami(ctx, context.ec2, helper.ami, region)
    unpacked_bytes = request.measure_image()
    volume_gib = image_spec.helper_volume_gib(unpacked_bytes, data.get("root_volume_size"))
    tags = upload.own_tags(request)
    found = compare.existing(context, tags, attributes=attributes, unpacked_bytes=unpacked_bytes)
    regions = preflight.check(context, image=found.image)
    costs = _costs(context.settings, regions, unpacked_bytes, is_there=found.image is not None)
    if found.image is not None:
        taking = f"take {found.objects[0].id}, which is already there: an earlier upload of this image made it"
        steps = (_access(context), taking, *_changes(context, found.image, attributes), *_afterwards(data, regions))
        return Plan(steps, costs)
    subnet = data.get("vpc_subnet_id")
    helper_config.check_subnet(ctx, context.ec2)
    steps = (
        _access(context),
        f"make a security group in the VPC of {subnet}" if subnet else "make a VPC with all that belongs to it",
        f"start a helper instance ({helper.instance_type}, {helper.ami}) in {region}",
        f"upload {request.image.path.name} ({request.image.size_bytes} bytes) with {program.script}",
        f"write {unpacked_bytes} bytes to a volume of {volume_gib} GiB, and make a snapshot of it",
        _registration(str(data["ami_name"]), attributes),
        "remove everything but snapshot and AMI",
        *_afterwards(data, regions),
    )
    return Plan(steps, costs)


def direct(context: Ec2Context) -> Plan:
    """Plan an upload through the EBS direct APIs.

    Raises:
        ClouduploaderError: See `Platform.plan`.
    """
    ctx, region = context.ctx, context.region
    data = ctx.targetdata
    spec = image_spec.resolve(ctx.request, ctx.reporter)
    key_arn = snapshot.key_arn(context)
    found = ami.named(ctx, context.account)
    if found and ami.is_failed(found, ctx.request.journal.key):
        found = None
    if found:
        theirs = ami.tags(found)
        if not {labels.CONTENT, labels.SHA256} & theirs.keys():
            raise aws_errors.name_taken(str(found["ImageId"]))
        sizes = image_spec.volume_sizes_of_content(data.get("root_volume_size"), spec, theirs)
        compare.check(context, found, attributes=spec.attributes, volume_gib=sizes, kms_key_arn=key_arn)
    regions = preflight.check(context, image=found)
    blocks = -(-spec.size_bytes // protocol.BLOCK_BYTES)
    about = "" if spec.is_size_exact else "about "
    with_key = f", encrypted with {key_arn or 'the default key of the account'}"
    is_encrypted = bool(key_arn or data.get("encrypted"))
    verification = {"none": "nothing", "full": "all of them"}.get(str(data.get("verify")), "a sample of them")
    read_blocks = {"none": 0, "full": blocks}.get(str(data.get("verify")), min(blocks, verify.SAMPLE_BLOCKS))
    steps = [
        _access(context),
        f"start a snapshot of {spec.volume_gib} GiB in {region}{with_key if is_encrypted else ''}",
        f"send {ctx.request.image.filename}, {about}{spec.size_bytes} bytes unpacked, "
        f"as {about}{blocks} blocks at most",
        f"seal it with the checksum of all blocks, and read back {verification}",
        _registration(str(data["ami_name"]), spec.attributes),
        *_afterwards(data, regions),
    ]
    if found:
        image_id = found["ImageId"]
        steps.insert(
            1, f"compare with {image_id}, which is already there: take it, and send nothing, if it is the same"
        )
        steps[2:2] = _changes(context, found, spec.attributes)
    sending = Cost(f"{blocks} blocks sent, {read_blocks} read back", blocks * PUT_USD + read_blocks * GET_USD)
    return Plan(tuple(steps), (sending, *_costs(context.settings, regions, spec.size_bytes, is_there=False)))


def _access(context: Ec2Context) -> str:
    arn = context.account.role_arn
    return f"assume role {arn}" if arn else "use your own AWS credentials"


def _registration(name: str, attributes: ImageAttributes) -> str:
    return (
        f"register the AMI '{name}' for {attributes.architecture}, boot mode {attributes.boot_mode or 'not set'}, "
        f"IMDS support {attributes.imds_support or 'not set'}"
    )


def _changes(context: Ec2Context, image: Mapping[str, Any], attributes: ImageAttributes) -> list[str]:
    return [f"change its {change}" for change in compare.changes(context, image, attributes)]


def _afterwards(data: Mapping[str, JsonValue], regions: Sequence[str]) -> list[str]:
    """List the steps once the AMI is there."""
    steps = [f"copy the AMI to {region}" for region in regions]
    if isinstance(share := data.get("share"), list) and share:
        steps.append(f"share it with {', '.join(map(str, share))}")
    if opened := replicate.snapshot_shares(data):
        steps.append(f"share its snapshots with {', '.join(opened)}")
    if data.get("deprecate_at"):
        steps.append(f"have it deprecated from {data['deprecate_at']}")
    return steps


def _costs(settings: Ec2Settings, regions: Sequence[str], size_bytes: int, *, is_there: bool) -> tuple[Cost, ...]:
    """Estimate what snapshots and copies cost at most: blocks that are left out are free.

    Args:
        settings: With the prices.
        regions: Of the copies.
        size_bytes: Of the raw disk.
        is_there: Whether the image is already there, so that only its copies are new.
    """
    size_gib = size_bytes / image_spec.GIB
    copies_number = len(regions)
    found = []
    if number := copies_number + (not is_there):
        usd = size_gib * number * settings.snapshot_usd
        what = f"storage of {number} snapshot{'' if number == 1 else 's'} of {size_gib:.2f} GiB"
        found.append(Cost(what, usd, is_monthly=True))
    if copies_number:
        usd = size_gib * copies_number * settings.transfer_usd
        plural = "" if copies_number == 1 else "s"
        found.append(Cost(f"transfer of {size_gib:.2f} GiB to {copies_number} region{plural}", usd))
    return tuple(found)
