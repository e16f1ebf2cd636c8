"""One upload through the EBS direct APIs: blocks into a snapshot, sealed, verified, registered as an AMI."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import ami, aws_errors, boto, compare, image_spec, labels, preflight, replicate
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol, snapshot, verify, writer
from clouduploader.plugin import CloudObject, UploadResult
from clouduploader.plugin.transfer import read_content


class EbsUpload:
    """One upload. Used once.

    Args:
        context: The upload.
    """

    def __init__(self, context: Ec2Context) -> None:
        ctx = context.ctx
        self._ctx = ctx
        self._context = context
        self._targetdata = ctx.targetdata
        self._own_tags = labels.own(ctx.request, datetime.datetime.now(datetime.UTC))
        self._writer = writer.SnapshotWriter(context, self._own_tags)
        self._image_id: str | None = None
        self._regions: list[str] = []  # of the copies

    def run(self) -> UploadResult:
        """Make the AMI. See `Platform.upload` for what is promised.

        Raises:
            StartDeniedError: The role may not start a snapshot; nothing was made.
        """
        context, ctx = self._context, self._ctx
        with ctx.cancel.interruptible():
            context.authenticate()
            with ctx.phase("check image"):
                spec = image_spec.resolve(ctx.request, ctx.reporter)
                kms_key_arn = snapshot.key_arn(context)
                existing = ami.named_by_now(context)
                is_failed = existing is not None and ami.is_failed(existing, ctx.request.journal.key)
                if existing is not None and not is_failed:
                    self._check_same(existing, spec, kms_key_arn)
                self._regions = preflight.check(context, image=None if is_failed else existing)
        if existing is not None and is_failed:
            ctx.remove([CloudObject("image", str(existing["ImageId"]), context.region)])
        elif existing is not None:
            given = labels.as_mapping(existing.get("Tags"))
            objects = ami.objects(existing, context.region)
            return self._distributed(objects, given, spec, is_new=False)
        with self._writer:
            try:
                spec, written = self._writer.run(spec, kms_key_arn)
                self._verify(written)
                all_tags = self._register(spec, written)
                objects = sorted(self._made(), key=lambda thing: thing.kind)  # the image before the snapshot
                ctx.cancel.raise_if_requested()
                # A cancellation from there on finds no copies.
                return self._distributed(objects, all_tags, spec, is_new=True)
            except BaseException as exc:
                self._keep_useful(exc)
                raise

    def _check_same(self, existing: Mapping[str, Any], spec: image_spec.ImageSpec, kms_key_arn: str | None) -> None:
        """Return if the image that has our name is what we would make, and can be used."""
        context, ctx = self._context, self._ctx
        image_id, theirs = str(existing["ImageId"]), labels.as_mapping(existing.get("Tags"))
        promised = writer.promised_sha256(ctx.request)
        if promised is None or theirs.get(labels.SHA256) != promised:
            if labels.CONTENT not in theirs:
                raise aws_errors.name_taken(
                    image_id, f"without a tag {labels.CONTENT} it can't be compared with this one"
                )
            ctx.reporter.line(f"{image_id} has that name already; reading our image to compare them.")
            ours = read_content(ctx, protocol.BLOCK_BYTES)
            if theirs[labels.CONTENT] != ours:
                raise aws_errors.name_taken(
                    image_id, f"its content is {theirs[labels.CONTENT]}, that of this one {ours}"
                )
        sizes = image_spec.volume_sizes_of_content(self._targetdata.get("root_volume_size"), spec, theirs)
        compare.check(context, existing, attributes=spec.attributes, volume_gib=sizes, kms_key_arn=kms_key_arn)
        ami.wait(context, image_id)
        ctx.reporter.line(f"{image_id} is already there: it has that name and this very content.")

    def _verify(self, written: writer.WrittenSnapshot) -> None:
        asked = self._targetdata.get("verify")
        if asked != "none":
            with self._ctx.phase("verify"):
                verify.run(self._context, written.id, written.confirmed, asked=str(asked) if asked else None)

    def _register(self, spec: image_spec.ImageSpec, written: writer.WrittenSnapshot) -> dict[str, str]:
        context, ctx = self._context, self._ctx
        with ctx.phase("register"):
            ctx.cancel.raise_if_requested()
            digests = {labels.CONTENT: written.content} | ({labels.SHA256: written.sha256} if written.sha256 else {})
            all_tags = labels.joined(self._own_tags | digests, self._targetdata.get("tags"))
            ctx.retry(lambda: self._tag(written.id, all_tags), may_pass=boto.may_pass)
            asked = ami.parameters(
                name=str(self._targetdata["ami_name"]), wanted=spec, snapshot_id=written.id, image_tags=all_tags
            )
            image_id = ami.register(context, asked)
            ctx.resources.made(CloudObject("image", image_id, context.region))
            self._image_id = image_id
            try:
                ami.wait(context, image_id)
            except PlatformReplyError:
                self._image_id = None  # it never can be used
                raise
        ctx.reporter.line(f"Created image: {image_id}")
        return all_tags

    def _tag(self, snapshot_id: str, all_tags: Mapping[str, str]) -> None:
        with self._ctx.translated(f"snapshot {snapshot_id}"):
            self._context.ec2.create_tags(Resources=[snapshot_id], Tags=labels.as_list(all_tags))

    def _distributed(
        self,
        objects: Sequence[CloudObject],
        image_tags: Mapping[str, str],
        spec: image_spec.ImageSpec,
        *,
        is_new: bool,
    ) -> UploadResult:
        """Copy and share the image as asked for; return the result."""
        return replicate.Distribution(
            self._context, regions=self._regions, attributes=spec.attributes, tags=image_tags, is_new=is_new
        ).run(objects)

    def _made(self) -> list[CloudObject]:
        """List what this upload has made, but for copies."""
        return [thing for thing in self._ctx.resources.to_undo() if thing.region == self._context.region]

    def _keep_useful(self, exc: BaseException) -> None:
        """Keep what was made from being undone, as far as it is of use."""
        context, resources = self._context, self._ctx.resources
        is_cancelled = self._ctx.cancel.is_requested
        is_whole = self._image_id is not None and not is_cancelled
        is_kept = self._is_kept(exc)
        for thing in self._made():
            if is_whole:
                resources.keep(thing)
                continue
            if thing.kind != "snapshot":
                continue
            if "image" in resources.unanswered(context.region) and (is_cancelled or not is_kept):
                self._find_image(thing.id)
            if is_kept:
                self._keep(thing)

    def _keep(self, thing: CloudObject) -> None:
        self._ctx.resources.keep(thing)
        if self._is_to_be_kept:
            self._ctx.request.journal.write("kept", **dataclasses.asdict(thing))
        self._ctx.reporter.line(
            f"Kept: snapshot {thing.id} in {thing.region}. The same upload once more goes on with it; "
            "`clouduploader cleanup --completed` removes it. "
            f"AWS removes it {self._context.settings.pending_minutes} minutes after its last block if it is incomplete."
        )

    def _is_kept(self, exc: BaseException) -> bool:
        """Tell whether the snapshot is left for another try: that is wanted, or all it lacks is an answer of AWS."""
        if isinstance(exc, verify.MismatchError):
            return False
        is_finished = self._writer.has_all and isinstance(exc, TransientError) and not self._ctx.cancel.is_requested
        return self._is_to_be_kept or is_finished

    @property
    def _is_to_be_kept(self) -> bool:
        return self._targetdata.get("keep") == "snapshot"

    def _find_image(self, snapshot_id: str) -> None:
        """Look once more for an image that was asked for without an answer; else the journal has the request."""
        image_id = ami.id_of_snapshot(self._context, snapshot_id)
        if image_id:
            self._ctx.resources.made(CloudObject("image", image_id, self._context.region))
