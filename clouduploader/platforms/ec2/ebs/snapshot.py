"""The snapshots of one upload, over all its tries: start, find again after a crash, seal, wait.

Sources: EBS direct APIs (botocore's model `ebs/2019-11-02`; EBS User Guide, "Use EBS direct APIs"),
EC2 API, DescribeSnapshots.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, ThrottledError, TransientError
from clouduploader.platforms.ec2 import aws_errors, boto, labels
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.plugin import CloudObject, JsonValue, retry, visibility
from clouduploader.plugin.transfer import ContentChangedError
from clouduploader.util.frozen import frozen

BY = "ebs-direct"
"""Marks our requests among those of other methods, which make snapshots too."""
DECIDING = ("VolumeSize", "Encrypted", "KmsKeyArn")
"""Parameters of StartSnapshot that must be the same for a try to go on with the snapshot of an earlier one."""
SEAL_TRIES = 3  # of four requests each, see `boto.CONFIG`
SETTLE_SECONDS = 60.0  # for a completion to show that may not have arrived; it shows in seconds, AWS promises nothing
NOT_OPEN_REASON = "INVALID_SNAPSHOT_ID"  # EBS direct API, ValidationException: the snapshot takes no blocks any more
_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+")  # as StartSnapshot's KmsKeyArn must be
_GONE = ("InvalidSnapshot.NotFound", "InvalidSnapshotID.NotFound")


class StartDeniedError(DeniedError):
    """The role may not start a snapshot: EBS direct can't be used with it."""


@frozen()
class ExistingSnapshot:
    """The snapshot of an earlier try.

    Attributes:
        id: Of the snapshot.
        parameters: It was started with.
        is_completed: Whether it is sealed, and ready for an AMI.
        seal: What `Snapshots.seal` was told in that try, or None if it was not reached.
    """

    id: str
    parameters: Mapping[str, Any]
    is_completed: bool
    seal: Mapping[str, JsonValue] | None


