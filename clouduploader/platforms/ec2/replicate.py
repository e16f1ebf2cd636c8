"""After the upload: copy an image to further regions, share it, deprecate it.

An image of an earlier upload is changed to be as this one asks, see `compare.changes`.

Each region is served by a thread of its own; what fails in one is reported, and the others go on. All can
be done again: a copy that is there already is found by its name and our tags.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import ami, aws_errors, boto, compare, fields, labels, preflight
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.region_copy import RegionCopy
from clouduploader.plugin import (
    CloudObject,
    JsonValue,
    PhaseStarted,
    Shortfall,
    UploadResult,
    retry,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import LaunchPermissionTypeDef

MAX_GRANTS = 500  # "up to 500 modifications to a snapshot in a single operation" (EC2 API, ModifySnapshotAttribute)
MAX_COPIES = 20  # at once; EBS user guide, quotas, "Concurrent snapshot copies per destination Region"


class Distribution:
    """What is asked for beyond the image of an upload: copies, shares, deprecation. Used once.

    Args:
        context: The upload; its target data's `kms_keys`, `share`, `share_snapshot`, `deprecate_at` and `tags` are
            used.
        regions: Where copies are to be, from `preflight.check`.
        attributes: What is asked for.
        tags: Of the image; the copies and their snapshots get the same, with the user's and the journal's key.
        is_new: Whether this very upload made the image, so that nothing of it needs a change.
    """

    def __init__(
        self,
        context: Ec2Context,
        *,
        regions: Sequence[str],
        attributes: ImageAttributes,
        tags: Mapping[str, str],
        is_new: bool,
    ) -> None:
        ctx = context.ctx
        self._context = context
        self._ctx = ctx
        self._home = context.region
        targetdata = ctx.targetdata
        # The image may be an earlier upload's, the copies are ours. AWS alone can give its own tags.
        given = {name: value for name, value in tags.items() if not name.startswith(fields.TAG_PREFIX_OF_AWS)}
        self._tags = {**given, **labels.of_user(targetdata.get("tags")), labels.KEY: ctx.request.journal.key}
        self._attributes = attributes
        self._is_new = is_new
        self._reporter = ctx.reporter
        self._cancel = ctx.cancel
        self._regions = regions
        keys = targetdata.get("kms_keys")
        self._kms_keys = {name: str(key) for name, key in keys.items()} if isinstance(keys, dict) else {}
        self._share = list(dict.fromkeys(_strings(targetdata.get("share"))))
        self._deprecate_at = fields.moment(targetdata.get("deprecate_at"))
        self._copies: dict[str, RegionCopy] = {}

    def run(self, objects: Sequence[CloudObject]) -> UploadResult:
        """Copy, share and deprecate an image. Blocks as long as the copies take.

        Args:
            objects: An image of the upload's region that is available, and its snapshots.

        Returns:
            These and the copies with their snapshots, and what failed, both in the order of `regions`. The subject of
            a shortfall is its region.

        Raises:
            StoppedError: The upload was cancelled; the copies that this run made are to be undone.
        """
        copies, shortfalls = self._distributed(objects[0].id)
        return UploadResult(objects[0].id, (*objects, *copies), tuple(shortfalls), is_already_there=not self._is_new)

    def _distributed(self, image_id: str) -> tuple[list[CloudObject], list[Shortfall]]:
        everywhere = [self._home, *self._regions]
        if self._is_new and not (self._regions or self._share or self._deprecate_at):
            return [], []
        if self._regions:
            self._reporter.event(PhaseStarted("copy"))
        try:
            source = self._source(image_id)
            with ThreadPoolExecutor(MAX_COPIES, thread_name_prefix="copy") as pool:
                futures = [pool.submit(self._serve, name, source) for name in everywhere]
                while wait(futures, timeout=retry.LOOK_SECONDS).not_done:
                    pass  # a wait without an end may sleep through a signal that comes as it begins
            served = [future.result() for future in futures]
            self._cancel.raise_if_requested()
        except StoppedError:
            self._claim()
            raise
        except ClouduploaderError as exc:
            return [], [Shortfall(name, f"nothing was done: {reason(exc)}") for name in everywhere]
        except BaseException:
            self._claim()
            raise
        made = [self._copies[name].objects for name in self._regions if name in self._copies]
        return [thing for objects in made for thing in objects], [item for found in served for item in found]

    def _claim(self) -> None:
        with ThreadPoolExecutor(MAX_COPIES, thread_name_prefix="copy") as pool:
            list(pool.map(RegionCopy.claim, list(self._copies.values())))

    def _source(self, image_id: str) -> Mapping[str, Any]:
        with self._ctx.translated(f"region {self._home}"):
            found = self._context.ec2.describe_images(ImageIds=[image_id])["Images"]
        if not found:
            raise TransientError(f"EC2 does not tell of {image_id} in {self._home}")
        return found[0]

    def _ec2(self, region: str) -> "EC2Client":
        return self._context.account.ec2(region)

    def _serve(self, region: str, source: Mapping[str, Any]) -> list[Shortfall]:
        """Do all that is to be done in one region.

        Raises:
            StoppedError: The upload was cancelled.
        """
        self._cancel.raise_if_requested()
        image = source
        try:
            if region != self._home:
                image = self._copied(region, source)
        except StoppedError:
            raise
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not copied: {reason(exc)}")]
        return [
            *self._changed(region, image),
            *self._permitted(region, image),
            *self._opened(region, image),
            *self._deprecated(region, image["ImageId"]),
        ]

    def _copied(self, region: str, source: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = self._copies[region] = RegionCopy(
            self._context,
            region,
            source=source,
            description=self._attributes.description,
            kms_key=self._kms_keys.get(region),
            tags=self._tags,
        )
        image = copy.complete()
        if copy.is_found:
            compare.check_copy(image, source)
        verb = "Already there" if copy.is_found else "Copied to"
        self._reporter.line(f"{verb} {'in ' if copy.is_found else ''}{region}: {image['ImageId']}")
        return image

    def _changed(self, region: str, image: Mapping[str, Any]) -> list[Shortfall]:
        """Make an image of an earlier upload what this one asks for, and then give it our key."""
        if self._is_new and region == self._home:
            return []
        shortfalls = []
        changes = list(compare.changes(self._context, image, self._attributes))
        for change in changes:
            try:
                with self._ctx.translated(f"region {region}"):
                    getattr(self._ec2(region), change.call)(**change.parameters)
                self._reporter.line(f"Changed in {region}: {image['ImageId']}, {change}")
            except ClouduploaderError as exc:
                shortfalls.append(Shortfall(region, f"not changed, {change}: {reason(exc)}"))
        if changes and not shortfalls:
            self._take_over(region, image["ImageId"])
        return shortfalls

    def _take_over(self, region: str, image_id: str) -> None:
        """Say on an image that it is as we ask; without that it is compared again the next time."""
        key = labels.as_list({labels.KEY: self._ctx.request.journal.key})
        try:
            with self._ctx.translated(f"region {region}"):
                self._ec2(region).create_tags(Resources=[image_id], Tags=key)
        except ClouduploaderError as exc:
            self._reporter.detail(f"{image_id} keeps the key of another upload: {exc.message}")

    def _permitted(self, region: str, image: Mapping[str, Any]) -> list[Shortfall]:
        """Share the image: first with the accounts and organizations that are named, then with everybody."""
        shortfalls = []
        image_id, is_encrypted = image["ImageId"], ami.is_encrypted(image)
        named = [word for word in self._share if word != fields.EVERYBODY]
        if named and is_encrypted:
            self._reporter.line(
                f"The image in {region} is encrypted: whom it is shared with must also be let use its key."
            )
        for words in (named, [word for word in self._share if word == fields.EVERYBODY]):
            try:
                if words:
                    self._share_image(region, image_id, words, is_encrypted=is_encrypted)
                    self._reporter.line(f"Shared in {region}: {image_id} with {', '.join(words)}")
            except ClouduploaderError as exc:
                verb = "not shared" if words is named else "not made public"
                shortfalls.append(Shortfall(region, f"{verb}: {reason(exc)}"))
        return shortfalls

    def _opened(self, region: str, image: Mapping[str, Any]) -> list[Shortfall]:
        """Share the snapshots, which the other accounts need to copy the image."""
        words = snapshot_shares(self._ctx.targetdata)
        accounts = [word for word in words if word != fields.EVERYBODY]
        batches = [accounts[start : start + MAX_GRANTS] for start in range(0, len(accounts), MAX_GRANTS)]
        if fields.EVERYBODY in words:
            batches.append([fields.EVERYBODY])
        if not batches:
            return []
        snapshots = ami.snapshot_ids(image)
        try:
            for snapshot_id in snapshots:
                for batch in batches:
                    self._share_snapshot(region, snapshot_id, batch)
                    self._reporter.line(f"Shared in {region}: {snapshot_id} with {', '.join(batch)}")
        except ClouduploaderError as exc:
            if self._ctx.targetdata.get("share_snapshot") or not aws_errors.is_denied(exc):
                return [Shortfall(region, f"snapshots not shared: {reason(exc)}")]
            self._reporter.line(
                f"Not shared in {region}: {', '.join(snapshots)}, so no other account can copy the image: {reason(exc)}"
            )
        return []

    def _deprecated(self, region: str, image_id: str) -> list[Shortfall]:
        if self._deprecate_at is None:
            return []
        try:
            with self._ctx.translated(f"region {region}"):
                self._ec2(region).enable_image_deprecation(ImageId=image_id, DeprecateAt=self._deprecate_at)
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not deprecated: {reason(exc)}")]
        self._reporter.line(f"Deprecated in {region} from {self._deprecate_at:%Y-%m-%dT%H:%MZ}: {image_id}")
        return []

    def _share_image(self, region: str, image_id: str, words: Sequence[str], *, is_encrypted: bool) -> None:
        if is_encrypted and fields.EVERYBODY in words:
            raise PlatformReplyError("an encrypted image can't be public")  # EC2 user guide, "Make your AMI public"
        try:
            with self._ctx.translated(f"region {region}"):
                self._ec2(region).modify_image_attribute(
                    ImageId=image_id, LaunchPermission={"Add": [permission(word) for word in words]}
                )
        except ClouduploaderError as exc:
            if boto.refusal_code(exc) != "OperationNotPermitted":
                raise
            if fields.EVERYBODY not in words:
                if not is_encrypted:
                    raise
                raise preflight.key_not_shareable(f"in {region}") from exc
            raise preflight.blocked("images", region) from exc

    def _share_snapshot(self, region: str, snapshot_id: str, words: Sequence[str]) -> None:
        try:
            with self._ctx.translated(f"region {region}"):
                self._ec2(region).modify_snapshot_attribute(
                    SnapshotId=snapshot_id,
                    Attribute="createVolumePermission",
                    CreateVolumePermission={"Add": [permission(word) for word in words]},
                )
        except ClouduploaderError as exc:
            if fields.EVERYBODY not in words or boto.refusal_code(exc) != "OperationNotPermitted":
                raise
            raise preflight.blocked("snapshots", region) from exc


def snapshot_shares(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """List the entries of the target data's `share` that may use the snapshots too, each once.

    A snapshot knows accounts and everybody, no organizations (EC2 API, CreateVolumePermission). Everybody only if the
    target data say so: tools that look for data which leaked take a public snapshot for an alarm.
    """
    wish = targetdata.get("share_snapshot")
    share = list(dict.fromkeys(_strings(targetdata.get("share")))) if wish is not False else []
    return [word for word in share if word.isdecimal() or (wish and word == fields.EVERYBODY)]


def permission(word: str) -> "LaunchPermissionTypeDef":
    """Turn one entry of the target data's `share` into what the API has for it."""
    if word == fields.EVERYBODY:
        return {"Group": "all"}
    if not word.startswith("arn:"):
        return {"UserId": word}
    return {"OrganizationArn": word} if ":organization/" in word else {"OrganizationalUnitArn": word}


def reason(error: ClouduploaderError) -> str:
    """Put an error into one line, with what to do about it."""
    words = error.message.rstrip(".")
    return f"{words}. {error.hint}" if error.hint else words


def _strings(value: JsonValue) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
