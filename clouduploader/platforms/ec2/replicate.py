"""After the upload: copy an image to further regions, share it, deprecate it.

An image of an earlier upload is changed to be as this one asks, see `compare.changes`.

Each region is served by a thread of its own; what fails in one is reported, and the others go on. All can
be done again: a copy that is there already is found by its name and our tags.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, cleanup, fields, labels, preflight
from clouduploader.platforms.ec2.ami import compare, find
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.plugin import (
    CloudObject,
    JsonValue,
    PhaseStarted,
    Shortfall,
    UploadResult,
    retry,
    visibility,
)
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, LaunchPermissionTypeDef

COPY_SECONDS = 6 * 3600.0  # AWS promises no time; a copy that takes longer is taken up by the next try
TOO_MANY = "ResourceLimitExceeded"  # EC2 error codes: "you might have too many snapshot copies in progress"
MAX_BAD_LOOKS = 5  # in a row, each tried four times by the SDK; the copy goes on meanwhile
MAX_GRANTS = 500  # "up to 500 modifications to a snapshot in a single operation" (EC2 API, ModifySnapshotAttribute)
MAX_COPIES = 20  # at once; EBS user guide, quotas, "Concurrent snapshot copies per destination Region"


@frozen()
class CopySource:
    """The image that is copied.

    Attributes:
        id: Its id.
        region: Where it is.
        name: The copies have the same.
        description: The copies have the same.
        is_encrypted: Whether any of its disks is.
        image: As DescribeImages has it.
    """

    id: str
    region: str
    name: str
    description: str
    is_encrypted: bool
    image: Mapping[str, Any]


class RegionCopy:
    """One copy. For one thread at a time.

    Args:
        context: The upload.
        region: Where the copy is to be.
        source: What is copied.
        kms_key: For the snapshots; None for a copy that is encrypted if the source is.
        tags: Of the source; the copy and its snapshots get the same.

    Attributes:
        objects: The image and its snapshots, as far as they are known.
        is_found: Whether an earlier try or upload made it.
    """

    def __init__(
        self,
        context: Ec2Context,
        region: str,
        *,
        source: CopySource,
        kms_key: str | None,
        tags: Mapping[str, str],
    ) -> None:
        self._ctx = ctx = context.ctx
        self._ec2 = context.account.ec2(region)
        self._region = region
        self._source = source
        self._kms_key = kms_key
        self._tags = tags
        self._journal = ctx.request.journal
        self._reporter = ctx.reporter
        self._resources = ctx.resources
        self._is_ours_to_remove = False
        self.objects: dict[CloudObject, None] = {}
        self.is_found = False

    def complete(self) -> Mapping[str, Any]:
        """Find the copy that an earlier try made, or make one, and wait until it can be used. Blocks for hours.

        Returns:
            The image as DescribeImages has it.

        Raises:
            PlatformReplyError: The name is another image's; or the copy failed, and is removed.
            TransientError: It takes too long, and is left.
            StoppedError: The upload was cancelled; see `claim`.
            ClouduploaderError: See `aws_errors.translate`.
        """
        found = self._find()
        self.is_found = found is not None
        if found and found["State"] == "available":
            self.objects.update(dict.fromkeys(find.objects(found, self._region)))
            self._check_encrypted(found)
            return found
        if found:
            self._is_ours_to_remove = find.tags(found).get(labels.KEY) == self._journal.key
            image = self._wait(found["ImageId"])
            self._check_encrypted(image)
            return image
        return self._wait(self._unseen() or self._asked())

    def claim(self) -> None:
        """Find all of the copy, to be undone, unless it was complete when this run began, or is another upload's."""
        if not self._is_ours_to_remove:
            return
        try:
            for image_id in [thing.id for thing in self.objects if thing.kind == "image"] or self._named_by_key():
                for thing in self._parts(image_id):
                    self._resources.adopt(thing)
        except ClouduploaderError as exc:
            self._reporter.line(
                f"Left behind, perhaps: parts of a copy of {self._source.id} in {self._region}: {exc.message}"
            )

    def _find(self) -> Mapping[str, Any] | None:
        """Look for the copy of an earlier try, and remove one that failed."""
        with self._ctx.translated(f"region {self._region}"):
            images = self._ec2.describe_images(
                Owners=["self"], Filters=[{"Name": "name", "Values": [self._source.name]}]
            )["Images"]
        for image in images:
            if image["State"] in find.FAILED_STATES and find.tags(image).get(labels.KEY) == self._journal.key:
                self._remove(image["ImageId"])
        living = [image for image in images if image["State"] not in find.FAILED_STATES]
        ours = [image for image in living if find.is_same(find.tags(image), self._tags)]
        if living and not ours:
            raise aws_errors.name_taken(living[0]["ImageId"], "its content is not that of this upload")
        return min(ours, key=lambda image: str(image["State"]), default=None)  # "available" is the first of them

    def _check_encrypted(self, image: Mapping[str, Any]) -> None:
        """Refuse an unencrypted copy of an earlier upload where this one is to be encrypted."""
        if (self._kms_key or self._source.is_encrypted) and not find.is_encrypted(image):
            raise aws_errors.name_taken(image["ImageId"], "it is not encrypted, as this copy is to be")

    def _asked(self) -> str:
        """Ask for the copy, and again for as long as too many others are under way. Returns its id."""
        is_told = False

        def may_pass(exc: ClouduploaderError) -> bool:
            nonlocal is_told
            if boto.refusal_code(exc) != TOO_MANY:
                return False
            if not is_told:
                self._reporter.line(f"Waiting to copy to {self._region}: {exc.message}")
            is_told = True
            return True

        return self._ctx.retry(self._ask, seconds=COPY_SECONDS, may_pass=may_pass)

    def _ask(self) -> str:
        token, given = self._unanswered() or (f"{self._journal.key}-{os.urandom(8).hex()}", self._tags)
        tags = labels.as_list(given)
        parameters: dict[str, Any] = {
            "SourceImageId": self._source.id,
            "SourceRegion": self._source.region,
            "Name": self._source.name,
            "Description": self._source.description,
            "ClientToken": token,
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")],
        }
        if self._kms_key:
            parameters |= {"Encrypted": True, "KmsKeyId": self._kms_key}
        elif self._source.is_encrypted:
            parameters["Encrypted"] = True
        self._is_ours_to_remove = True
        try:
            with (
                self._resources.creating(
                    "image", self._region, is_refused=_is_refused, token=token, tags=dict(given)
                ) as created,
                self._ctx.translated(f"region {self._region}"),
            ):
                image = created(self._ec2.copy_image(**parameters)["ImageId"])
        except ClouduploaderError as exc:
            self._is_ours_to_remove = not _is_refused(exc)
            raise
        self.objects[image] = None
        return image.id

    def _unanswered(self) -> tuple[str, Mapping[str, str]] | None:
        """Token and tags of a request that was never answered: the same once more gives the same copy.

        A token that was answered must not be used again: EC2 would give that copy, which is gone.
        """
        found = None
        for entry in self._journal.entries():
            if (entry.get("kind"), entry.get("region")) == ("image", self._region):
                found = entry if entry["what"] == "asked" else None
        token, tags = (found.get("token"), found.get("tags")) if found else (None, None)
        if not isinstance(tags, dict) or not token:
            return None
        return str(token), {name: str(value) for name, value in tags.items()}

    def _unseen(self) -> str | None:
        """Return the copy that an earlier try made, so recently that it may not show by its name yet."""
        found = None
        for entry in self._journal.entries():
            if (entry.get("kind"), entry.get("region")) == ("image", self._region):
                is_young = entry["what"] == "made" and visibility.seconds_left(entry)
                found = str(entry["id"]) if is_young else None
        self._is_ours_to_remove = found is not None
        return found

    def _wait(self, image_id: str) -> Mapping[str, Any]:
        began, bad_looks = self._ctx.clock.monotonic(), 0

        def available() -> Mapping[str, Any] | None:
            nonlocal bad_looks
            try:
                image = self._look(image_id)
            except TransientError:
                bad_looks += 1
                if bad_looks == MAX_BAD_LOOKS:
                    raise
                return None
            bad_looks = 0
            if image and image["State"] == "available":
                return image
            is_gone = image is None and self._ctx.clock.monotonic() - began >= visibility.UNSEEN_SECONDS
            if (image and image["State"] not in find.PENDING_STATES) or is_gone:
                raise self._lost(image_id, image)
            return None

        found = retry.look_until(available, COPY_SECONDS, cancel=self._ctx.cancel, clock=self._ctx.clock)
        if found is None:
            raise TransientError(
                f"the copy {image_id} is not complete after {round(COPY_SECONDS / 3600)} hours",
                hint="The same upload once more goes on waiting for it.",
            )
        return found

    def _look(self, image_id: str) -> Mapping[str, Any] | None:
        """Look what becomes of the copy; None if EC2 does not know it (yet, or any more)."""
        try:
            with self._ctx.translated(f"region {self._region}"):
                images = self._ec2.describe_images(ImageIds=[image_id])["Images"]
        except ClouduploaderError as exc:
            if boto.refusal_code(exc).endswith((*cleanup.UNKNOWN, cleanup.DEREGISTERED)):
                return None
            raise
        for thing in find.objects(images[0], self._region) if images else []:
            self._created(thing)
        return images[0] if images else None

    def _lost(self, image_id: str, image: Mapping[str, Any] | None) -> PlatformReplyError:
        """Remove what is left of a copy of ours, and say why it is none."""
        state = image["State"] if image else "gone"
        words = ((image or {}).get("StateReason") or {}).get("Message") or "AWS gives no reason"
        if self._is_ours_to_remove and (image is None or state in find.FAILED_STATES):
            self._remove(image_id)
        self._is_ours_to_remove = False
        for thing in self.objects:
            self._resources.keep(thing)
        return PlatformReplyError(f"the copy {image_id} is {state}: {words}")

    def _created(self, thing: CloudObject) -> None:
        if thing not in self.objects:
            self.objects[thing] = None
            self._resources.made(thing)
            if not self._is_ours_to_remove:
                self._resources.keep(thing)

    def _by_key(self) -> "list[FilterTypeDef]":
        return [{"Name": f"tag:{labels.KEY}", "Values": [self._journal.key]}]

    def _named_by_key(self) -> list[str]:
        """List the ids of copies that were asked for without an answer."""
        with self._ctx.translated(f"region {self._region}"):
            images = self._ec2.describe_images(Owners=["self"], Filters=self._by_key())["Images"]
        return [image["ImageId"] for image in images]

    def _remove(self, image_id: str) -> None:
        parts = self._parts(image_id)
        left = self._ctx.remove(parts)
        for thing in parts:
            if thing not in left:
                self.objects.pop(thing, None)

    def _parts(self, image_id: str) -> list[CloudObject]:
        """List a copy and its snapshots, also those that it does not name yet."""
        image = self._look(image_id)
        with self._ctx.translated(f"region {self._region}"):
            found = self._ec2.describe_snapshots(OwnerIds=["self"], Filters=self._by_key())["Snapshots"]
        # A complete one that this copy does not name was an earlier success.
        unfinished = [entry["SnapshotId"] for entry in found if entry.get("State") != "completed"]
        tagged = [CloudObject("snapshot", snapshot_id, self._region) for snapshot_id in unfinished]
        known = [*find.objects(image or {"ImageId": image_id}, self._region), *self.objects]
        return list(dict.fromkeys([*known, *tagged]))


