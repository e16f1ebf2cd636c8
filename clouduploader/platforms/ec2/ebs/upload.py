"""One upload through the EBS direct APIs: blocks into a snapshot, sealed, verified, registered as an AMI."""

import contextlib
import dataclasses
import datetime
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clouduploader.errors import PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import (
    auth,
    aws_errors,
    boto,
    cleanup,
    image_spec,
    labels,
    preflight,
    replicate,
    retry,
)
from clouduploader.platforms.ec2.ami import compare, find, register
from clouduploader.platforms.ec2.auth import RoleRequest
from clouduploader.platforms.ec2.ebs import content_key, sender, snapshot, verify, writer
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import (
    CloudObject,
    ObjectCreated,
    PhaseStarted,
    PlatformContext,
    Reporter,
    UploadRequest,
    UploadResult,
)
from clouduploader.util.cancel import Cancel


class EbsUpload:
    """One upload. Used once.

    Args:
        context: See PlatformContext.
        settings: See Settings.
        request: See UploadRequest.
        reporter: See Reporter.
        cancel: See Cancel.
        way: For tests: into the account of the request.
        send: For tests: `engine.send`.
        sleep: For tests.
        clock: For tests; seconds that only grow.
    """

    def __init__(
        self,
        context: PlatformContext,
        settings: Ec2Settings,
        *,
        request: UploadRequest,
        reporter: Reporter,
        cancel: Cancel,
        way: RoleRequest | None = None,
        send: Callable[..., None] = sender.send,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._request = request
        self._reporter = reporter
        self._cancel = cancel
        self._send = send
        self._sleep, self._clock = sleep, clock
        self._targetdata = request.targetdata
        self._name = str(request.targetdata["ami_name"])
        self._region = str(request.targetdata["region"])
        self._account = way or auth.account(
            context,
            settings,
            targetdata=request.targetdata,
            user=request.user,
            job_name=request.job_name,
            reporter=reporter,
            cancel=cancel,
        )
        self._keys = self._account.renewing()
        self._own_tags = labels.own(
            key=request.journal.key,
            job_name=request.job_name,
            filename=request.image.filename,
            provenance=request.provenance,
            started=datetime.datetime.now(datetime.UTC),
        )
        self._objects: dict[CloudObject, float] = {}  # and when they were made, by the clock
        self._registering: str | None = None  # the snapshot of an image of which nobody knows whether it is there
        self._image_id: str | None = None
        self._open = contextlib.ExitStack()  # of ledgers

    @functools.cached_property
    def _ec2(self) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        return self._account.client("ec2", self._keys)

    @functools.cached_property
    def _ebs(self) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        return self._account.client("ebs", self._keys)

    @functools.cached_property
    def _filling(self) -> writer.SnapshotWriter:
        return writer.SnapshotWriter(
            self._request,
            settings=self._settings,
            account=self._account,
            keys=self._keys,
            own_tags=self._own_tags,
            ebs=self._ebs,
            ec2=self._ec2,
            created=self._created,
            given_up=lambda thing: self._remove([thing]),
            ledgers=self._open,
            reporter=self._reporter,
            cancel=self._cancel,
            send=self._send,
            sleep=self._sleep,
            clock=self._clock,
        )

    def run(self) -> UploadResult:
        """Do it. See `Platform.upload` for what is promised.

        Raises:
            StartDeniedError: The role may not start a snapshot; nothing was made.
        """
        with self._open:
            with self._cancel.interruptible():
                auth.check_role(self._request)
                self._enter("authenticate")
                self._keys()
                self._reporter.line("Successfully authenticated.")
                self._enter("check image")
                aim = image_spec.resolve(self._request, self._reporter)
                kms_key_arn = self._kms_key_arn()
                taken = find.named_by_now(
                    self._ec2,
                    self._name,
                    self._region,
                    journal=self._request.journal,
                    cancel=self._cancel,
                    sleep=self._sleep,
                    clock=self._clock,
                )
                is_in_the_way = taken is not None and find.is_failed(taken, self._request.journal.key)
                if taken is not None and not is_in_the_way:
                    self._check_same(taken, aim, kms_key_arn)
                self._targetdata = preflight.settle(
                    self._account,
                    self._targetdata,
                    image=None if is_in_the_way else taken,
                    reporter=self._reporter,
                )
            if taken is not None and is_in_the_way:
                self._remove([CloudObject("image", str(taken["ImageId"]), self._region)])
            elif taken is not None:
                given = labels.as_mapping(taken.get("Tags"))
                objects = find.objects(taken, self._region)
                return self._finish(str(taken["ImageId"]), given, objects, aim, is_new=False)
            try:
                aim, filled = self._filling.run(aim, kms_key_arn)
                self._verify(filled)
                image_id, all_tags = self._register(aim, filled)
                objects = sorted(self._objects, key=lambda thing: thing.kind)  # the image before the snapshot
                self._cancel.raise_if_requested()
                # A stop from there on finds no copies.
                return self._finish(image_id, all_tags, objects, aim, is_new=True)
            except BaseException as exc:
                self._undo(exc)
                self._cancel.raise_if_requested()
                raise

    def _enter(self, phase: str) -> None:
        self._reporter.event(PhaseStarted(phase))

    def _created(self, thing: CloudObject) -> None:
        self._objects[thing] = self._clock()
        self._reporter.event(ObjectCreated(thing))

    def _kms_key_arn(self) -> str | None:
        name = self._targetdata.get("kms_key_id")
        if name is None:
            return None
        return snapshot.key_arn(str(name), lambda: self._account.client("kms", self._keys), self._region)

    def _check_same(self, taken: Mapping[str, Any], aim: image_spec.ImageSpec, kms_key_arn: str | None) -> None:
        """Return if the image that has our name is what we would make, and can be used."""
        image_id, theirs = str(taken["ImageId"]), labels.as_mapping(taken.get("Tags"))
        promised = writer.promised_sha256(self._request)
        if promised is None or theirs.get(labels.SHA256) != promised:
            if labels.CONTENT not in theirs:
                raise aws_errors.name_taken(
                    image_id, f"without a tag {labels.CONTENT} it can't be compared with this one"
                )
            self._reporter.line(f"{image_id} has that name already; reading our image to compare them.")
            ours = content_key.read(self._request, self._cancel)
            if theirs[labels.CONTENT] != ours:
                raise aws_errors.name_taken(
                    image_id, f"its content is {theirs[labels.CONTENT]}, that of this one {ours}"
                )
        compare.check(
            taken,
            self._targetdata,
            key=self._request.journal.key,
            attributes=aim.attributes,
            volume_gib=image_spec.volume_sizes_of_content(self._targetdata.get("root_volume_size"), aim, theirs),
            uefi_data_of=lambda found_id: compare.uefi_data(self._ec2, found_id, self._region),
            reporter=self._reporter,
            kms_key_arn=kms_key_arn,
            key_of=lambda snapshot_id: compare.key_of_snapshot(self._ec2, snapshot_id, self._region),
        )
        register.wait(self._ec2, image_id, region=self._region, cancel=self._cancel, sleep=self._sleep)
        self._reporter.line(f"{image_id} is already there: it has that name and this very content.")

    def _verify(self, filled: writer.WrittenSnapshot) -> None:
        asked = self._targetdata.get("verify")
        if asked == "none":
            return
        self._enter("verify")
        verify.run(
            self._ebs,
            filled.id,
            filled.digests,
            asked=str(asked) if asked else None,
            reporter=self._reporter,
            cancel=self._cancel,
            sleep=self._sleep,
            clock=self._clock,
        )

    def _register(self, aim: image_spec.ImageSpec, filled: writer.WrittenSnapshot) -> tuple[str, dict[str, str]]:
        self._enter("register")
        self._cancel.raise_if_requested()
        digests = {labels.CONTENT: filled.content} | ({labels.SHA256: filled.sha256} if filled.sha256 else {})
        all_tags = labels.joined(self._own_tags | digests, self._targetdata.get("tags"))
        retry.patiently(
            lambda: self._tag(filled.id, all_tags), cancel=self._cancel, sleep=self._sleep, clock=self._clock
        )
        asked = register.parameters(name=self._name, wanted=aim, snapshot_id=filled.id, image_tags=all_tags)
        self._registering = filled.id
        image_id = register.register(
            self._ec2,
            asked,
            region=self._region,
            journal=self._request.journal,
            cancel=self._cancel,
            sleep=self._sleep,
            clock=self._clock,
        )
        self._created(CloudObject("image", image_id, self._region))
        self._registering, self._image_id = None, image_id
        try:
            register.wait(
                self._ec2, image_id, region=self._region, cancel=self._cancel, sleep=self._sleep, clock=self._clock
            )
        except PlatformReplyError:
            self._image_id = None  # it never can be used
            raise
        self._reporter.line(f"Created image: {image_id}")
        return image_id, all_tags

    def _tag(self, snapshot_id: str, all_tags: Mapping[str, str]) -> None:
        with boto.translated(f"snapshot {snapshot_id}"):
            self._ec2.create_tags(Resources=[snapshot_id], Tags=labels.as_list(all_tags))

    def _finish(
        self,
        image_id: str,
        image_tags: Mapping[str, str],
        objects: Sequence[CloudObject],
        aim: image_spec.ImageSpec,
        *,
        is_new: bool,
    ) -> UploadResult:
        copies, shortfalls = replicate.distribute(
            image_id,
            account=self._account,
            region=self._region,
            targetdata=self._targetdata,
            attributes=aim.attributes,
            journal=self._request.journal,
            tags=image_tags,
            is_new=is_new,
            reporter=self._reporter,
            cancel=self._cancel,
        )
        return UploadResult(image_id, (*objects, *copies), tuple(shortfalls), is_already_there=not is_new)

    def _undo(self, exc: BaseException) -> None:
        """Remove what was made, but for what is of use."""
        if self._image_id and not self._cancel.is_requested:
            return
        is_kept = self._is_kept(exc)
        if self._registering and not is_kept:
            self._find_image(self._registering)
        doomed = [thing for thing in self._objects if not (is_kept and thing.kind == "snapshot")]
        for thing in self._objects:
            if thing not in doomed:
                if self._is_to_be_kept:
                    self._request.journal.write("kept", **dataclasses.asdict(thing))
                self._reporter.line(
                    f"Kept: snapshot {thing.id} in {self._region}. The same upload once more goes on with it; "
                    "`clouduploader cleanup --completed` removes it. "
                    f"AWS removes it {self._settings.pending_minutes} minutes after its last block if it is incomplete."
                )
        if doomed:
            self._enter("clean up")
            self._remove(doomed)

    def _is_kept(self, exc: BaseException) -> bool:
        """Whether the snapshot is left for another try: because that is wanted, or all it lacks is an answer of AWS."""
        if isinstance(exc, verify.MismatchError):
            return False
        is_finished = self._filling.has_all and isinstance(exc, TransientError) and not self._cancel.is_requested
        return self._is_to_be_kept or is_finished

    @property
    def _is_to_be_kept(self) -> bool:
        return self._targetdata.get("keep") == "snapshot"

    def _find_image(self, snapshot_id: str) -> None:
        """Look once more for an image that was asked for without an answer; else the journal has the request."""
        image_id = find.id_of_snapshot(self._ec2, self._name, snapshot_id, self._region)
        if image_id:
            self._created(CloudObject("image", image_id, self._region))

    def _remove(self, doomed: Sequence[CloudObject]) -> None:
        """Remove things with fresh credentials; what can't be removed is said in the log."""
        made = {thing: self._objects.pop(thing, -math.inf) for thing in doomed}
        cleanup.undo(self._account, made, self._reporter, cancel=self._cancel, sleep=self._sleep, clock=self._clock)
