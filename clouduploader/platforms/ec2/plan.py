"""What an upload would do, with all checked that can be checked without changing anything."""

from collections.abc import Mapping
from typing import Any

from clouduploader.platforms.ec2 import auth, aws_errors, fields, image_spec, labels, preflight, replicate
from clouduploader.platforms.ec2.ami import compare, find
from clouduploader.platforms.ec2.auth import RoleRequest
from clouduploader.platforms.ec2.ebs import protocol, snapshot, verify
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config, upload
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import Cost, JsonValue, Plan, PlatformContext, Reporter, UploadRequest
from clouduploader.util.cancel import Cancel

PUT_USD = 0.006 / 1000  # a block; "Amazon EBS pricing", EBS direct APIs, PutSnapshotBlock: most regions
GET_USD = 0.003 / 1000  # the same, GetSnapshotBlock


def make(
    context: PlatformContext, settings: Ec2Settings, *, request: UploadRequest, reporter: Reporter, cancel: Cancel
) -> Plan:
    """See `Platform.plan`."""
    auth.check_role(request)
    way = auth.account(
        context,
        settings,
        targetdata=request.targetdata,
        user=request.user,
        job_name=request.job_name,
        reporter=reporter,
        cancel=cancel,
    )
    method = fields.method(request.targetdata, settings)
    if method == "ec2uploadimg":
        return _by_tool(context, settings, request=request, way=way, reporter=reporter, cancel=cancel)
    found = direct(request, way, reporter, settings)
    if method == "auto":
        more = "if the role may not start a snapshot: do it with ec2uploadimg instead"
        return Plan((*found.steps, more), found.costs)
    return found


def _by_tool(
    context: PlatformContext,
    settings: Ec2Settings,
    *,
    request: UploadRequest,
    way: RoleRequest,
    reporter: Reporter,
    cancel: Cancel,
) -> Plan:
    command.link_name(request.image)  # refuses what it can't take
    data = request.targetdata
    region = way.region
    helper = helper_config.helper(context.home, region)
    program = command.named(settings, context)
    aim = image_spec.inspect(request, reporter)
    ec2 = way.client("ec2", way.renewing())
    helper_config.check_ami(ec2, helper.ami, region)
    unpacked_bytes = request.measure_image()
    volume_gib = image_spec.helper_volume_gib(unpacked_bytes, data.get("root_volume_size"))
    found = compare.existing(
        ec2,
        request,
        upload.own_tags(request),
        attributes=aim,
        unpacked_bytes=unpacked_bytes,
        reporter=reporter,
        cancel=cancel,
    )
    settled = preflight.settle(way, data, image=found.image, reporter=reporter)
    costs = _costs(settings, settled, unpacked_bytes, is_there=found.image is not None)
    if found.image is not None:
        taking = f"take {found.objects[0].id}, which is already there: an earlier upload of this image made it"
        return Plan((_who(way), taking, *_changes(found.image, request, aim), *_afterwards(settled)), costs)
    if data.get("vpc_subnet_id"):
        helper_config.check_subnet(ec2, str(data["vpc_subnet_id"]), region)
    subnet = data.get("vpc_subnet_id")
    steps = (
        _who(way),
        f"make a security group in the VPC of {subnet}" if subnet else "make a VPC with all that belongs to it",
        f"start a helper instance ({helper.instance_type}, {helper.ami}) in {region}",
        f"upload {request.image.path.name} ({request.image.size_bytes} bytes) with {program.script}",
        f"write {unpacked_bytes} bytes to a volume of {volume_gib} GiB, and make a snapshot of it",
        _registration(str(data["ami_name"]), aim),
        "remove everything but snapshot and AMI",
        *_afterwards(settled),
    )
    return Plan(steps, costs)