def _is_refused(exc: ClouduploaderError) -> bool:
    """Tell whether AWS has refused; else it may have been done all the same."""
    return bool(boto.refusal_code(exc))


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
                served = list(pool.map(lambda name: self._serve(name, source), everywhere))
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

    def _source(self, image_id: str) -> CopySource:
        with self._ctx.translated(f"region {self._home}"):
            found = self._context.ec2.describe_images(ImageIds=[image_id])["Images"]
        if not found:
            raise TransientError(f"EC2 does not tell of {image_id} in {self._home}")
        (image,) = found
        return CopySource(
            id=image_id,
            region=self._home,
            name=image["Name"],
            description=self._attributes.description,
            is_encrypted=find.is_encrypted(image),
            image=image,
        )

    def _ec2(self, region: str) -> "EC2Client":
        return self._context.account.ec2(region)

    def _serve(self, region: str, source: CopySource) -> list[Shortfall]:
        """Do all that is to be done in one region.

        Raises:
            StoppedError: The upload was cancelled.
        """
        self._cancel.raise_if_requested()
        image = source.image
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

    def _copied(self, region: str, source: CopySource) -> Mapping[str, Any]:
        copy = self._copies[region] = RegionCopy(
            self._context, region, source=source, kms_key=self._kms_keys.get(region), tags=self._tags
        )
        image = copy.complete()
        if copy.is_found:
            compare.check_copy(image, source.image)
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
        image_id, is_encrypted = image["ImageId"], find.is_encrypted(image)
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
        snapshots = find.snapshot_ids(image)
        try:
            for snapshot_id in snapshots:
                for batch in batches:
                    self._share_snapshot(region, snapshot_id, batch)
                    self._reporter.line(f"Shared in {region}: {snapshot_id} with {', '.join(batch)}")
        except ClouduploaderError as exc:
            if self._ctx.targetdata.get("share_snapshot") or not aws_errors.is_denied(exc):
                return [Shortfall(region, f"snapshots not shared: {reason(exc)}")]
            self._reporter.line(
                f"Not shared in {region}: {', '.join(snapshots)}, so nobody else can copy the image: {reason(exc)}"
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
