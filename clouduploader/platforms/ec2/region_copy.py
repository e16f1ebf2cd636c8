"""Copy an image to another region, over all tries of an upload.

Source: EC2 API, CopyImage (botocore's model `ec2/2016-11-15`).
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import ami, aws_errors, boto, cleanup, labels
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.plugin import CloudObject, retry, visibility

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

COPY_SECONDS = 6 * 3600.0  # AWS promises no time; a copy that takes longer is taken up by the next try
TOO_MANY = "ResourceLimitExceeded"  # EC2 error codes: "you might have too many snapshot copies in progress"
MAX_BAD_LOOKS = 5  # in a row, each tried four times by the SDK; the copy goes on meanwhile


class RegionCopy:
    """One copy. For one thread at a time.

    Args:
        context: The upload.
        region: Where the copy is to be.
        source: What is copied, as DescribeImages has it; in the upload's region.
        description: Of the copy.
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
        source: Mapping[str, Any],
        description: str,
        kms_key: str | None,
        tags: Mapping[str, str],
    ) -> None:
        self._ctx = ctx = context.ctx
        self._ec2 = context.account.ec2(region)
        self._region = region
        self._source = source
        self._source_region = context.region
        self._description = description
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
            self.objects.update(dict.fromkeys(ami.objects(found, self._region)))
            self._check_encrypted(found)
            return found
        if found:
            self._is_ours_to_remove = ami.tags(found).get(labels.KEY) == self._journal.key
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
                f"Left behind, perhaps: parts of a copy of {self._source['ImageId']} in {self._region}: {exc.message}"
            )

    def _find(self) -> Mapping[str, Any] | None:
        """Look for the copy of an earlier try, and remove one that failed."""
        with self._ctx.translated(f"region {self._region}"):
            images = self._ec2.describe_images(
                Owners=["self"], Filters=[{"Name": "name", "Values": [self._source["Name"]]}], IncludeDisabled=True
            )["Images"]
        for image in images:
            if image["State"] in ami.FAILED_STATES and ami.tags(image).get(labels.KEY) == self._journal.key:
                self._remove(image["ImageId"])
        living = [image for image in images if image["State"] not in ami.FAILED_STATES]
        ours = [image for image in living if ami.is_same(ami.tags(image), self._tags)]
        if living and not ours:
            raise aws_errors.name_taken(living[0]["ImageId"], "its content is not that of this upload")
        return min(ours, key=lambda image: str(image["State"]), default=None)  # "available" is the first of them

    def _check_encrypted(self, image: Mapping[str, Any]) -> None:
        """Refuse an unencrypted copy of an earlier upload where this one is to be encrypted."""
        if (self._kms_key or ami.is_encrypted(self._source)) and not ami.is_encrypted(image):
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
            "SourceImageId": self._source["ImageId"],
            "SourceRegion": self._source_region,
            "Name": self._source["Name"],
            "Description": self._description,
            "ClientToken": token,
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")],
        }
        if self._kms_key:
            parameters |= {"Encrypted": True, "KmsKeyId": self._kms_key}
        elif ami.is_encrypted(self._source):
            parameters["Encrypted"] = True
        self._is_ours_to_remove = True
        try:
            with (
                self._resources.creating(
                    "image", self._region, is_refused=boto.has_made_nothing, token=token, tags=dict(given)
                ) as created,
                self._ctx.translated(f"region {self._region}"),
            ):
                image = created(self._ec2.copy_image(**parameters)["ImageId"])
        except ClouduploaderError as exc:
            self._is_ours_to_remove = not boto.has_made_nothing(exc)
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
            if (image and image["State"] not in ami.PENDING_STATES) or is_gone:
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
                images = self._ec2.describe_images(ImageIds=[image_id], IncludeDisabled=True)["Images"]
        except ClouduploaderError as exc:
            if boto.refusal_code(exc).endswith((*cleanup.UNKNOWN, cleanup.DEREGISTERED)):
                return None
            raise
        for thing in ami.objects(images[0], self._region) if images else []:
            self._created(thing)
        return images[0] if images else None

    def _lost(self, image_id: str, image: Mapping[str, Any] | None) -> PlatformReplyError:
        """Remove what is left of a copy of ours, and say why it is none."""
        state = image["State"] if image else "gone"
        words = ((image or {}).get("StateReason") or {}).get("Message") or "AWS gives no reason"
        if self._is_ours_to_remove and (image is None or state in ami.FAILED_STATES):
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
        known = [*ami.objects(image or {"ImageId": image_id}, self._region), *self.objects]
        return list(dict.fromkeys([*known, *tagged]))