class Snapshots:
    """The snapshots of one upload.

    Args:
        context: The upload; told of each snapshot that is its own now.

    Attributes:
        current: The id of the snapshot that is worked on, or None.
    """

    def __init__(self, context: Ec2Context) -> None:
        self.current: str | None = None
        self._context = context
        self._ctx = context.ctx
        self._journal = context.ctx.request.journal
        self._resources = context.ctx.resources
        self._reporter = context.ctx.reporter
        self._region = context.region

    def earlier(self) -> ExistingSnapshot | None:
        """Find the snapshot of an earlier try that still lives.

        If that try was interrupted before it learned the snapshot's id, that is found by its tags, or the very same
        request is sent again: AWS answers it with the same snapshot, as long as it remembers.

        Raises:
            StartDeniedError: See `start`.
            ContentChangedError: It lives no more, but is there still: for example because it waited too long.
            ClouduploaderError: AWS can't be asked.
        """
        asked = self._last("asked", kind="snapshot", region=self._region, by=BY)
        if asked is None or self._last("discarded", token=asked["token"]):
            return None
        parameters: Any = asked["parameters"]
        started = self._last("started", token=asked["token"])
        if started is None:
            try:
                snapshot_id = self._by_tags(parameters) or self._ask(parameters)
            except PlatformReplyError as exc:
                self._reporter.detail(f"The snapshot of an earlier try can't be had: {exc.message}")
                return None
            return ExistingSnapshot(snapshot_id, parameters, is_completed=False, seal=None)
        snapshot_id = str(started["snapshot_id"])
        if self._last("removed", kind="snapshot", id=snapshot_id):
            state = None
        else:
            state = retry.look_until(
                lambda: None if (seen := self._state(snapshot_id)) == "gone" else seen,
                visibility.seconds_left(started),
                cancel=self._ctx.cancel,
                clock=self._ctx.clock,
            )
        if state is None:
            self._reporter.line(f"Snapshot {snapshot_id} of an earlier try is gone.")
            return None
        self._take(snapshot_id)
        if state not in ("pending", "completed"):
            raise ContentChangedError(f"snapshot {snapshot_id} of an earlier try is lost, its state is {state}")
        return ExistingSnapshot(
            snapshot_id,
            parameters,
            is_completed=state == "completed",
            seal=self._last("sealing", snapshot_id=snapshot_id),
        )

    def start(self, parameters: Mapping[str, Any]) -> str:
        """Start a snapshot.

        Args:
            parameters: Of StartSnapshot, JSON values, without a token.

        Returns:
            Its id.

        Raises:
            StartDeniedError: The role may not do this.
            ClouduploaderError: AWS refuses, or does something else than was asked for.
        """
        number = 1 + sum(entry["what"] == "asked" and entry.get("by") == BY for entry in self._journal.entries())
        # AWS does not say how long it knows a token, and answers a known one with the old snapshot, even if that was
        # removed since. So a part of it is random; it is in the journal before it is used.
        token = f"{self._journal.key}-{number}-{os.urandom(4).hex()}"
        whole = {**parameters, "ClientToken": token}
        self._resources.asked("snapshot", self._region, by=BY, token=token, parameters=whole)
        return self._ask(whole)

    def _ask(self, parameters: Mapping[str, Any]) -> str:
        try:
            with self._ctx.translated(f"region {self._region}"):
                answer = self._context.ebs.start_snapshot(**parameters)
        except ClouduploaderError as exc:
            if boto.has_made_nothing(exc):
                self._resources.refused("snapshot", self._region)
                self._journal.write("discarded", token=parameters["ClientToken"])
            elif not isinstance(exc, ThrottledError):
                self._reporter.line(
                    f"Perhaps left behind: a snapshot in {self._region}, for AWS did not tell whether it started one. "
                    "The same upload once more goes on with it; `clouduploader cleanup` removes it."
                )
            if aws_errors.is_denied(exc):
                raise StartDeniedError(exc.message, hint=exc.hint) from exc
            raise
        snapshot_id = str(answer["SnapshotId"])
        self._note_started(snapshot_id, parameters)
        self._reporter.detail(f"Snapshot {snapshot_id} is {answer.get('Status')}, {answer.get('VolumeSize')} GiB.")
        if answer.get("BlockSize") != protocol.BLOCK_BYTES:
            raise PlatformReplyError(
                f"EBS wants blocks of {answer.get('BlockSize')} bytes, not of {protocol.BLOCK_BYTES}"
            )
        return snapshot_id

    def _note_started(self, snapshot_id: str, parameters: Mapping[str, Any]) -> None:
        self._take(snapshot_id)  # first: the journal may not be writable, and the undo needs none
        self._journal.write("started", token=parameters["ClientToken"], snapshot_id=snapshot_id)

    def _by_tags(self, parameters: Mapping[str, Any]) -> str | None:
        """Find the snapshot that a request made whose answer was lost, if it shows: it bears the tags of that try."""
        wanted = labels.as_mapping(parameters.get("Tags"))
        known = {entry.get("snapshot_id") for entry in self._journal.entries() if entry["what"] == "started"}
        with self._ctx.translated(f"region {self._region}"):
            answer = self._context.ec2.describe_snapshots(
                OwnerIds=["self"], Filters=[{"Name": f"tag:{labels.KEY}", "Values": [self._journal.key]}]
            )
        for found in answer["Snapshots"]:
            is_open = found.get("State") == "pending" and found["SnapshotId"] not in known
            if is_open and wanted.items() <= labels.as_mapping(found.get("Tags")).items():
                snapshot_id = str(found["SnapshotId"])
                self._note_started(snapshot_id, parameters)
                return snapshot_id
        return None

    def discard(self) -> None:
        """Remove the current snapshot, if there is one; no later try goes on with it."""
        if self.current:
            started = self._last("started", snapshot_id=self.current)
            self._journal.write("discarded", token=started["token"] if started else None, snapshot_id=self.current)
            self._ctx.remove([CloudObject("snapshot", self.current, self._region)])
            self.current = None

    def seal(self, snapshot_id: str, *, count: int, checksum: str, limit_seconds: float, **noted: JsonValue) -> None:
        """Complete a snapshot: from here on its content is what it is.

        It may return before EC2 shows that, see `wait`. If an earlier request has reached AWS, it waits for it.

        Args:
            snapshot_id: Which one.
            count: Of the blocks that were written.
            checksum: Over all of their digests, in order, base64.
            limit_seconds: How long AWS may need for a completion that it has begun.
            **noted: What a later try has to know, see `ExistingSnapshot.seal`.

        Raises:
            ClouduploaderError: AWS refuses, and it is not because this had been done before.
            StoppedError: The upload was cancelled.
        """
        was_sent = self._last("sealing", snapshot_id=snapshot_id) is not None
        self._journal.write("sealing", snapshot_id=snapshot_id, count=count, checksum=checksum, **noted)
        for number in range(1, SEAL_TRIES + 1):
            try:
                with self._ctx.translated(f"snapshot {snapshot_id}"):
                    self._context.ebs.complete_snapshot(
                        SnapshotId=snapshot_id,
                        ChangedBlocksCount=count,
                        Checksum=checksum,
                        ChecksumAlgorithm="SHA256",
                        ChecksumAggregationMethod="LINEAR",
                    )
                return
            except (TransientError, PlatformReplyError) as exc:
                is_transient = isinstance(exc, TransientError)
                was_sent = was_sent or is_transient or boto.retries(exc) > 0
                is_last = number == SEAL_TRIES or not is_transient
                # It is not refused if it had been done before, by a request whose answer was lost.
                if _is_not_open(exc) and self._is_completing(snapshot_id, limit_seconds):
                    return
                if was_sent and self._is_completed(snapshot_id, SETTLE_SECONDS if is_last else 0.0):
                    self._reporter.detail(f"Snapshot {snapshot_id} is complete, though that was not confirmed.")
                    return
                if is_last:
                    raise

    def _is_completed(self, snapshot_id: str, limit_seconds: float) -> bool:
        try:
            return self._is_completing(snapshot_id, limit_seconds)
        except TransientError:
            return False

    def _is_completing(self, snapshot_id: str, limit_seconds: float) -> bool:
        """Wait for a completion that may have been asked for; false if there will be none.

        Raises:
            TransientError: It takes too long.
        """
        try:
            self.wait(snapshot_id, limit_seconds)  # minutes: AWS has the request, and all is in it
        except PlatformReplyError:
            return False
        return True

    def wait(self, snapshot_id: str, limit_seconds: float) -> None:
        """Wait until a snapshot is completed.

        Raises:
            PlatformReplyError: It is in error, or gone.
            TransientError: It took too long.
            StoppedError: The upload was cancelled.
        """
        clock = self._ctx.clock
        began = clock.monotonic()

        def look() -> str | None:
            try:
                state = self._state(snapshot_id)
            except TransientError as exc:  # it may have healed at the next look
                self._reporter.detail(f"The state of {snapshot_id} can't be seen: {exc.message}")
                return None
            if state == "pending" or (state == "gone" and clock.monotonic() - began < visibility.UNSEEN_SECONDS):
                return None
            if state != "completed":
                raise PlatformReplyError(
                    f"snapshot {snapshot_id} could not be completed: its state is {state}", hint="Upload it again."
                )
            return state

        if retry.look_until(look, limit_seconds, cancel=self._ctx.cancel, clock=clock) is None:
            raise TransientError(
                f"snapshot {snapshot_id} was not complete after {round(limit_seconds / 60)} minutes", hint="Try again."
            )

    def _state(self, snapshot_id: str) -> str:
        """Return EC2's word for the state, or "gone"."""
        try:
            with self._ctx.translated(f"snapshot {snapshot_id}"):
                found = self._context.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        except ClouduploaderError as exc:
            if boto.refusal_code(exc) in _GONE:
                return "gone"
            raise
        return str(found[0].get("State")) if found else "gone"

    def _last(self, what: str, **values: object) -> Mapping[str, Any] | None:
        for entry in reversed(self._journal.entries()):
            if entry["what"] == what and all(entry.get(name) == value for name, value in values.items()):
                return entry
        return None

    def _take(self, snapshot_id: str) -> None:
        self.current = snapshot_id
        self._resources.made(CloudObject("snapshot", snapshot_id, self._region))


def _is_not_open(exc: ClouduploaderError) -> bool:
    """Tell whether AWS says that the snapshot is not one that waits for blocks and for its completion."""
    answer = getattr(exc.__cause__, "response", None) or {}
    return bool(answer.get("Reason") == NOT_OPEN_REASON)


def fits(earlier: ExistingSnapshot, parameters: Mapping[str, Any]) -> bool:
    """Tell whether the snapshot of an earlier try is such as is wanted now."""
    return all(earlier.parameters.get(name) == parameters.get(name) for name in DECIDING)


def key_arn(context: Ec2Context) -> str | None:
    """Return the ARN of the KMS key that the target data name, if any; StartSnapshot takes nothing else.

    Args:
        context: The upload; `kms_key_id` of its target data is an ARN, an id, or an alias as alias/NAME or ARN.

    Raises:
        ClouduploaderError: KMS does not tell.
    """
    name = context.ctx.targetdata.get("kms_key_id")
    if name is None or _KEY_ARN.fullmatch(str(name)):
        return name if name is None else str(name)
    with context.ctx.translated(f"KMS key {name} in {context.region}"):
        return str(context.account.kms().describe_key(KeyId=str(name))["KeyMetadata"]["Arn"])
