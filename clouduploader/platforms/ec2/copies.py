"""The copy of an image in another region: found, made, waited for, removed."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import botocore.exceptions

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, cleanup, retry
from clouduploader.platforms.ec2 import labels as our_tags
from clouduploader.plugin import CloudObject, Journal, ObjectCreated, ObjectRemoved, Reporter, visibility
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

COPY_SECONDS = 6 * 3600.0  # AWS promises no time; a copy that takes longer is taken up by the next try
UNDER_WAY = ("pending", "transient")  # EC2 API, ImageState
DEAD = ("failed", "error", "invalid", "deregistered")
TOO_MANY = "ResourceLimitExceeded"  # EC2 error codes: "you might have too many snapshot copies in progress"
MAX_BAD_LOOKS = 5  # in a row, each tried four times by the SDK; the copy goes on meanwhile


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
        region: Where it is to be.
        client: Of EC2 in that region; its credentials renew themselves.
        source: What is copied.
        kms_key: For the snapshots; None for a copy that is encrypted if the source is.
        tags: Of the source; the copy and its snapshots get the same.
        journal: Of the upload.
        reporter: Told of what is made.
        cancel: See Cancel.
        sleep: For tests.

    Attributes:
        objects: The image and its snapshots, as far as they are known.
        is_found: Whether an earlier try or upload made it.
    """

    def __init__(
        self,
        region: str,
        *,
        client: Any,  # noqa: ANN401 boto3 makes its clients at run time
        source: CopySource,
        kms_key: str | None,
        tags: Mapping[str, str],
        journal: Journal,
        reporter: Reporter,
        cancel: Cancel,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._region = region
        self._client = client
        self._source = source
        self._kms_key = kms_key
        self._tags = tags
        self._journal = journal
        self._reporter = reporter
        self._cancel = cancel
        self._sleep = sleep
        self._is_ours_to_remove = False
        self.objects: dict[CloudObject, None] = {}
        self.is_found = False

    def complete(self) -> dict[str, Any]:
        """Find the copy that an earlier try made, or make one, and wait until it can be used. Blocks for hours.

        Returns:
            The image as DescribeImages has it.

        Raises:
            PlatformReplyError: The name is another image's; or the copy failed, and is removed.
            TransientError: It takes too long, and is left.
            StoppedError: The stop was requested; see `undo`.
            ClouduploaderError: See `refusals.translate`.
        """
        found = self._find()
        self.is_found = found is not None
        if found and found["State"] == "available":
            self.objects.update(dict.fromkeys(self._things(found)))
            self._check_encrypted(found)
            return found
        if found:
            self._is_ours_to_remove = _tags(found).get(our_tags.KEY) == self._journal.key
            image = self._wait(found["ImageId"])
            self._check_encrypted(image)
            return image
        return self._wait(self._unseen() or self._asked())

    def undo(self) -> None:
        """Remove the copy, unless it was complete when this run began, or is another upload's.

        What is left is said in the log.
        """
        if not self._is_ours_to_remove:
            return
        try:
            for image_id in [thing.id for thing in self.objects if thing.kind == "image"] or self._named_by_key():
                self._remove(image_id, is_old=False)
        except ClouduploaderError as exc:
            self._reporter.line(f"Left behind: a copy of {self._source.id} in {self._region}: {exc.message}")

    def _find(self) -> dict[str, Any] | None:
        """Look for the copy of an earlier try, and remove one that failed."""
        filters = [{"Name": "name", "Values": [self._source.name]}]
        with boto.translated(f"region {self._region}"):
            images: list[dict[str, Any]] = self._client.describe_images(Owners=["self"], Filters=filters)["Images"]
        for image in images:
            if image["State"] in DEAD and _tags(image).get(our_tags.KEY) == self._journal.key:
                self._remove(image["ImageId"])
        living = [image for image in images if image["State"] not in DEAD]
        ours = [image for image in living if is_same(_tags(image), self._tags)]
        if living and not ours:
            raise aws_errors.name_taken(living[0]["ImageId"], "its content is not that of this upload")
        return min(ours, key=lambda image: str(image["State"]), default=None)  # "available" is the first of them

    def _check_encrypted(self, image: Mapping[str, Any]) -> None:
        """Refuse a copy of an earlier upload that shows to everybody what this one is to keep under a key."""
        if (self._kms_key or self._source.is_encrypted) and not is_encrypted(image):
            raise aws_errors.name_taken(image["ImageId"], "it is not encrypted, as this copy is to be")

    def _asked(self) -> str:
        """Ask for the copy, and again for as long as too many others are under way. Returns its id."""
        waited = 0.0
        for pause in retry.pauses():
            try:
                return self._ask()
            except ClouduploaderError as exc:
                if boto.refusal_code(exc) != TOO_MANY or waited >= COPY_SECONDS:
                    raise
                if not waited:
                    self._reporter.line(f"Waiting to copy to {self._region}: {exc.message}")
            retry.pause(pause, cancel=self._cancel, sleep=self._sleep)
            waited += pause
        raise AssertionError("there is always one more pause")

    def _ask(self) -> str:
        token, given = self._unanswered() or (f"{self._journal.key}-{os.urandom(8).hex()}", self._tags)
        self._journal.write("asked", kind="image", region=self._region, token=token, tags=dict(given))
        tags = our_tags.as_list(given)
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
            with boto.translated(f"region {self._region}"):
                image_id = str(self._client.copy_image(**parameters)["ImageId"])
        except ClouduploaderError as exc:
            if isinstance(exc.__cause__, botocore.exceptions.ClientError):  # else it may have been done all the same
                self._journal.write("refused", kind="image", region=self._region)
                self._is_ours_to_remove = False
            raise
        self._created(CloudObject("image", image_id, self._region))
        return image_id

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
        """The copy that an earlier try made, so recently that it may not show by its name yet."""
        found = None
        for entry in self._journal.entries():
            if (entry.get("kind"), entry.get("region")) == ("image", self._region):
                is_young = entry["what"] == "made" and visibility.seconds_left(entry)
                found = str(entry["id"]) if is_young else None
        self._is_ours_to_remove = found is not None
        return found

    def _wait(self, image_id: str) -> dict[str, Any]:
        waited, bad_looks = 0.0, 0
        for pause in retry.pauses():
            try:
                image = self._look(image_id)
            except TransientError:
                bad_looks += 1
                if bad_looks == MAX_BAD_LOOKS:
                    raise
            else:
                bad_looks = 0
                if image and image["State"] == "available":
                    return image
                is_gone = image is None and waited >= visibility.UNSEEN_SECONDS
                if (image and image["State"] not in UNDER_WAY) or is_gone:
                    raise self._lost(image_id, image)
            if waited >= COPY_SECONDS:
                raise TransientError(
                    f"the copy {image_id} is not complete after {round(waited / 3600)} hours",
                    hint="The same upload once more goes on waiting for it.",
                )
            retry.pause(pause, cancel=self._cancel, sleep=self._sleep)
            waited += pause
        raise AssertionError("there is always one more pause")

    def _look(self, image_id: str) -> dict[str, Any] | None:
        """What becomes of the copy; None if EC2 does not know it (yet, or any more)."""
        try:
            with boto.translated(f"region {self._region}"):
                images: list[dict[str, Any]] = self._client.describe_images(ImageIds=[image_id])["Images"]
        except ClouduploaderError as exc:
            if boto.refusal_code(exc).endswith((*cleanup.UNKNOWN, cleanup.DEREGISTERED)):
                return None
            raise
        for thing in self._things(images[0]) if images else []:
            self._created(thing)
        return images[0] if images else None

    def _lost(self, image_id: str, image: Mapping[str, Any] | None) -> PlatformReplyError:
        """Remove what is left of a copy of ours, and say why it is none."""
        state = image["State"] if image else "gone"
        words = ((image or {}).get("StateReason") or {}).get("Message") or "AWS gives no reason"
        if self._is_ours_to_remove and (image is None or state in DEAD):
            self._remove(image_id)
        self._is_ours_to_remove = False
        return PlatformReplyError(f"the copy {image_id} is {state}: {words}")

    def _things(self, image: Mapping[str, Any]) -> list[CloudObject]:
        """The image and its snapshots; while it is pending, not all of them may be known."""
        ids = [entry.get("Ebs", {}).get("SnapshotId") for entry in image.get("BlockDeviceMappings", [])]
        snapshots = [CloudObject("snapshot", item, self._region) for item in ids if item]
        return [CloudObject("image", image["ImageId"], self._region), *snapshots]

    def _created(self, thing: CloudObject) -> None:
        if thing not in self.objects:
            self.objects[thing] = None
            self._reporter.event(ObjectCreated(thing))

    def _by_key(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{our_tags.KEY}", "Values": [self._journal.key]}]

    def _named_by_key(self) -> list[str]:
        """The ids of what was asked for without an answer."""
        with boto.translated(f"region {self._region}"):
            images = self._client.describe_images(Owners=["self"], Filters=self._by_key())["Images"]
        return [image["ImageId"] for image in images]

    def _remove(self, image_id: str, *, is_old: bool = True) -> None:
        """Remove a copy with its snapshots, also those that it does not name yet.

        Args:
            image_id: Of the copy.
            is_old: Whether what EC2 does not show of it is gone; else it stays in the journal.
        """
        image = self._look(image_id)
        with boto.translated(f"region {self._region}"):
            found = self._client.describe_snapshots(OwnerIds=["self"], Filters=self._by_key())["Snapshots"]
        # A complete one that this copy does not name was an earlier success.
        unfinished = [entry["SnapshotId"] for entry in found if entry.get("State") != "completed"]
        tagged = [CloudObject("snapshot", snapshot_id, self._region) for snapshot_id in unfinished]
        known = [*self._things(image or {"ImageId": image_id}), *self.objects]
        doomed = list(dict.fromkeys([*known, *tagged]))
        report = cleanup.ObjectRemover(self._client, self._region, self._reporter, sleep=self._sleep).remove(doomed)
        for thing in report.absent:
            if is_old:
                self._reporter.event(ObjectRemoved(thing))
            else:
                self._reporter.line(f"Left behind: {thing.kind} {thing.id} in {self._region}: EC2 does not show it yet")
        for thing in report.removed:
            self.objects.pop(thing, None)


def is_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether tags say that two images have the same content; where none tells, whether one upload made both."""
    for name in (our_tags.CONTENT, our_tags.SHA256, our_tags.KEY):
        if name in found and name in wanted:
            return found[name] == wanted[name]
    return False


def is_encrypted(image: Mapping[str, Any]) -> bool:
    """Whether any disk of an image, as DescribeImages has it, is encrypted."""
    return any(entry.get("Ebs", {}).get("Encrypted") for entry in image.get("BlockDeviceMappings", []))


def _tags(image: Mapping[str, Any]) -> dict[str, str]:
    return our_tags.as_mapping(image.get("Tags"))
