"""One upload through ec2uploadimg, from credentials to the AMI, and the clean-up after it."""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clouduploader.errors import ClouduploaderError, ImageError, LocalIOError, PlatformReplyError
from clouduploader.platforms.ec2 import auth, aws_errors, boto, cleanup, image_spec, labels, preflight, replicate
from clouduploader.platforms.ec2.ami import compare, register
from clouduploader.platforms.ec2.ec2uploadimg import api_calls, command, helper_config, wrapper
from clouduploader.platforms.ec2.ec2uploadimg import process as ec2uploadimg_process
from clouduploader.platforms.ec2.image_spec import ImageAttributes
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    ObjectCreated,
    ObjectRemoved,
    ObjectState,
    PhaseStarted,
    PlatformContext,
    Reporter,
    Shortfall,
    UploadRequest,
    UploadResult,
    visibility,
)
from clouduploader.util.cancel import Cancel

DEADLINE_MARGIN_SECONDS = 300.0  # of the credentials' life, kept for ec2uploadimg's own clean-up
FRESH_SECONDS = 60.0  # credentials older than this are replaced before the upload begins
UNDOING = ("Detach", "Disassociate")  # calls that clean up once something was refused; DetachVolume is also a step
LOST_ANSWER_SECONDS = 3.0  # ours: a call that has reached AWS is done by then, and shows where things are listed
FINAL_KINDS = frozenset({"image", "snapshot"})  # what a successful upload leaves on purpose


