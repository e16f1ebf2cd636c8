"""From an image to a sealed snapshot: a new one, or that of an earlier try."""

import base64
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from clouduploader.errors import ImageError
from clouduploader.model.disk import MISSING_COPY, Block, BlockSource, ReadStats, ZeroBlocks
from clouduploader.platforms.ec2 import image_spec, labels
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol, sender, snapshot
from clouduploader.plugin import UploadRequest
from clouduploader.plugin.transfer import ConfirmedChunks, ContentChangedError, FileDigest, content, read_content
from clouduploader.util.frozen import frozen

WAIT_SECONDS = 600.0  # for a sealed snapshot, times `Ec2Settings.wait_count`: as ec2uploadimg waits
MAX_RESTARTS = 2  # snapshots given up because the image was another than thought; then it keeps changing


class TooSmallError(ImageError):
    """The image turned out larger than was thought, and than the snapshot."""


@frozen()
class WrittenSnapshot:
    """A sealed snapshot.

    Attributes:
        id: Of the snapshot.
        confirmed: Its blocks.
        content: The value of `labels.CONTENT`.
        sha256: Of the image file, in hex, or None.
    """

    id: str
    confirmed: ConfirmedChunks
    content: str
    sha256: str | None


class SnapshotWriter:
    """Writes one upload's snapshot. Used once; a context manager, which closes the logs of confirmed blocks.

    Args:
        context: The upload.
        own_tags: From `labels.own`.

    Attributes:
        has_all: Whether a snapshot has all blocks of the image, so that another try need not send them again.
    """

    def __init__(self, context: Ec2Context, own_tags: Mapping[str, str]) -> None:
        self.has_all = False
        self._context = context
        self._ctx = context.ctx
        self._own_tags = own_tags
        self._snapshots = snapshot.Snapshots(context)
        self._logs = contextlib.ExitStack()

    def __enter__(self) -> "SnapshotWriter":
        """Give itself."""
        return self

    def __exit__(self, *_details: object) -> None:
        """Close the logs."""
        self._logs.close()

    def run(self, spec: image_spec.ImageSpec, kms_key_arn: str | None) -> tuple[image_spec.ImageSpec, WrittenSnapshot]:
        """Send the image, and seal the snapshot. Blocks for as long as that takes.

        Args:
            spec: What is wanted.
            kms_key_arn: Of the snapshot's key; None for none, or the account's default.

        Returns:
            What was wanted in the end, should the size have been another; and the snapshot, whose log is open for as
            long as the writer is.

        Raises:
            StartDeniedError: The role may not start a snapshot.
            ClouduploaderError: It failed; what was made is left.
            StoppedError: The upload was cancelled; what was made is left.
        """
        for number in range(MAX_RESTARTS + 1):
            try:
                return spec, self._written(spec, kms_key_arn)
            except ContentChangedError as exc:
                if number == MAX_RESTARTS:
                    raise ImageError(f"the image changes while it is read: {exc.message}") from exc
                self._give_up(exc.message)
            except TooSmallError as exc:
                self._give_up(exc.message)
                spec = image_spec.resolve(self._ctx.request, self._ctx.reporter, is_measured=True)
        raise ImageError("the image changes while it is read: its size was another each time")

    def _give_up(self, reason: str) -> None:
        self._ctx.reporter.line(f"Starting anew: {reason}.")
        self.has_all = False
        self._snapshots.discard()

    def _written(self, spec: image_spec.ImageSpec, kms_key_arn: str | None) -> WrittenSnapshot:
        with self._ctx.phase("start snapshot"):
            parameters = self._parameters(spec, kms_key_arn)
            earlier = self._snapshots.earlier()
            if earlier and not snapshot.fits(earlier, parameters):
                raise ContentChangedError(f"snapshot {earlier.id} of an earlier try is of another kind")
            if earlier and earlier.is_completed:
                self.has_all = True
                if written := self._recognised(earlier):
                    return written
                raise ContentChangedError(f"snapshot {earlier.id} of an earlier try is not of this image")
            snapshot_id = earlier.id if earlier else self._snapshots.start(parameters)
            confirmed = self._open_log(snapshot_id)
            if earlier:
                self._ctx.reporter.line(
                    f"Going on with snapshot {snapshot_id}, which has {confirmed.count} blocks already."
                )
        with self._ctx.phase("upload"):
            stats = self._transfer(snapshot_id, confirmed, spec)
            if not spec.is_size_exact:
                checker = image_spec.PropertyChecker(self._ctx.targetdata, self._ctx.reporter)
                checker.check_whole(stats.size_bytes, spec)
                if stats.size_bytes < spec.copy_bytes:
                    checker.tell(f"Warning: {MISSING_COPY}.")
            self.has_all = True
        with self._ctx.phase("seal"):
            return self._sealed(snapshot_id, confirmed, stats)

    def _parameters(self, spec: image_spec.ImageSpec, kms_key_arn: str | None) -> dict[str, Any]:
        """Make the parameters of StartSnapshot."""
        targetdata = self._ctx.targetdata
        found: dict[str, Any] = {
            "VolumeSize": spec.volume_gib,
            "Description": str(targetdata.get("description") or targetdata["ami_name"]),
            "Tags": labels.as_list(self._first_tags()),
            "Timeout": self._context.settings.pending_minutes,
        }
        if kms_key_arn or targetdata.get("encrypted"):
            found["Encrypted"] = True
        if kms_key_arn:
            found["KmsKeyArn"] = kms_key_arn
        return found

    def _first_tags(self) -> dict[str, str]:
        """Make the tags known from the start; EBS takes shorter values than EC2, which gets the rest in the end."""
        all_tags = labels.joined(self._own_tags, self._ctx.targetdata.get("tags"))
        return {name: value for name, value in all_tags.items() if len(value) <= labels.MAX_VALUE_LENGTH}

    def _recognised(self, earlier: snapshot.ExistingSnapshot) -> WrittenSnapshot | None:
        """Take a snapshot that an earlier try has sealed, if it is sure that it is this image."""
        if earlier.seal is None:
            return None
        confirmed = self._open_log(earlier.id)
        if confirmed.count != earlier.seal.get("count"):
            return None
        self._ctx.reporter.line(
            f"Snapshot {earlier.id} of an earlier try is complete; reading the image to compare them."
        )
        found = read_content(self._ctx, protocol.BLOCK_BYTES)
        if found != earlier.seal.get("content"):
            return None
        sha256 = earlier.seal.get("sha256")
        return WrittenSnapshot(earlier.id, confirmed, found, sha256 if isinstance(sha256, str) else None)

    def _open_log(self, snapshot_id: str) -> ConfirmedChunks:
        path = self._ctx.request.journal.directory / f"{snapshot_id}.confirmed"
        return self._logs.enter_context(ConfirmedChunks(path, protocol.BLOCK_BYTES))

    def _transfer(self, snapshot_id: str, confirmed: ConfirmedChunks, spec: image_spec.ImageSpec) -> ReadStats:
        zero_blocks = ZeroBlocks(str(self._ctx.targetdata.get("zero_blocks", ZeroBlocks.HOLES)))
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._ctx.open_blocks(protocol.BLOCK_BYTES, zero_blocks))
            file_digest = None
            if self._context.settings.file_digest == "always" and source.can_reread:
                self._ctx.request.await_file()
                file_digest = stack.enter_context(FileDigest(self._ctx.request.image.path, self._ctx.cancel))
            sender.send(
                self._context,
                source if spec.is_size_exact else _Bounded(source, spec.volume_gib * image_spec.GIB),
                snapshot_id=snapshot_id,
                confirmed=confirmed,
                total_bytes=spec.size_bytes,
            )
            stats = source.stats()
            if file_digest:
                stats = dataclasses.replace(stats, file_sha256=file_digest.result())
        self._ctx.reporter.line(
            f"All {confirmed.count} blocks are in snapshot {snapshot_id}: {stats.data_blocks} with data, "
            f"{stats.zero_blocks} of zeros. Left out: {stats.hole_blocks} holes, {stats.skipped_blocks} of zeros."
        )
        return stats

    def _sealed(self, snapshot_id: str, confirmed: ConfirmedChunks, stats: ReadStats) -> WrittenSnapshot:
        confirmed.sync()
        sha256 = stats.file_sha256 or promised_sha256(self._ctx.request)
        written = WrittenSnapshot(snapshot_id, confirmed, content(confirmed, stats.size_bytes), sha256)
        limit_seconds = self._context.settings.wait_count * WAIT_SECONDS
        self._snapshots.seal(
            snapshot_id,
            count=confirmed.count,
            checksum=linear_checksum(confirmed),
            limit_seconds=limit_seconds,
            content=written.content,
            sha256=sha256,
        )
        self._snapshots.wait(snapshot_id, limit_seconds)
        return written


def linear_checksum(confirmed: ConfirmedChunks) -> str:
    """Return what CompleteSnapshot calls the Checksum of method LINEAR: over the digests in ascending order, base64."""
    return base64.b64encode(confirmed.digest_of_digests()).decode()


def promised_sha256(request: UploadRequest) -> str | None:
    """Return what the target data say of the image file; reading it to its end has checked that."""
    given = request.targetdata.get("sha256")
    return given.lower() if isinstance(given, str) else None


class _Bounded:
    """A source whose size was a guess: raises TooSmallError at a block that has no place in the snapshot."""

    def __init__(self, source: BlockSource, limit_bytes: int) -> None:
        self.can_reread = source.can_reread
        self.reread_into = source.reread_into
        self.position = source.position
        self.stats = source.stats
        self._source = source
        self._limit_blocks = limit_bytes // protocol.BLOCK_BYTES

    def next_into(self, buffer: bytearray) -> Block | None:
        block = self._source.next_into(buffer)
        if block is not None and block.index >= self._limit_blocks:
            raise TooSmallError("the image is larger than it seemed to be")
        return block
