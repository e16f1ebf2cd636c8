"""After the upload: copies in further regions, who may use the image, and when it becomes deprecated.

Each region is served by a thread of its own; what fails in one is told, and does no harm to the others. All can
be done again: a copy that is there already is found by its name and our tags.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, StoppedError
from clouduploader.platform import CloudObject, Journal, JsonValue, PhaseStarted, Reporter, Shortfall
from clouduploader.platforms.ec2 import api, copies, fields
from clouduploader.platforms.ec2 import tags as our_tags
from clouduploader.platforms.ec2.credentials import Account
from clouduploader.stop import Stop

MAX_COPIES = 20  # at once; EBS user guide, quotas, "Concurrent snapshot copies per destination Region"


def distribute(
    image_id: str,
    *,
    account: Account,
    region: str,
    targetdata: Mapping[str, JsonValue],
    journal: Journal,
    tags: Mapping[str, str],
    reporter: Reporter,
    stop: Stop,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[CloudObject], list[Shortfall]]:
    """Copy, share and deprecate an image as the target data say. Blocks as long as the copies take.

    Args:
        image_id: An image that is available.
        account: Whose it is.
        region: Where it is.
        targetdata: The keys `regions`, `kms_keys`, `share` and `deprecate_at` are used.
        journal: Of the upload.
        tags: Of the image; the copies and their snapshots get the same, with the journal's key.
        reporter: Told of each copy at once.
        stop: See Stop.
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
        journal=journal,
        tags=tags,
        reporter=reporter,
        stop=stop,
        sleep=sleep,
    )
    return distribution.run()


class _Distribution:
    def __init__(
        self,
        image_id: str,
        *,
        account: Account,
        home: str,
        targetdata: Mapping[str, JsonValue],
        journal: Journal,
        tags: Mapping[str, str],
        reporter: Reporter,
        stop: Stop,
        sleep: Callable[[float], None],
    ) -> None:
        self._image_id = image_id
        self._account = account
        self._keys = account.renewing()
        self._home = home
        self._journal = journal
        self._tags = {**tags, our_tags.KEY: journal.key}  # the image may be an earlier upload's, the copies are ours
        self._reporter = reporter
        self._stop = stop
        self._sleep = sleep
        self._regions = [name for name in dict.fromkeys(_strings(targetdata.get("regions"))) if name != home]
        keys = targetdata.get("kms_keys")
        self._kms_keys = {name: str(key) for name, key in keys.items()} if isinstance(keys, dict) else {}
        self._share = list(dict.fromkeys(_strings(targetdata.get("share"))))
        self._deprecate_at = fields.moment(targetdata.get("deprecate_at"))
        self._copies: dict[str, copies.Copy] = {}

    def run(self) -> tuple[list[CloudObject], list[Shortfall]]:
        """See `distribute`."""
        everywhere = [self._home, *self._regions]
        if not (self._regions or self._share or self._deprecate_at):
            return [], []
        if self._regions:
            self._reporter.event(PhaseStarted("copy"))
        try:
            source = self._source()
            with ThreadPoolExecutor(MAX_COPIES, thread_name_prefix="copy") as pool:
                served = list(pool.map(lambda name: self._serve(name, source), everywhere))
            self._stop.raise_if_requested()
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
            list(pool.map(copies.Copy.undo, list(self._copies.values())))

    def _client(self, region: str) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        return self._account.client("ec2", self._keys, region)

    def _source(self) -> copies.Source:
        with api.translated(f"region {self._home}"):
            (image,) = self._client(self._home).describe_images(ImageIds=[self._image_id])["Images"]
        return copies.Source(
            id=self._image_id,
            region=self._home,
            name=image["Name"],
            description=image.get("Description") or "",
            is_encrypted=copies.is_encrypted(image),
        )

    def _serve(self, region: str, source: copies.Source) -> list[Shortfall]:
        """Do all that is to be done in one region.

        Raises:
            StoppedError: The stop was requested.
        """
        self._stop.raise_if_requested()
        image_id, is_encrypted = source.id, source.is_encrypted
        try:
            client = self._client(region)
            if region != self._home:
                image = self._copied(region, client, source)
                image_id, is_encrypted = image["ImageId"], copies.is_encrypted(image)
        except StoppedError:
            raise
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not copied: {reason(exc)}")]
        return self._permitted(region, client, image_id, is_encrypted) + self._deprecated(region, client, image_id)

    def _copied(self, region: str, client: Any, source: copies.Source) -> dict[str, Any]:  # noqa: ANN401 of boto3
        copy = self._copies[region] = copies.Copy(
            region,
            client=client,
            source=source,
            kms_key=self._kms_keys.get(region),
            tags=self._tags,
            journal=self._journal,
            reporter=self._reporter,
            stop=self._stop,
            sleep=self._sleep,
        )
        image = copy.complete()
        self._reporter.line(f"Copied to {region}: {image['ImageId']}")
        return image

    def _permitted(self, region: str, client: Any, image_id: str, is_encrypted: bool) -> list[Shortfall]:  # noqa: ANN401 of boto3
        """Let those use the image with whom it is to be shared: first those with names, then everybody."""
        shortfalls = []
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

    def _deprecated(self, region: str, client: Any, image_id: str) -> list[Shortfall]:  # noqa: ANN401 of boto3
        if self._deprecate_at is None:
            return []
        try:
            with api.translated(f"region {region}"):
                client.enable_image_deprecation(ImageId=image_id, DeprecateAt=self._deprecate_at)
        except ClouduploaderError as exc:
            return [Shortfall(region, f"not deprecated: {reason(exc)}")]
        self._reporter.line(f"Deprecated in {region} from {self._deprecate_at:%Y-%m-%dT%H:%MZ}: {image_id}")
        return []


def _share(region: str, client: Any, image_id: str, words: Sequence[str], *, is_encrypted: bool) -> None:  # noqa: ANN401 of boto3
    if is_encrypted and fields.EVERYBODY in words:
        raise PlatformReplyError("an encrypted image can't be public")  # EC2 user guide, "Make your AMI public"
    try:
        with api.translated(f"region {region}"):
            client.modify_image_attribute(
                ImageId=image_id, LaunchPermission={"Add": [permission(word) for word in words]}
            )
    except ClouduploaderError as exc:
        if fields.EVERYBODY not in words or copies.refusal_code(exc) != "OperationNotPermitted":
            raise
        raise DeniedError(  # EC2 user guide, "Block public access to your AMIs"
            f"the account blocks public images in {region} (ModifyImageAttribute: OperationNotPermitted)",
            hint="Allow them with `aws ec2 disable-image-block-public-access`.",
        ) from exc


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
