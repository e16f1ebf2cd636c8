"""One upload through ec2uploadimg, from credentials to the AMI, and the clean-up after it."""

import dataclasses
import datetime
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clouduploader.errors import ClouduploaderError, ImageError, LocalIOError, PlatformReplyError
from clouduploader.platforms.ec2 import (
    ami,
    aws_errors,
    boto,
    cleanup,
    compare,
    image_spec,
    labels,
    preflight,
    replicate,
)
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config, wrapper
from clouduploader.platforms.ec2.ec2uploadimg import process as ec2uploadimg_process
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    ObjectState,
    PhaseStarted,
    Shortfall,
    UploadRequest,
    UploadResult,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef

DEADLINE_MARGIN_SECONDS = 300.0  # of the credentials' life, kept for ec2uploadimg's own clean-up
FRESH_SECONDS = 60.0  # credentials older than this are replaced before the upload begins
UNDOING = ("Detach", "Disassociate")  # calls that clean up once something was refused; DetachVolume is also a step
LOST_ANSWER_SECONDS = 3.0  # ours: a call that has reached AWS is done by then, and shows where things are listed
FINAL_KINDS = frozenset({"image", "snapshot"})  # what a successful upload leaves on purpose


class HelperUpload:
    """One upload. Used once.

    Args:
        context: The upload, just authenticated.
        program: The ec2uploadimg that is called.
        helper: The instance that it starts.
        environment: Of this process.
    """

    def __init__(
        self,
        context: Ec2Context,
        program: command.HelperProgram,
        helper: helper_config.HelperInstance,
        environment: Mapping[str, str],
    ) -> None:
        self._context = context
        self._program = program
        self._helper = helper
        self._environment = environment
        self._ctx = context.ctx
        self._account = context.account
        self._settings = context.settings
        self._request = self._ctx.request
        self._reporter = self._ctx.reporter
        self._cancel = self._ctx.cancel
        self._targetdata = self._ctx.targetdata
        self._region = context.region
        self._tags: Mapping[str, str] = {}
        self._regions: list[str] = []  # of the copies
        self._key_pairs: list[CloudObject] = []
        self._is_lost_told = False
        self._refusal: aws_errors.AwsError | None = None
        self._image_id: str | None = None
        self._phase: str | None = None

    def run(self) -> UploadResult:
        """Make the AMI. See `Platform.upload` for what is promised."""
        with self._cancel.interruptible():
            self._enter("check image")
            keys = self._account.keys()
            assumed_at = self._ctx.clock.monotonic()
            unpacked_bytes, volume_gib = self._sizes()
            attributes = image_spec.inspect(self._request, self._reporter)
            self._tags = own_tags(self._request)
            existing = compare.existing(self._context, self._tags, attributes=attributes, unpacked_bytes=unpacked_bytes)
            given = () if existing.is_failed else existing.objects
            self._regions = preflight.check(self._context, image=existing.image)
            if given:
                ami.wait(self._context, given[0].id)
                self._reporter.line(f"{given[0].id} is already there: it has that name and this very content.")
            if not given and self._ctx.clock.monotonic() - assumed_at > FRESH_SECONDS:
                keys = self._account.fresh_keys()
        earlier = [thing for thing in self._of_earlier_tries() if thing not in existing.objects]
        self._remove([*earlier, *existing.objects] if existing.is_failed else earlier)
        if given:
            return self._finish(given, attributes, is_new=False)
        try:
            ended = self._run_helper(keys, attributes=attributes, volume_gib=volume_gib)
            failures = self._judge(ended)
            self._check_unchanged()
            self._find_rest(has_failed=bool(failures))
            made = sorted(self._ctx.resources.to_undo(), key=lambda thing: thing.kind)  # the image before the snapshot
            self._remove([thing for thing in made if thing.kind not in FINAL_KINDS])
            self._cancel.raise_if_requested()
            objects = [thing for thing in made if thing.kind in FINAL_KINDS]
            result = self._finish(objects, attributes, is_new=True)
            return dataclasses.replace(result, shortfalls=(*failures, *result.shortfalls))
        except BaseException:
            self._find_rest(has_failed=True)
            if self._image_id and not self._cancel.is_requested:
                for thing in self._ctx.resources.to_undo():
                    if thing.kind in FINAL_KINDS and thing.region == self._region:
                        self._ctx.resources.keep(thing)
            raise

    def _of_earlier_tries(self) -> list[CloudObject]:
        """Find what earlier tries left: by the journal, and by the tags, for what never got into the journal."""
        things = self._ctx.resources.of_earlier_tries()
        if sum(entry["what"] == "begin" for entry in self._request.journal.entries()) > 1:
            try:
                found = cleanup.find(self._ctx, self._account, self._request.journal.key)
            except ClouduploaderError as exc:
                self._reporter.line(f"What earlier tries left can't be looked for: {exc.message}")
            else:
                things += [item.object for item in found if item.keep_reason is None]
        return list(dict.fromkeys(things))

    def _finish(self, objects: Sequence[CloudObject], attributes: ImageAttributes, *, is_new: bool) -> UploadResult:
        """Do what is asked for beyond the image, which is the first of the objects."""
        return replicate.Distribution(
            self._context,
            regions=self._regions,
            attributes=attributes,
            tags=labels.joined(self._tags, self._targetdata.get("tags")),
            is_new=is_new,
        ).run(objects)

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._reporter.event(PhaseStarted(phase))

    def _sizes(self) -> tuple[int, int]:
        """Return how many bytes the image is unpacked, and how many GiB the root volume gets."""
        unpacked_bytes = self._request.measure_image()
        size = image_spec.helper_volume_gib(unpacked_bytes, self._targetdata.get("root_volume_size"))
        self._reporter.detail(f"The image is {unpacked_bytes} bytes unpacked; the root volume gets {size} GiB.")
        return unpacked_bytes, size

    def _run_helper(
        self,
        keys: AccessKeys,
        *,
        attributes: ImageAttributes,
        volume_gib: int,
    ) -> ec2uploadimg_process.HelperExit:
        home = self._request.work_dir
        configuration_path = home / helper_config.FILE_NAME
        with configuration_path.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(command.configuration(self._region, self._helper))
        arguments = command.arguments(
            targetdata=self._targetdata,
            attributes=attributes,
            keys=keys,
            settings=self._settings,
            configuration_path=configuration_path,
            volume_gib=volume_gib,
            security_group=self._security_group(),
            source=self._request.image.path,
        )
        self._cancel.raise_if_requested()
        process = ec2uploadimg_process.HelperProcess(
            self._program,
            arguments,
            tags=self._tags,
            environment=ec2uploadimg_process.environment(self._environment, home),
            directory=home,
            may_outlive_us=not self._request.journal.has_successor,
        )
        shown = f"{self._program.interpreter} {self._program.script}"
        self._reporter.detail(f"Started {shown} as process {process.pid}; it has its arguments by a pipe.")
        return process.watch(
            on_line=self._take_line,
            on_call=self._take_call,
            on_tick=lambda: self._tell_progress(process),
            cancel=self._cancel,
            deadline=self._deadline(keys),
            grace_seconds=self._settings.grace_seconds,
        )

    def _security_group(self) -> str | None:
        """Make the helper's security group when it is to run in a subnet of the user's."""
        subnet = self._targetdata.get("vpc_subnet_id")
        if not subnet:
            return None
        ec2 = self._context.ec2
        with self._ctx.translated(f"region {self._region}"):
            vpc = ec2.describe_subnets(SubnetIds=[str(subnet)])["Subnets"][0]["VpcId"]
            name = f"clouduploader-{self._request.job_name or 'by-hand'}-{os.urandom(4).hex()}"
            group_id = self._make_group(name, vpc)
            ec2.authorize_security_group_ingress(
                GroupId=group_id, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=self._settings.ssh_cidr
            )
        return group_id

    def _make_group(self, name: str, vpc: str) -> str:
        """Make a security group with our tags, or without them if the role may not give any; return its id."""
        words = "helper of an image upload"
        specification: TagSpecificationTypeDef = {
            "ResourceType": "security-group",
            "Tags": labels.as_list(self._tags),
        }
        for specifications in ([specification], []):
            try:
                with (
                    self._ctx.creating("security group", is_refused=boto.has_made_nothing) as created,
                    self._ctx.translated(f"region {self._region}"),
                ):
                    group = self._context.ec2.create_security_group(
                        GroupName=name, Description=words, VpcId=vpc, TagSpecifications=specifications
                    )
                    return created(group["GroupId"]).id
            except ClouduploaderError as exc:
                if not specifications or boto.refusal_code(exc) not in wrapper.TAGS_REFUSED:
                    raise
        raise AssertionError("the last try returns or raises")

    def _deadline(self, keys: AccessKeys) -> float | None:
        if keys.expires is None:
            return None
        left = keys.expires - datetime.datetime.now(datetime.UTC)
        return time.monotonic() + max(0.0, left.total_seconds() - DEADLINE_MARGIN_SECONDS)

    def _take_line(self, line: str) -> None:
        self._reporter.line(line)
        self._image_id = command.created_image(line) or self._image_id
        if phase := command.phase(line):
            if self._phase == "upload":  # its next phase begins when all has been sent
                size_bytes = self._request.image.size_bytes
                self._reporter.event(BytesMoved(size_bytes, size_bytes))
            self._enter(phase)

    def _take_call(self, line: bytes) -> None:
        """Learn from one call of the API, as `wrapper` traced it."""
        try:
            call = json.loads(line)
        except ValueError:
            return  # it was killed while it wrote that line
        if "asked" in call:
            self._take_asked(call["asked"])
            return
        operation, code = call["operation"], call["code"]
        self._reporter.detail(
            f"ec2 {operation}: {call['status']}{f' {code}' if code else ''} in {call['milliseconds']} ms, "
            f"request id {call['request_id']}"
        )
        if code:
            if kind := command.kind_made_by(operation):
                self._ctx.resources.refused(kind, self._region)
            self._note_refusal(call)
            return
        if self._refusal and self._refusal.operation == operation:
            self._refusal = None
        if thing := command.made_by(operation, call.get("answer", {}), self._region):
            self._made(thing)
        for thing in command.removed_by(operation, call["parameters"], self._region):
            self._ctx.resources.removed(thing)

    def _take_asked(self, operation: str) -> None:
        refused = self._refusal
        if refused and (refused.operation, refused.code) == (operation, "UnauthorizedOperation"):
            self._reporter.line(
                f"Warning: {operation} was denied with tags, and is tried without: what it makes does not tell whose "
                "it is. Let the role call ec2:CreateTags."
            )
        if kind := command.kind_made_by(operation):
            self._ctx.resources.asked(kind, self._region)

    def _find_rest(self, *, has_failed: bool) -> None:
        """Find what there is of this upload that `made` does not tell of; it is to be undone too.

        Args:
            has_failed: Whether its instances have to be found by their key pairs, which may be gone.
        """
        self._find_lost()
        if has_failed:
            for thing in self._key_pairs:
                self._ctx.resources.adopt(thing)
        for path in self._request.work_dir.glob(command.KEY_FILES):
            # Named before the key pair is made: it is known even if the answer to that never came.
            self._ctx.resources.adopt(CloudObject("key pair", path.name, self._region))

    def _find_lost(self) -> None:
        """Look by its tags for what was asked for without an answer."""
        resources = self._ctx.resources
        if self._is_lost_told or not resources.unanswered(self._region):
            return
        self._ctx.clock.sleep(LOST_ANSWER_SECONDS)
        try:
            found = cleanup.find(self._ctx, self._account, self._request.journal.key)
        except ClouduploaderError as exc:
            self._reporter.line(f"What was asked for last can't be looked for: {exc.message}")
            return
        for item in found:
            is_lost = item.object.kind in resources.unanswered(self._region) and item.object not in resources.to_undo()
            if is_lost and (item.keep_reason is None or item.state is ObjectState.COMPLETE):
                self._made(item.object)
        if lost := resources.unanswered(self._region):
            self._is_lost_told = True
            self._reporter.line(
                f"Asked for without an answer, and not visible yet: {', '.join(lost)} in {self._region}. "
                "`clouduploader cleanup` looks again in two minutes."
            )

    def _note_refusal(self, call: Mapping[str, str]) -> None:
        operation = call["operation"]
        is_clean_up = operation in command.REMOVERS or (self._refusal and operation.startswith(UNDOING))
        if is_clean_up:
            return
        self._refusal = aws_errors.AwsError(
            service="ec2",
            operation=call["operation"],
            code=call["code"],
            message=call["message"] or "",
            status=int(call["status"]),
            date=call["date"],
        )

    def _made(self, thing: CloudObject) -> None:
        self._ctx.resources.made(thing)
        if thing.kind == "key pair":
            self._key_pairs.append(thing)

    def _tell_progress(self, process: ec2uploadimg_process.HelperProcess) -> None:
        if self._phase != "upload":
            return
        done_bytes = process.position(self._request.image.path)
        if done_bytes is not None:
            self._reporter.event(BytesMoved(done_bytes, self._request.image.size_bytes))

    def _judge(self, ended: ec2uploadimg_process.HelperExit) -> tuple[Shortfall, ...]:
        """Return if there is an image that can be used; what ec2uploadimg failed at after it falls short."""
        self._cancel.raise_if_requested()
        if self._image_id and (ended.exit_status or ended.is_late):
            image_id = self._image_id
            try:
                ami.wait(self._context, image_id)
            except PlatformReplyError:
                self._image_id = None  # it never can be used
                raise
            words = "it was stopped" if ended.is_late else command.last_words(ended.lines)
            return (Shortfall(self._region, f"ec2uploadimg made {image_id}, but failed afterwards: {words}"),)
        if ended.is_late:
            raise PlatformReplyError(
                "the upload was stopped: the temporary credentials were about to expire",
                hint="Raise session_seconds in [ec2] of clouduploader.conf, and the role's MaxSessionDuration.",
            )
        if ended.exit_status or not self._image_id:
            raise command.failure(
                exit_status=ended.exit_status,
                lines=ended.lines,
                refusal=self._refusal,
                region=self._region,
            )
        return ()

    def _check_unchanged(self) -> None:
        """Check that the image was made of the file as it was: ec2uploadimg opens it itself, and by its name.

        Raises:
            ImageError: It was not; nothing of it is kept.
        """
        try:
            self._request.check_unchanged()
            if (found := _sha256(self._request.image.path)) != self._tags[labels.SHA256]:
                raise ImageError(
                    f"{self._request.image.filename} changed while it was read: its SHA-256 was "
                    f"{self._tags[labels.SHA256]}, and is {found}",
                    hint="Upload it once it is complete.",
                )
        except LocalIOError as exc:
            self._reporter.line(f"Warning: whether the image changed while it was sent can't be told: {exc.message}.")
        except ImageError:
            self._image_id = None
            raise

    def _remove(self, things: Sequence[CloudObject]) -> None:
        if things:
            self._enter("clean up")
            self._ctx.remove(things)


def own_tags(request: UploadRequest) -> dict[str, str]:
    """Make the tags of all that an upload by ec2uploadimg makes. Reads the image file to its end.

    Raises:
        LocalIOError: It can't be read.
    """
    own = labels.own(request, datetime.datetime.now(datetime.UTC))
    return own | {labels.SHA256: _sha256(request.image.path)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
