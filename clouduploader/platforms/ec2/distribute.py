"""After the upload: copies in further regions, who may use the image, and when it becomes deprecated.

An image of an earlier upload is changed to be as this one asks, see `taken.changes`.

Each region is served by a thread of its own; what fails in one is told, and does no harm to the others. All can
be done again: a copy that is there already is found by its name and our tags.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, StoppedError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, compare, copies, fields, preflight
from clouduploader.platforms.ec2 import labels as our_tags
from clouduploader.platforms.ec2.attributes import ImageAttributes
from clouduploader.platforms.ec2.auth import RoleRequest
from clouduploader.plugin import CloudObject, Journal, JsonValue, PhaseStarted, Reporter, Shortfall
from clouduploader.util.cancel import Cancel

MAX_GRANTS = 500  # "up to 500 modifications to a snapshot in a single operation" (EC2 API, ModifySnapshotAttribute)
MAX_COPIES = 20  # at once; EBS user guide, quotas, "Concurrent snapshot copies per destination Region"


def distribute(
    image_id: str,
    *,
    account: RoleRequest,
    region: str,
    targetdata: Mapping[str, JsonValue],
    attributes: ImageAttributes,
    journal: Journal,
    tags: Mapping[str, str],
    is_new: bool,
    reporter: Reporter,
    cancel: Cancel,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[CloudObject], list[Shortfall]]:
    """Copy, share and deprecate an image as the target data say. Blocks as long as the copies take.

    Args:
        image_id: An image that is available.
        account: Whose it is.
        region: Where it is.
        targetdata: The keys `regions`, `kms_keys`, `share`, `share_snapshot`, `deprecate_at` and `tags` are used.
        attributes: What is asked for.
        journal: Of the upload.
        tags: Of the image; the copies and their snapshots get the same, with the user's and the journal's key.
        is_new: Whether this very upload made the image, so that nothing of it needs a change.
        reporter: Told of each copy at once.
        cancel: See Cancel.
        sleep: For tests.

    Returns:
        The copies with their snapshots, and what failed, both in the order of `regions`. The subject of a
        shortfall is its region.

    Raises:
        StoppedError: The stop was requested; the copies that this run made are removed, the image is there.
    """
    distribution = _Distribution(
        image_id,
        account=account,
        home=region,
        targetdata=targetdata,
        attributes=attributes,
        journal=journal,
        tags=tags,
        is_new=is_new,
        reporter=reporter,
        cancel=cancel,
        sleep=sleep,
    )
    return distribution.run()


class _Distribution:
    def __init__(
        self,
        image_id: str,
        *,
        account: RoleRequest,
        home: str,
        targetdata: Mapping[str, JsonValue],
        attributes: ImageAttributes,
        journal: Journal,
        tags: Mapping[str, str],
        is_new: bool,
        reporter: Reporter,
        cancel: Cancel,
        sleep: Callable[[float], None],
    ) -> None:
        self._image_id = image_id
        self._account = account
        self._keys = account.renewing()
        self._home = home
        self._journal = journal
        # The image may be an earlier upload's, the copies are ours. AWS's own tags nobody else can give.
        given = {name: value for name, value in tags.items() if not name.startswith(fields.TAG_PREFIX_OF_AWS)}
        self._tags = {**given, **our_tags.of_user(targetdata.get("tags")), our_tags.KEY: journal.key}
        self._targetdata = targetdata
        self._attributes = attributes
        self._is_new = is_new
        self._reporter = reporter
        self._cancel = cancel
        self._sleep = sleep
        self._regions = [name for name in dict.fromkeys(_strings(targetdata.get("regions"))) if name != home]
        keys = targetdata.get("kms_keys")
        self._kms_keys = {name: str(key) for name, key in keys.items()} if isinstance(keys, dict) else {}
        self._share = list(dict.fromkeys(_strings(targetdata.get("share"))))
        self._deprecate_at = fields.moment(targetdata.get("deprecate_at"))
        self._copies: dict[str, copies.RegionCopy] = {}

    def run(self) -> tuple[list[CloudObject], list[Shortfall]]:
        """See `distribute`."""
        everywhere = [self._home, *self._regions]
        if self._is_new and not (self._regions or self._share or self._deprecate_at):
            return [], []
        if self._regions:
            self._reporter.event(PhaseStarted("copy"))
        try:
            source = self._source()
            with ThreadPoolExecutor(MAX_COPIES, thread_name_prefix="copy") as pool:
                served = list(pool.map(lambda name: self._serve(name, source), everywhere))
            self._cancel.raise_if_requested()
        except StoppedError:
            self._undo()
            raise
        except ClouduploaderError as exc:
            return [], [Shortfall(name, f"nothing was done: {reason(exc)}") for name in everywhere]
        except BaseException:
            self._undo()
            raise
        made = [self._copies[name].objects for name in self._regions if name in self._copies]
        return [thing for objects in made for thing in objects], [item for found in served for item in found]

    def _undo(self) -> None:
        with ThreadPoolExecutor(MAX_COPIES, thread_name_prefix="copy") as pool:
            list(pool.map(copies.RegionCopy.undo, list(self._copies.values())))

    def _client(self, region: str) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        return self._account.client("ec2", self._keys, region)

    def _source(self) -> copies.CopySource:
        with boto.translated(f"region {self._home}"):
            found = self._client(self._home).describe_images(ImageIds=[self._image_id])["Images"]
        if not found:
            raise TransientError(f"EC2 does not tell of {self._image_id} in {self._home}")
        (image,) = found
        return copies.CopySource(
            id=self._image_id,
            region=self._home,
            name=image["Name"],
            description=self._attributes.description,
            is_encrypted=copies.is_encrypted(image),
            image=image,
        )

    def _serve(self, region: str, source: copies.CopySource) -> list[Shortfall]:
        """Do all that is to be done in one region.

        Raises:
            StoppedError: The stop was requested.
        """
        self._cancel.raise_if_requested()
        image = source.image
        try:
            client = self._client(region)
            if region != self._home:
                image = self._copied(region, client, source)
        except StoppedError:
            raise
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not copied: {reason(exc)}")]
        return [
            *self._changed(region, client, image),
            *self._permitted(region, client, image),
            *self._opened(region, client, image),
            *self._deprecated(region, client, image["ImageId"]),
        ]

    def _copied(self, region: str, client: Any, source: copies.CopySource) -> dict[str, Any]:  # noqa: ANN401 of boto3
        copy = self._copies[region] = copies.RegionCopy(
            region,
            client=client,
            source=source,
            kms_key=self._kms_keys.get(region),
            tags=self._tags,
            journal=self._journal,
            reporter=self._reporter,
            cancel=self._cancel,
            sleep=self._sleep,
        )
        image = copy.complete()
        if copy.is_found:
            compare.check_copy(image, source.image)
        verb = "Already there" if copy.is_found else "Copied to"
        self._reporter.line(f"{verb} {'in ' if copy.is_found else ''}{region}: {image['ImageId']}")
        return image

    def _changed(self, region: str, client: Any, image: Mapping[str, Any]) -> list[Shortfall]:  # noqa: ANN401 of boto3
        """Make an image of an earlier upload what this one asks for, and then give it our key."""
        if self._is_new and region == self._home:
            return []
        shortfalls = []
        changes = list(compare.changes(image, self._targetdata, key=self._journal.key, wanted=self._attributes))
        for change in changes:
            try:
                with boto.translated(f"region {region}"):
                    getattr(client, change.call)(**change.parameters)
                self._reporter.line(f"Changed in {region}: {image['ImageId']}, {change}")
            except ClouduploaderError as exc:
                shortfalls.append(Shortfall(region, f"not changed, {change}: {reason(exc)}"))
        if changes and not shortfalls:
            self._take_over(region, client, image["ImageId"])
        return shortfalls

    def _take_over(self, region: str, client: Any, image_id: str) -> None:  # noqa: ANN401 of boto3
        """Say on an image that it is as we ask; without that it is compared again the next time."""
        key = our_tags.as_list({our_tags.KEY: self._journal.key})
        try:
            with boto.translated(f"region {region}"):
                client.create_tags(Resources=[image_id], Tags=key)
        except ClouduploaderError as exc:
            self._reporter.detail(f"{image_id} keeps the key of another upload: {exc.message}")

    def _permitted(self, region: str, client: Any, image: Mapping[str, Any]) -> list[Shortfall]:  # noqa: ANN401 of boto3
        """Let those use the image with whom it is to be shared: first those with names, then everybody."""
        shortfalls = []
        image_id, is_encrypted = image["ImageId"], copies.is_encrypted(image)
        named = [word for word in self._share if word != fields.EVERYBODY]
        if named and is_encrypted:
            self._reporter.line(
                f"The image in {region} is encrypted: whom it is shared with must also be let use its key."
            )
        for words in (named, [word for word in self._share if word == fields.EVERYBODY]):
            try:
                if words:
                    _share(region, client, image_id, words, is_encrypted=is_encrypted)
                    self._reporter.line(f"Shared in {region}: {image_id} with {', '.join(words)}")
            except ClouduploaderError as exc:
                verb = "not shared" if words is named else "not made public"
                shortfalls.append(Shortfall(region, f"{verb}: {reason(exc)}"))
        return shortfalls

    def _opened(self, region: str, client: Any, image: Mapping[str, Any]) -> list[Shortfall]:  # noqa: ANN401 of boto3
        """Let those copy the image with whom it is shared: for that they need its snapshots."""
        words = for_snapshots(self._targetdata)
        accounts = [word for word in words if word != fields.EVERYBODY]
        batches = [accounts[start : start + MAX_GRANTS] for start in range(0, len(accounts), MAX_GRANTS)]
        if fields.EVERYBODY in words:
            batches.append([fields.EVERYBODY])
        if not batches:
            return []
        snapshots = [entry["Ebs"]["SnapshotId"] for entry in image["BlockDeviceMappings"] if "Ebs" in entry]
        try:
            for snapshot_id in snapshots:
                for batch in batches:
                    _open(region, client, snapshot_id, batch)
                    self._reporter.line(f"Shared in {region}: {snapshot_id} with {', '.join(batch)}")
        except ClouduploaderError as exc:
            if self._targetdata.get("share_snapshot") or not aws_errors.is_denied(exc):
                return [Shortfall(region, f"snapshots not shared: {reason(exc)}")]
            self._reporter.line(
                f"Not shared in {region}: {', '.join(snapshots)}, so nobody else can copy the image: {reason(exc)}"
            )
        return []

    def _deprecated(self, region: str, client: Any, image_id: str) -> list[Shortfall]:  # noqa: ANN401 of boto3
        if self._deprecate_at is None:
            return []
        try:
            with boto.translated(f"region {region}"):
                client.enable_image_deprecation(ImageId=image_id, DeprecateAt=self._deprecate_at)
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not deprecated: {reason(exc)}")]
        self._reporter.line(f"Deprecated in {region} from {self._deprecate_at:%Y-%m-%dT%H:%MZ}: {image_id}")
        return []


def _share(region: str, client: Any, image_id: str, words: Sequence[str], *, is_encrypted: bool) -> None:  # noqa: ANN401 of boto3
    if is_encrypted and fields.EVERYBODY in words:
        raise PlatformReplyError("an encrypted image can't be public")  # EC2 user guide, "Make your AMI public"
    try:
        with boto.translated(f"region {region}"):
            client.modify_image_attribute(
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


def _open(region: str, client: Any, snapshot_id: str, words: Sequence[str]) -> None:  # noqa: ANN401 of boto3
    try:
        with boto.translated(f"region {region}"):
            client.modify_snapshot_attribute(
                SnapshotId=snapshot_id,
                Attribute="createVolumePermission",
                CreateVolumePermission={"Add": [permission(word) for word in words]},
            )
    except ClouduploaderError as exc:
        if fields.EVERYBODY not in words or boto.refusal_code(exc) != "OperationNotPermitted":
            raise
        raise preflight.blocked("snapshots", region) from exc


def for_snapshots(targetdata: Mapping[str, JsonValue]) -> list[str]:
    """Those of the target data's `share` who may use the snapshots too, each once.

    A snapshot knows accounts and everybody, no organizations (EC2 API, CreateVolumePermission). Everybody only if the
    target data say so: tools that look for data which leaked take a public snapshot for an alarm.
    """
    wish = targetdata.get("share_snapshot")
    share = list(dict.fromkeys(_strings(targetdata.get("share")))) if wish is not False else []
    return [word for word in share if word.isdecimal() or (wish and word == fields.EVERYBODY)]


def permission(word: str) -> dict[str, str]:
    """One entry of the target data's `share` as the API has it."""
    if word == fields.EVERYBODY:
        return {"Group": "all"}
    if not word.startswith("arn:"):
        return {"UserId": word}
    return {"OrganizationArn" if ":organization/" in word else "OrganizationalUnitArn": word}


def reason(error: ClouduploaderError) -> str:
    """An error in one line, with what to do about it."""
    words = error.message.rstrip(".")
    return f"{words}. {error.hint}" if error.hint else words


def _strings(value: JsonValue) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