class HelperUpload:
    """One upload. Used once.

    Args:
        context: See PlatformContext.
        settings: See Settings.
        request: See UploadRequest.
        reporter: See Reporter.
        cancel: See Cancel.
    """

    def __init__(
        self,
        context: PlatformContext,
        settings: Ec2Settings,
        *,
        request: UploadRequest,
        reporter: Reporter,
        cancel: Cancel,
    ) -> None:
        self._context = context
        self._settings = settings
        self._request = request
        self._reporter = reporter
        self._cancel = cancel
        self._targetdata = request.targetdata
        self._region = str(request.targetdata["region"])
        self._account = auth.account(
            context,
            settings,
            targetdata=request.targetdata,
            user=request.user,
            job_name=request.job_name,
            reporter=reporter,
            cancel=cancel,
        )
        self._tags: Mapping[str, str] = {}
        self._objects: dict[CloudObject, float] = {}  # and when they were made, by the clock
        self._key_pairs: dict[CloudObject, float] = {}
        self._unanswered: list[str] = []
        self._refusal: aws_errors.AwsError | None = None
        self._image_id: str | None = None
        self._phase: str | None = None

    def run(self) -> UploadResult:
        """Do it. See `Platform.upload` for what is promised."""
        with self._cancel.interruptible():
            auth.check_role(self._request)
            helper = helper_config.helper(self._context.home, self._region)
            program = command.named(self._settings, self._context)
            image_spec.machine(self._request)
            self._enter("authenticate")
            keys = self._account.fresh_keys()
            assumed_at = time.monotonic()
            self._reporter.line("Successfully authenticated.")
            self._enter("check image")
            unpacked_bytes, volume_gib = self._sizes()
            aim = image_spec.inspect(self._request, self._reporter)
            self._tags = own_tags(self._request)
            ec2 = self._account.client("ec2", keys)
            taken = compare.existing(
                ec2,
                self._request,
                self._tags,
                attributes=aim,
                unpacked_bytes=unpacked_bytes,
                reporter=self._reporter,
                cancel=self._cancel,
            )
            given = () if taken.is_failed else taken.objects
            self._targetdata = preflight.settle(
                self._account, self._targetdata, image=taken.image, reporter=self._reporter
            )
            if given:
                self._wait(ec2, given[0].id)
                self._reporter.line(f"{given[0].id} is already there: it has that name and this very content.")
            if not given and time.monotonic() - assumed_at > FRESH_SECONDS:
                keys = self._account.fresh_keys()
        wreck = taken.objects if taken.is_failed else ()
        dead = {thing: made for thing, made in self._of_dead_tries(ec2).items() if thing not in taken.objects}
        self._remove(dead | dict.fromkeys(wreck, -math.inf))
        if given:
            return self._finish(given, aim, is_new=False)
        try:
            ending = self._run_tool(program, helper, keys=keys, aim=aim, volume_gib=volume_gib)
            failures = self._judge(ending)
            self._check_unchanged()
            if failures:
                self._objects.update(self._key_pairs)
            self._clean_up(FINAL_KINDS)
            self._cancel.raise_if_requested()
            objects = sorted(self._objects, key=lambda thing: thing.kind)  # the image before the snapshot
            result = self._finish(objects, aim, is_new=True)
            return dataclasses.replace(result, shortfalls=(*failures, *result.shortfalls))
        except BaseException:
            kept = FINAL_KINDS if self._image_id and not self._cancel.is_requested else frozenset()
            # They may be gone, but tell which instances are ours, those of a lost answer too.
            self._objects.update(self._key_pairs)
            self._clean_up(kept)
            self._cancel.raise_if_requested()
            raise

    def _wait(self, ec2: Any, image_id: str) -> None:  # noqa: ANN401 a client of boto3
        register.wait(ec2, image_id, region=self._region, cancel=self._cancel)

    def _of_dead_tries(self, ec2: Any) -> dict[CloudObject, float]:  # noqa: ANN401 a client of boto3
        """What earlier tries left: by the journal, and by the tags, for what never got into the journal.

        Returns:
            Also when it was made, by the clock.
        """
        entries = self._request.journal.entries()
        grown_up = time.monotonic() - visibility.UNSEEN_SECONDS
        things = {thing: grown_up + visibility.seconds_left(made) for thing, made in cleanup.unremoved(entries).items()}
        if sum(entry["what"] == "begin" for entry in entries) > 1:
            try:
                found = cleanup.find(ec2, self._region, self._request.journal.key, self._reporter)
            except ClouduploaderError as exc:
                self._reporter.line(f"What earlier tries left can't be looked for: {exc.message}")
            else:
                things |= {item.object: grown_up for item in found if item.keep_reason is None}
        return things

    def _finish(self, objects: Sequence[CloudObject], aim: ImageAttributes, *, is_new: bool) -> UploadResult:
        """Do what is asked for beyond the image, which is the first of the objects."""
        copies, shortfalls = replicate.distribute(
            objects[0].id,
            account=self._account,
            region=self._region,
            targetdata=self._targetdata,
            attributes=aim,
            journal=self._request.journal,
            tags=labels.joined(self._tags, self._targetdata.get("tags")),
            is_new=is_new,
            reporter=self._reporter,
            cancel=self._cancel,
        )
        return UploadResult(objects[0].id, (*objects, *copies), tuple(shortfalls), is_already_there=not is_new)

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._reporter.event(PhaseStarted(phase))

    def _sizes(self) -> tuple[int, int]:
        """How many bytes the image is unpacked, and how many GiB the root volume gets."""
        unpacked_bytes = self._request.measure_image()
        size = image_spec.helper_volume_gib(unpacked_bytes, self._targetdata.get("root_volume_size"))
        self._reporter.detail(f"The image is {unpacked_bytes} bytes unpacked; the root volume gets {size} GiB.")
        return unpacked_bytes, size

    def _run_tool(
        self,
        program: command.HelperProgram,
        helper: helper_config.HelperInstance,
        *,
        keys: AccessKeys,
        aim: ImageAttributes,
        volume_gib: int,
    ) -> ec2uploadimg_process.HelperExit:
        home = self._request.work_dir
        configuration_path = home / helper_config.FILE_NAME
        with configuration_path.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(command.configuration(self._region, helper))
        arguments = command.arguments(
            targetdata=self._targetdata,
            attributes=aim,
            keys=keys,
            settings=self._settings,
            configuration_path=configuration_path,
            volume_gib=volume_gib,
            security_group=self._security_group(keys),
            source=self._request.image.path,
        )
        self._cancel.raise_if_requested()
        process = ec2uploadimg_process.HelperProcess(
            program,
            arguments,
            tags=self._tags,
            environment=ec2uploadimg_process.environment(self._context.environment, home),
            directory=home,
        )
        shown = f"{program.interpreter} {program.script}"
        self._reporter.detail(f"Started {shown} as process {process.pid}; it has its arguments by a pipe.")
        return process.watch(
            on_line=self._take_line,
            on_call=self._take_call,
            on_tick=lambda: self._tell_progress(process),
            cancel=self._cancel,
            deadline=self._deadline(keys),
            grace_seconds=self._settings.grace_seconds,
        )

    def _security_group(self, keys: AccessKeys) -> str | None:
        """Make the helper's security group when it is to run in a subnet of the user's."""
        subnet = self._targetdata.get("vpc_subnet_id")
        if not subnet:
            return None
        ec2 = self._account.client("ec2", keys)
        with boto.translated(f"region {self._region}"):
            vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
            name = f"clouduploader-{self._request.job_name or 'by-hand'}-{os.urandom(4).hex()}"
            group = self._make_group(ec2, GroupName=name, Description="helper of an image upload", VpcId=vpc)
            self._created(CloudObject("security group", group["GroupId"], self._region))
            ec2.authorize_security_group_ingress(
                GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=self._settings.ssh_cidr
            )
        return str(group["GroupId"])

    def _make_group(self, ec2: Any, **parameters: str) -> dict[str, Any]:  # noqa: ANN401 a client of boto3
        """Make a security group with our tags, or without them if the role may not give any."""
        specification = {"ResourceType": "security-group", "Tags": labels.as_list(self._tags)}
        for more in ({"TagSpecifications": [specification]}, {}):
            self._take_asked("CreateSecurityGroup")
            try:
                with boto.translated(f"region {self._region}"):
                    group: dict[str, Any] = ec2.create_security_group(**parameters, **more)
            except ClouduploaderError as exc:
                code = boto.refusal_code(exc)
                if code:
                    self._answered("CreateSecurityGroup", is_refused=True)
                if not more or code not in wrapper.TAGS_REFUSED:
                    raise
            else:
                self._answered("CreateSecurityGroup", is_refused=False)
                return group
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
        """Learn from one call of the API, as `launch` traced it."""
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
        self._answered(operation, is_refused=bool(code))
        if code:
            self._note_refusal(call)
            return
        if self._refusal and self._refusal.operation == operation:
            self._refusal = None
        if thing := api_calls.made(operation, call.get("answer", {}), self._region):
            self._created(thing)
        for thing in api_calls.removed(operation, call["parameters"], self._region):
            self._objects.pop(thing, None)
            self._reporter.event(ObjectRemoved(thing))

    def _take_asked(self, operation: str) -> None:
        refused = self._refusal
        if refused and (refused.operation, refused.code) == (operation, "UnauthorizedOperation"):
            self._reporter.line(
                f"Warning: {operation} was denied with tags, and is tried without: what it makes does not tell whose "
                "it is. Let the role call ec2:CreateTags."
            )
        self._asked(operation)

    def _asked(self, operation: str) -> None:
        """Write down that something is about to be made."""
        if kind := api_calls.kind_of(operation):
            self._unanswered.append(kind)
            self._request.journal.write("asked", kind=kind, region=self._region)

    def _answered(self, operation: str, *, is_refused: bool) -> None:
        """Note that AWS has answered; what was made is written down by who made the journal."""
        kind = api_calls.kind_of(operation)
        if kind in self._unanswered:
            self._unanswered.remove(kind)
        if kind and is_refused:
            self._request.journal.write("refused", kind=kind, region=self._region)

    def _find_lost(self) -> None:
        """Look by its tags for what was asked for while nobody was there to hear the answer any more."""
        if not self._unanswered:
            return
        time.sleep(LOST_ANSWER_SECONDS)
        try:
            ec2 = self._account.client("ec2", self._account.fresh_keys())
            found = cleanup.find(ec2, self._region, self._request.journal.key, self._reporter)
        except ClouduploaderError as exc:
            self._reporter.line(f"What was asked for last can't be looked for: {exc.message}")
            return
        for item in found:
            is_lost = item.object.kind in self._unanswered and item.object not in self._objects
            if is_lost and (item.keep_reason is None or item.state is ObjectState.COMPLETE):
                self._unanswered.remove(item.object.kind)
                self._created(item.object)
        if self._unanswered:
            self._reporter.line(
                f"Asked for without an answer, and not visible yet: {', '.join(self._unanswered)} in {self._region}. "
                "`clouduploader cleanup` looks again in two minutes."
            )
        self._unanswered.clear()

    def _note_refusal(self, call: Mapping[str, str]) -> None:
        operation = call["operation"]
        is_clean_up = operation in api_calls.REMOVERS or (self._refusal and operation.startswith(UNDOING))
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

    def _created(self, thing: CloudObject) -> None:
        self._objects[thing] = time.monotonic()
        if thing.kind == "key pair":
            self._key_pairs[thing] = self._objects[thing]
        self._reporter.event(ObjectCreated(thing))

    def _tell_progress(self, process: ec2uploadimg_process.HelperProcess) -> None:
        if self._phase != "upload":
            return
        done_bytes = process.position(self._request.image.path)
        if done_bytes is not None:
            self._reporter.event(BytesMoved(done_bytes, self._request.image.size_bytes))

    def _judge(self, ending: ec2uploadimg_process.HelperExit) -> tuple[Shortfall, ...]:
        """Return if there is an image that can be used; what ec2uploadimg failed at after it falls short."""
        self._cancel.raise_if_requested()
        if self._image_id and (ending.exit_status or ending.is_late):
            image_id = self._image_id
            try:
                self._wait(self._account.client("ec2", self._account.fresh_keys()), image_id)
            except PlatformReplyError:
                self._image_id = None  # it never can be used
                raise
            words = "it was stopped" if ending.is_late else command.last_words(ending.lines)
            return (Shortfall(self._region, f"ec2uploadimg made {image_id}, but failed afterwards: {words}"),)
        if ending.is_late:
            raise PlatformReplyError(
                "the upload was stopped: the temporary credentials were about to expire",
                hint="Raise session_seconds in [ec2] of clouduploader.conf, and the role's MaxSessionDuration.",
            )
        if ending.exit_status or not self._image_id:
            raise command.failure(
                exit_status=ending.exit_status,
                lines=ending.lines,
                refusal=self._refusal,
                region=self._region,
            )
        return ()

    def _check_unchanged(self) -> None:
        """See that the image was made of the file as it was: ec2uploadimg opens it itself, and by its name.

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

    def _clean_up(self, kept: frozenset[str]) -> None:
        """Remove what is still there, but for these kinds."""
        self._find_lost()
        for path in self._request.work_dir.glob(command.KEY_FILES):
            # Named before the key pair is made: it is known even if the answer to that never came.
            self._objects.setdefault(CloudObject("key pair", path.name, self._region), time.monotonic())
        doomed = {thing: made for thing, made in self._objects.items() if thing.kind not in kept}
        self._remove(doomed)
        for thing in doomed:
            self._objects.pop(thing)

    def _remove(self, doomed: Mapping[CloudObject, float]) -> None:
        """Remove things with fresh credentials, given when they were made; what can't be removed is said in the log."""
        if not doomed:
            return
        self._enter("clean up")
        cleanup.undo(self._account, doomed, self._reporter, cancel=self._cancel)


def own_tags(request: UploadRequest) -> dict[str, str]:
    """The tags of all that an upload by ec2uploadimg makes. Reads the image file to its end.

    Raises:
        LocalIOError: It can't be read.
    """
    own = labels.own(
        key=request.journal.key,
        job_name=request.job_name,
        filename=request.image.filename,
        provenance=request.provenance,
        started=datetime.datetime.now(datetime.UTC),
    )
    return own | {labels.SHA256: _sha256(request.image.path)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
