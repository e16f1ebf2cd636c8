"""From an image to a sealed snapshot: a new one, or that of an earlier try."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from clouduploader.errors import ImageError
from clouduploader.model.disk import MISSING_COPY, Block, BlockSource, ReadStats, ZeroBlocks
from clouduploader.platforms.ec2 import image_spec, labels
from clouduploader.platforms.ec2.auth import RenewedCredentials, RoleRequest
from clouduploader.platforms.ec2.ebs import confirmed, content_key, protocol, snapshot
from clouduploader.platforms.ec2.ebs import file_digest as ebs_file_digest
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import BytesMoved, CloudObject, PhaseStarted, Reporter, UploadRequest
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

WAIT_SECONDS = 600.0  # for a sealed snapshot, times `Settings.wait_count`: as ec2uploadimg waits
MAX_ANEW = 2  # snapshots given up because the image was another than thought; then it keeps changing


class TooSmallError(ImageError):
    """The image turned out larger than was thought, and than the snapshot."""


@frozen()
class WrittenSnapshot:
    """A sealed snapshot.

    Attributes:
        id: Of the snapshot.
        digests: Of its blocks.
        content: The value of `tags.CONTENT`.
        sha256: Of the image file, in hex, or None.
    """

    id: str
    digests: confirmed.ConfirmedBlocks
    content: str
    sha256: str | None


class SnapshotWriter:
    """The filling of one upload's snapshot. Used once.

    Attributes:
        has_all: Whether a snapshot has all blocks of the image, so that another try need not send them again.

    Args:
        request: See UploadRequest.
        settings: See Settings.
        account: Of the request.
        keys: Of the account.
        own_tags: From `tags.own`.
        ebs: A client of the EBS direct APIs.
        ec2: A client of EC2.
        created: Called with each snapshot that is ours now.
        given_up: Called with each that is not used any more, for it to be removed.
        ledgers: Closes them when the upload ends.
        reporter: See Reporter.
        cancel: See Cancel.
        send: `engine.send`.
        sleep: For tests.
        clock: For tests; seconds that only grow.
    """

    def __init__(
        self,
        request: UploadRequest,
        *,
        settings: Ec2Settings,
        account: RoleRequest,
        keys: RenewedCredentials,
        own_tags: Mapping[str, str],
        ebs: Any,  # noqa: ANN401 boto3 makes its clients at run time
        ec2: Any,  # noqa: ANN401
        created: Callable[[CloudObject], None],
        given_up: Callable[[CloudObject], None],
        ledgers: contextlib.ExitStack,
        reporter: Reporter,
        cancel: Cancel,
        send: Callable[..., None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._targetdata = request.targetdata
        self._settings = settings
        self._account = account
        self._keys = keys
        self._own_tags = own_tags
        self._ebs = ebs
        self._given_up = given_up
        self._ledgers = ledgers
        self._reporter = reporter
        self._cancel = cancel
        self._send = send
        self.has_all = False
        self._current: str | None = None
        self._created = created
        self._snapshots = snapshot.Snapshots(
            ebs=ebs,
            ec2=ec2,
            region=account.region,
            journal=request.journal,
            created=self._take,
            reporter=reporter,
            cancel=cancel,
            sleep=sleep,
            clock=clock,
        )

    def run(self, aim: image_spec.ImageSpec, kms_key_arn: str | None) -> tuple[image_spec.ImageSpec, WrittenSnapshot]:
        """Do it.

        Args:
            aim: What is wanted.
            kms_key_arn: Of the snapshot's key; None for none, or the account's default.

        Returns:
            What was wanted in the end, should the size have been another; and the snapshot.

        Raises:
            StartDeniedError: The role may not start a snapshot.
            ClouduploaderError: It failed; what was made is left.
            StoppedError: The stop was requested; what was made is left.
        """
        for number in range(MAX_ANEW + 1):
            try:
                return aim, self._filled(aim, kms_key_arn)
            except confirmed.ContentChangedError as exc:
                if number == MAX_ANEW:
                    raise ImageError(f"the image changes while it is read: {exc.message}") from exc
                self._reporter.line(f"Starting anew: {exc.message}.")
                self._give_up()
            except TooSmallError as exc:
                self._reporter.line(f"Starting anew: {exc.message}.")
                self._give_up()
                aim = image_spec.resolve(self._request, self._reporter, is_measured=True)
        raise ImageError("the image changes while it is read: its size was another each time")

    def _enter(self, phase: str) -> None:
        self._reporter.event(PhaseStarted(phase))

    def _take(self, thing: CloudObject) -> None:
        self._current = thing.id
        self._created(thing)

    def _give_up(self) -> None:
        self.has_all = False
        if self._current:
            self._given_up(self._snapshots.discard(self._current))
            self._current = None

    def _filled(self, aim: image_spec.ImageSpec, kms_key_arn: str | None) -> WrittenSnapshot:
        self._enter("start snapshot")
        parameters = self._parameters(aim, kms_key_arn)
        earlier = self._snapshots.earlier()
        if earlier and not snapshot.fits(earlier, parameters):
            raise confirmed.ContentChangedError(f"snapshot {earlier.id} of an earlier try is of another kind")
        if earlier and earlier.is_completed:
            self.has_all = True
            if filled := self._recognised(earlier):
                return filled
            raise confirmed.ContentChangedError(f"snapshot {earlier.id} of an earlier try is not of this image")
        snapshot_id = earlier.id if earlier else self._snapshots.start(parameters)
        digests = self._ledger(snapshot_id)
        if earlier:
            self._reporter.line(f"Going on with snapshot {snapshot_id}, which has {digests.count} blocks already.")
        tally = self._transfer(snapshot_id, digests, aim)
        if not aim.is_size_exact:
            checker = image_spec.PropertyChecker(self._targetdata, self._reporter)
            checker.check_whole(tally.size_bytes, aim)
            if tally.size_bytes < aim.copy_bytes:
                checker.tell(f"Warning: {MISSING_COPY}.")
        self.has_all = True
        return self._seal(snapshot_id, digests, tally)

    def _parameters(self, aim: image_spec.ImageSpec, kms_key_arn: str | None) -> dict[str, Any]:
        """Of StartSnapshot."""
        found: dict[str, Any] = {
            "VolumeSize": aim.volume_gib,
            "Description": str(self._targetdata.get("description") or self._targetdata["ami_name"]),
            "Tags": labels.as_list(self._first_tags()),
            "Timeout": self._settings.pending_minutes,
        }
        if kms_key_arn or self._targetdata.get("encrypted"):
            found["Encrypted"] = True
        if kms_key_arn:
            found["KmsKeyArn"] = kms_key_arn
        return found

    def _recognised(self, earlier: snapshot.ExistingSnapshot) -> WrittenSnapshot | None:
        """A snapshot that an earlier try has sealed, if it is sure that it is this image."""
        if earlier.seal is None:
            return None
        digests = self._ledger(earlier.id)
        if digests.count != earlier.seal.get("count"):
            return None
        self._reporter.line(f"Snapshot {earlier.id} of an earlier try is complete; reading the image to compare them.")
        found = content_key.read(self._request, self._cancel)
        if found != earlier.seal.get("content"):
            return None
        sha256 = earlier.seal.get("sha256")
        return WrittenSnapshot(earlier.id, digests, found, sha256 if isinstance(sha256, str) else None)

    def _first_tags(self) -> dict[str, str]:
        """What is known from the start; EBS takes shorter values than EC2, which gets the rest in the end."""
        all_tags = labels.joined(self._own_tags, self._targetdata.get("tags"))
        return {name: value for name, value in all_tags.items() if len(value) <= labels.MAX_VALUE_LENGTH}

    def _ledger(self, snapshot_id: str) -> confirmed.ConfirmedBlocks:
        return self._ledgers.enter_context(
            confirmed.ConfirmedBlocks(self._request.journal.directory / f"{snapshot_id}.ledger")
        )

    def _transfer(self, snapshot_id: str, digests: confirmed.ConfirmedBlocks, aim: image_spec.ImageSpec) -> ReadStats:
        self._enter("upload")
        zero_blocks = ZeroBlocks(str(self._targetdata.get("zero_blocks", ZeroBlocks.HOLES)))
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._request.open_blocks(protocol.BLOCK_BYTES, zero_blocks))
            file_digest = None
            if self._settings.file_digest == "always" and source.can_reread:
                file_digest = stack.enter_context(ebs_file_digest.FileDigest(self._request.image.path, self._cancel))

            def tell() -> None:
                done = source.position()
                self._reporter.event(BytesMoved(done, aim.size_bytes if done <= aim.size_bytes else None))

            self._send(
                source if aim.is_size_exact else _Bounded(source, aim.volume_gib * image_spec.GIB),
                route=self._account.route(self._ebs),
                snapshot_id=snapshot_id,
                ledger=digests,
                keys=self._keys,
                settings=self._settings,
                make_client=lambda **options: self._account.client("ebs", self._keys, **options),
                cancel=self._cancel,
                reporter=self._reporter,
                on_progress=tell,
            )
            tell()
            tally = source.tally()
            if file_digest:
                tally = dataclasses.replace(tally, file_sha256=file_digest.result())
        self._reporter.line(
            f"All {digests.count} blocks are in snapshot {snapshot_id}: {tally.data_blocks} with data, "
            f"{tally.zero_blocks} of zeros. Left out: {tally.hole_blocks} holes, {tally.skipped_blocks} of zeros."
        )
        return tally

    def _seal(self, snapshot_id: str, digests: confirmed.ConfirmedBlocks, tally: ReadStats) -> WrittenSnapshot:
        self._enter("seal")
        digests.sync()
        count, checksum = digests.linear_checksum()
        filled = WrittenSnapshot(
            snapshot_id, digests, content_key.of(digests, tally), tally.file_sha256 or promised_sha256(self._request)
        )
        limit_seconds = self._settings.wait_count * WAIT_SECONDS
        self._snapshots.seal(
            snapshot_id,
            count=count,
            checksum=checksum,
            limit_seconds=limit_seconds,
            content=filled.content,
            sha256=filled.sha256,
        )
        self._snapshots.wait(snapshot_id, limit_seconds)
        return filled


def promised_sha256(request: UploadRequest) -> str | None:
    """What the target data say of the image file; reading it to its end has checked that."""
    given = request.targetdata.get("sha256")
    return given.lower() if isinstance(given, str) else None


class _Bounded:
    """A source whose size was a guess: raises TooSmallError at a block that has no place in the snapshot."""

    def __init__(self, source: BlockSource, limit_bytes: int) -> None:
        self.can_reread = source.can_reread
        self.reread_into = source.reread_into
        self.position = source.position
        self.tally = source.tally
        self._source = source
        self._limit_blocks = limit_bytes // protocol.BLOCK_BYTES

    def next_into(self, buffer: bytearray) -> Block | None:
        block = self._source.next_into(buffer)
        if block is not None and block.index >= self._limit_blocks:
            raise TooSmallError("the image is larger than it seemed to be")
        return block
