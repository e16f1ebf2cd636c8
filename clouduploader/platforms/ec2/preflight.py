"""Find out before the first byte what AWS would refuse only after the whole upload: regions, names, keys, sharing.

Each question needs a permission of its own. What the role may not ask, or a region does not answer, is not known: that
is reported, and refuses nothing.

Sources: EC2 API, CopyImage, ModifyImageAttribute, ModifySnapshotAttribute, DescribeRegions, GetEbsEncryptionByDefault,
GetEbsDefaultKmsKeyId, GetImageBlockPublicAccessState, GetSnapshotBlockPublicAccessState; KMS API, DescribeKey (models
of botocore); EC2 User Guide, "Share an AMI"; EBS user guide, "Share a snapshot" and "Amazon EBS encryption".
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from clouduploader.errors import ClouduploaderError, DeniedError, TargetDataError
from clouduploader.platforms.ec2 import ami, aws_errors, compare, fields, labels
from clouduploader.platforms.ec2.context import Ec2Context

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

T = TypeVar("T")
THREADS = 20  # regions looked at together
MANAGED_ALIAS = "alias/aws/ebs"  # "If you have not specified a default, alias/aws/ebs" (GetEbsDefaultKmsKeyId)
OPEN = "unblocked"  # EC2 API, of both block-public-access states
OWN_KEY_HINT = (
    "Give kms_key_id, and for copies kms_keys: a KMS key of your own, whose policy lets the other accounts use it."
)


def check(context: Ec2Context, *, image: Mapping[str, Any] | None) -> list[str]:
    """Find out what would be refused after the upload. Changes nothing; asks all regions at once.

    Args:
        context: The upload.
        image: The one that has our name and content already, as DescribeImages has it; None if there is none.

    Returns:
        The regions in which copies are to be, each once: those that `all` stands for, and not the upload's own.

    Raises:
        TargetDataError: They ask for what AWS does not do.
        PlatformReplyError: The name is another image's where a copy is to be.
        DeniedError: The account forbids what they ask for.
        ClouduploaderError: AWS does not tell which regions `all` stands for.
    """
    looks = _Preflight(context, image)
    regions = looks.destinations()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="look") as pool:
        list(pool.map(looks.look_at, (context.region, *regions)))
    return regions


class _Preflight:
    def __init__(self, context: Ec2Context, image: Mapping[str, Any] | None) -> None:
        self._context = context
        self._ctx = context.ctx
        self._account = context.account
        self._home = context.region
        self._targetdata = context.ctx.targetdata
        self._image = image
        share, kms_keys = self._targetdata.get("share"), self._targetdata.get("kms_keys")
        self._share = share if isinstance(share, list) else []
        self._kms_keys = kms_keys if isinstance(kms_keys, dict) else {}

    def destinations(self) -> list[str]:
        """List the regions of the copies, each once; those of the account if all are wanted.

        Raises:
            TargetDataError: One, or one that a key is named for, is not enabled for the account.
        """
        given = self._targetdata.get("regions")
        wanted = [str(name) for name in given] if isinstance(given, list) else []
        others = [name for name in dict.fromkeys(wanted) if name != self._home]
        if not others:
            return []
        is_for_all = fields.EVERYWHERE in others
        enabled = self._asked(
            self._home,
            "which regions are enabled",
            lambda ec2: [item["RegionName"] for item in ec2.describe_regions()["Regions"]],
            is_needed=is_for_all,
        )
        if enabled is None:
            return others
        if missing := [name for name in others if name not in (*enabled, fields.EVERYWHERE)]:
            raise TargetDataError(
                f"regions: {', '.join(missing)} can't be used: not enabled for the account, or not there",
                hint=f"Enabled are {', '.join(sorted(enabled))}.",
            )
        if not is_for_all:
            return others
        if missing := [name for name in self._kms_keys if name not in enabled]:
            raise TargetDataError(
                f"kms_keys: {', '.join(missing)} can't be used: not enabled for the account, or not there",
                hint=f"Enabled are {', '.join(sorted(enabled))}.",
            )
        return [name for name in sorted(enabled) if name != self._home]

    def look_at(self, region: str) -> None:
        """Look for all that can go wrong in one region.

        Raises:
            ClouduploaderError: See `check`.
        """
        if region != self._home:
            self._check_name(region)
        self._check_keys(region)
        if fields.EVERYBODY in self._share:
            self._check_public(region)

    def _asked(self, region: str, what: str, ask: "Callable[[EC2Client], T]", *, is_needed: bool = False) -> T | None:
        """Return EC2's answer; see `_answer`."""
        return self._answer(f"region {region}", what, lambda: ask(self._account.ec2(region)), is_needed=is_needed)

    def _answer(self, subject: str, what: str, ask: Callable[[], T], *, is_needed: bool = False) -> T | None:
        """Return the answer, or None if there is none: then that is reported, and nothing follows from it."""
        try:
            with self._ctx.translated(subject):
                return ask()
        except TargetDataError:
            raise
        except ClouduploaderError as exc:
            if is_needed:
                raise
            self._ctx.reporter.line(f"Not looked at, {what}: {exc.message}")
            return None

    def _check_name(self, region: str) -> None:
        """Refuse a name that an image has there which no upload of ours made."""
        filters: list[FilterTypeDef] = [{"Name": "name", "Values": [str(self._targetdata["ami_name"])]}]
        images = self._asked(
            region,
            f"whether the name is free in {region}",
            lambda ec2: ec2.describe_images(Owners=["self"], Filters=filters, IncludeDisabled=True)["Images"],
        )
        living = [image for image in images or [] if image.get("State") not in ami.FAILED_STATES]
        known = {labels.CONTENT, labels.SHA256, labels.KEY}
        if living and not any(known & ami.tags(image).keys() for image in living):
            raise aws_errors.name_taken(f"{living[0]['ImageId']} in {region}", "no upload of clouduploader made it")

    def _check_keys(self, region: str) -> None:
        """Look at the key that snapshots get there, if one is named or others are to use the image."""
        for named, is_ours in self._key_names(region):
            if is_ours or self._share:
                self._check_key(region, named)

    def _key_names(self, region: str) -> Iterator[tuple[str, bool]]:
        """Yield the key of the snapshots there, if any, and whether the target data name it."""
        if region == self._home and self._image is not None:
            if self._share and ami.is_encrypted(self._image):
                snapshots = ami.snapshot_ids(self._image)
                keys = self._asked(
                    region,
                    "the key of the image",
                    lambda _ec2: [compare.key_of_snapshot(self._context, snapshot_id) for snapshot_id in snapshots],
                )
                yield from ((key, False) for key in keys or [] if key)
            return
        named = self._targetdata.get("kms_key_id") if region == self._home else self._kms_keys.get(region)
        if named:
            yield str(named), True
            return
        if region == self._home or self._image is None:
            is_encrypted = bool(self._targetdata.get("encrypted") or self._targetdata.get("kms_key_id"))
        else:
            is_encrypted = ami.is_encrypted(self._image)
        is_refused = self._targetdata.get("encrypted") is False
        if (self._share or is_refused) and not is_encrypted:
            is_encrypted = bool(
                self._asked(
                    region,
                    f"encryption by default in {region}",
                    lambda ec2: ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"],
                )
            )
        if is_encrypted and is_refused:
            raise TargetDataError(
                f"encrypted: found false, but the account encrypts all new snapshots in {region}",
                hint="Leave it out, or have the account's setting changed.",
            )
        if is_encrypted and fields.EVERYBODY in self._share:
            raise TargetDataError(
                f"share: found public, but the image would be encrypted in {region}, and can't be public then",
                hint="The account encrypts all new snapshots there: have that changed, or share with accounts.",
            )
        if is_encrypted and self._share:
            default = self._asked(
                region, f"the default key of {region}", lambda ec2: ec2.get_ebs_default_kms_key_id()["KmsKeyId"]
            )
            yield default or "", False

    def _check_key(self, region: str, name: str) -> None:
        """Refuse a key that EBS can't use, or that other accounts can't use though the image is shared with them.

        Args:
            region: Where it is.
            name: An id, alias or ARN; "" for a default key that could not be asked for.
        """
        if not name:
            self._ctx.reporter.line(
                f"If the default key of {region} is AWS's own, AWS will refuse to share the image. {OWN_KEY_HINT}"
            )
            return
        if self._share and name.endswith(MANAGED_ALIAS):
            raise key_not_shareable(f"in {region}")
        facts = self._answer(
            f"KMS key {name} in {region}",
            f"the KMS key {name} in {region}",
            lambda: self._account.kms(region).describe_key(KeyId=name)["KeyMetadata"],
        )
        if facts is None:
            return
        if self._share and facts.get("KeyManager") == "AWS":
            raise key_not_shareable(f"in {region}")
        found = facts.get("KeySpec", "SYMMETRIC_DEFAULT"), facts.get("KeyUsage", "ENCRYPT_DECRYPT")
        if found != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"):
            raise TargetDataError(
                f"the KMS key {name} in {region} is {found[0]} for {found[1]}, but EBS takes symmetric keys only",
                hint=aws_errors.KEY_HINT,
            )
        if facts.get("KeyState", "Enabled") != "Enabled":
            raise TargetDataError(
                f"the KMS key {name} in {region} can't be used: its state is {facts['KeyState']}",
                hint="Enable it, or give another.",
            )

    def _check_public(self, region: str) -> None:
        """Refuse to make public what the account does not let be public."""
        states: dict[str, Callable[[EC2Client], str | None]] = {
            "images": lambda ec2: ec2.get_image_block_public_access_state().get("ImageBlockPublicAccessState")
        }
        if self._targetdata.get("share_snapshot"):
            states["snapshots"] = lambda ec2: ec2.get_snapshot_block_public_access_state().get("State")
        for what, ask in states.items():
            state = self._asked(region, f"whether {what} may be public in {region}", ask)
            if (state or OPEN) != OPEN:
                raise blocked(what, region)


def blocked(what: str, region: str) -> DeniedError:
    """Make the error for images or snapshots that the account does not let be public.

    Args:
        what: "images" or "snapshots".
        region: Where.
    """
    return DeniedError(  # EC2 user guide, "Block public access to your AMIs"; EBS user guide, the same for snapshots
        f"the account blocks public {what} in {region}",
        hint=f"Allow them with `aws ec2 disable-{what[:-1]}-block-public-access`.",
    )


def key_not_shareable(where: str) -> TargetDataError:
    """Make the error for an image that is to be shared, and is encrypted with a key that other accounts can't use."""
    return TargetDataError(
        f"share is for other accounts, but the image is encrypted {where} with a KMS key of AWS's own, "
        "which they can't be let use",
        hint=OWN_KEY_HINT,
    )