def direct(request: UploadRequest, way: RoleRequest, reporter: Reporter, settings: Ec2Settings) -> Plan:
    """What an upload through the EBS direct APIs would do.

    Raises:
        ClouduploaderError: See `Platform.plan`.
    """
    data = request.targetdata
    keys = way.renewing()
    ec2 = way.client("ec2", keys)
    aim = image_spec.resolve(request, reporter)
    key = data.get("kms_key_id")
    key_arn = snapshot.key_arn(str(key), lambda: way.client("kms", keys), way.region) if key else None
    found = find.named(ec2, str(data["ami_name"]), way.region)
    if found and find.is_failed(found, request.journal.key):
        found = None
    theirs = labels.as_mapping(found.get("Tags")) if found else {}
    if found:
        if not {labels.CONTENT, labels.SHA256} & theirs.keys():
            raise aws_errors.name_taken(str(found["ImageId"]))
        compare.check(
            found,
            data,
            key=request.journal.key,
            attributes=aim.attributes,
            volume_gib=image_spec.volume_sizes_of_content(data.get("root_volume_size"), aim, theirs),
            uefi_data_of=lambda image_id: compare.uefi_data(ec2, image_id, way.region),
            reporter=reporter,
            kms_key_arn=key_arn,
            key_of=lambda snapshot_id: compare.key_of_snapshot(ec2, snapshot_id, way.region),
        )
    settled = preflight.settle(way, data, image=found, reporter=reporter)
    blocks = -(-aim.size_bytes // protocol.BLOCK_BYTES)
    about = "" if aim.is_size_exact else "about "
    with_key = f", encrypted with {key_arn or 'the default key of the account'}"
    is_encrypted = bool(key or data.get("encrypted"))
    verification = {"none": "nothing", "full": "all of them"}.get(str(data.get("verify")), "a sample of them")
    read_blocks = {"none": 0, "full": blocks}.get(str(data.get("verify")), min(blocks, verify.SAMPLE_BLOCKS))
    steps = [
        _who(way),
        f"start a snapshot of {aim.volume_gib} GiB in {way.region}{with_key if is_encrypted else ''}",
        f"send {request.image.filename}, {about}{aim.size_bytes} bytes unpacked, as {about}{blocks} blocks at most",
        f"seal it with the checksum of all blocks, and read back {verification}",
        _registration(str(data["ami_name"]), aim.attributes),
        *_afterwards(settled),
    ]
    if found:
        image_id = found["ImageId"]
        steps.insert(
            1, f"compare with {image_id}, which is already there: take it, and send nothing, if it is the same"
        )
        steps[2:2] = _changes(found, request, aim.attributes)
    sending = Cost(f"{blocks} blocks sent, {read_blocks} read back", blocks * PUT_USD + read_blocks * GET_USD)
    return Plan(tuple(steps), (sending, *_costs(settings, settled, aim.size_bytes, is_there=False)))


def _who(way: RoleRequest) -> str:
    return f"assume role {way.role_arn}" if way.role_arn else "use your own AWS credentials"


def _registration(name: str, aim: ImageAttributes) -> str:
    return (
        f"register the AMI '{name}' for {aim.architecture}, boot mode {aim.boot_mode or 'not set'}, "
        f"IMDS support {aim.imds_support or 'not set'}"
    )


def _changes(image: Mapping[str, Any], request: UploadRequest, aim: ImageAttributes) -> list[str]:
    found = compare.changes(image, request.targetdata, key=request.journal.key, wanted=aim)
    return [f"change its {change}" for change in found]


def _afterwards(data: Mapping[str, JsonValue]) -> list[str]:
    """The steps once the AMI is there."""
    regions_, share = (value if isinstance(value, list) else [] for value in (data.get("regions"), data.get("share")))
    steps = [f"copy the AMI to {region}" for region in map(str, regions_)]
    if share:
        steps.append(f"share it with {', '.join(map(str, share))}")
    if opened := replicate.for_snapshots(data):
        steps.append(f"share its snapshots with {', '.join(opened)}")
    if data.get("deprecate_at"):
        steps.append(f"have it deprecated from {data['deprecate_at']}")
    return steps


def _costs(
    settings: Ec2Settings, data: Mapping[str, JsonValue], size_bytes: int, *, is_there: bool
) -> tuple[Cost, ...]:
    """What snapshots and copies cost at most: blocks that are left out are free.

    Args:
        settings: With the prices.
        data: With the regions settled.
        size_bytes: Of the raw disk.
        is_there: Whether the image is already there, so that only its copies are new.
    """
    size_gib = size_bytes / image_spec.GIB
    regions_ = data.get("regions")
    copies_number = len(regions_) if isinstance(regions_, list) else 0
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
