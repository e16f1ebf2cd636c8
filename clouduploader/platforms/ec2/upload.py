"""One upload through ec2uploadimg, from credentials to the AMI, and the clean-up after it."""

import datetime
import json
import os
import time
from collections.abc import Mapping, Sequence

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TargetDataError
from clouduploader.platform import (
    BytesMoved,
    CleanUpReport,
    CloudObject,
    JsonValue,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    PlatformContext,
    Reporter,
    UploadRequest,
    UploadResult,
)
from clouduploader.platforms.ec2 import calls, child, refusals, regions, tool
from clouduploader.platforms.ec2.credentials import Account, session_name
from clouduploader.platforms.ec2.settings import Settings
from clouduploader.platforms.ec2.sigv4 import Keys
from clouduploader.stop import Stop

MACHINES = {"x86_64": "x86_64", "i386": "i386", "i586": "i386", "i686": "i386", "aarch64": "arm64", "arm64": "arm64"}
"""OBS's words for architectures, and Amazon's."""
DEADLINE_MARGIN_SECONDS = 300.0  # of the credentials' life, kept for ec2uploadimg's own clean-up
FRESH_SECONDS = 60.0  # credentials older than this are replaced before the upload begins
UNDOING = ("Detach", "Disassociate")  # calls that clean up once something was refused; DetachVolume is also a step
FINAL_KINDS = frozenset({"image", "snapshot"})  # what a successful upload leaves on purpose


def account(
    context: PlatformContext,
    settings: Settings,
    *,
    targetdata: Mapping[str, JsonValue],
    user: str,
    job_name: str | None,
    reporter: Reporter,
) -> Account:
    """Make the way into the account of these target data."""
    return Account(
        home=context.home,
        settings=settings,
        environment=context.environment,
        targetdata=targetdata,
        session=session_name(user=user, job_name=job_name),
        reporter=reporter,
    )


def check_role(request: UploadRequest) -> None:
    """Refuse an upload for somebody who named no role: it would go into the service's own account.

    Raises:
        TargetDataError: There is no role, and nobody who uploads for himself.
    """
    if not request.targetdata.get("arn") and not request.is_by_hand:
        raise TargetDataError(
            "the user has no AWS role configured: arn is empty",
            hint="Let the user enter the role's ARN in the cloud upload configuration of OBS.",
        )


def machine(request: UploadRequest) -> str:
    """Amazon's word for the image's architecture.

    Raises:
        TargetDataError: The job's architecture is none that EC2 has.
    """
    if given := request.targetdata.get("architecture"):
        return str(given)
    if request.arch is None:
        return "x86_64"
    if request.arch not in MACHINES:
        raise TargetDataError(f"EC2 has no machines of architecture {request.arch}")
    return MACHINES[request.arch]


class Upload:
    """One upload. Used once.

    Args:
        context: See PlatformContext.
        settings: See Settings.
        request: See UploadRequest.
        reporter: See Reporter.
        stop: See Stop.
    """

    def __init__(
        self, context: PlatformContext, settings: Settings, *, request: UploadRequest, reporter: Reporter, stop: Stop
    ) -> None:
        self._context = context
        self._settings = settings
        self._request = request
        self._reporter = reporter
        self._stop = stop
        self._targetdata = request.targetdata
        self._region = str(request.targetdata["region"])
        self._account = account(
            context,
            settings,
            targetdata=request.targetdata,
            user=request.user,
            job_name=request.job_name,
            reporter=reporter,
        )
        self._objects: dict[CloudObject, None] = {}
        self._key_pairs: list[CloudObject] = []
        self._refusal: refusals.Refusal | None = None
        self._image_id: str | None = None
        self._phase: str | None = None

    def run(self) -> UploadResult:
        """Do it. See `Platform.upload` for what is promised."""
        with self._stop.interruptible():
            check_role(self._request)
            helper = regions.helper(self._context.home, self._region)
            program = tool.find(self._settings.ec2uploadimg, self._context.environment.get("PATH"))
            architecture = machine(self._request)
            self._enter("authenticate")
            keys = self._account.fresh_keys()
            assumed_at = time.monotonic()
            self._reporter.line("Successfully authenticated.")
            self._enter("check image")
            volume_gib = self._volume_gib()
            if time.monotonic() - assumed_at > FRESH_SECONDS:
                keys = self._account.fresh_keys()
        try:
            ending = self._run_tool(program, helper, keys=keys, architecture=architecture, volume_gib=volume_gib)
            self._judge(ending)
            self._clean_up(FINAL_KINDS)
            self._stop.raise_if_requested()
        except BaseException:
            kept = FINAL_KINDS if self._image_id and not self._stop.is_requested else frozenset()
            # They may be gone, but tell which instances are ours, those of a lost answer too.
            self._objects.update(dict.fromkeys(self._key_pairs))
            self._clean_up(kept)
            self._stop.raise_if_requested()
            raise
        objects = sorted(self._objects, key=lambda thing: thing.kind)  # the image before the snapshot
        return UploadResult(str(self._image_id), tuple(objects))

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._reporter.event(PhaseStarted(phase))

    def _volume_gib(self) -> int:
        unpacked_bytes = self._request.measure_image()
        wanted = self._targetdata.get("root_volume_size")
        size = tool.volume_gib(unpacked_bytes, wanted if isinstance(wanted, int) else None)
        self._reporter.detail(f"The image is {unpacked_bytes} bytes unpacked; the root volume gets {size} GiB.")
        return size

    def _run_tool(
        self, program: tool.Program, helper: regions.Helper, *, keys: Keys, architecture: str, volume_gib: int
    ) -> child.Ending:
        home = self._request.work_dir
        configuration_path = home / regions.FILE_NAME
        with configuration_path.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(tool.configuration(self._region, helper))
        arguments = tool.arguments(
            targetdata=self._targetdata,
            machine=architecture,
            keys=keys,
            settings=self._settings,
            configuration_path=configuration_path,
            volume_gib=volume_gib,
            security_group=self._security_group(keys),
            source=self._request.image.path,
        )
        self._stop.raise_if_requested()
        process = child.Child(
            program, arguments, environment=child.environment(self._context.environment, home), directory=home
        )
        shown = f"{program.interpreter} {program.script}"
        self._reporter.detail(f"Started {shown} as process {process.pid}; it has its arguments by a pipe.")
        return process.watch(
            on_line=self._take_line,
            on_call=self._take_call,
            on_tick=lambda: self._tell_progress(process),
            stop=self._stop,
            deadline=self._deadline(keys),
            grace_seconds=self._settings.grace_seconds,
        )

    def _security_group(self, keys: Keys) -> str | None:
        """Make the helper's security group when it is to run in a subnet of the user's."""
        subnet = self._targetdata.get("vpc_subnet_id")
        if not subnet:
            return None
        from clouduploader.platforms.ec2 import api

        ec2 = self._account.client("ec2", keys)
        with api.translated(f"region {self._region}"):
            vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
            name = f"clouduploader-{self._request.job_name or 'by-hand'}-{os.urandom(4).hex()}"
            group = ec2.create_security_group(GroupName=name, Description="helper of an image upload", VpcId=vpc)
            self._created(CloudObject("security group", group["GroupId"], self._region))
            ec2.authorize_security_group_ingress(
                GroupId=group["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=self._settings.ssh_cidr
            )
        return str(group["GroupId"])

    def _deadline(self, keys: Keys) -> float | None:
        if keys.expires is None:
            return None
        left = keys.expires - datetime.datetime.now(datetime.UTC)
        return time.monotonic() + max(0.0, left.total_seconds() - DEADLINE_MARGIN_SECONDS)

    def _take_line(self, line: str) -> None:
        self._reporter.line(line)
        self._image_id = tool.created_image(line) or self._image_id
        if phase := tool.phase(line):
            if self._phase == "upload":  # its next phase begins when all has been sent
                size_bytes = self._request.image.size_bytes
                self._reporter.event(BytesMoved(size_bytes, size_bytes))
            self._enter(phase)

    def _take_call(self, line: bytes) -> None:
        """Learn from one call of the API, as `launch` traced it."""
        call = json.loads(line)
        operation, code = call["operation"], call["code"]
        self._reporter.detail(
            f"ec2 {operation}: {call['status']}{f' {code}' if code else ''} in {call['milliseconds']} ms, "
            f"request id {call['request_id']}"
        )
        if code:
            self._note_refusal(call)
            return
        if self._refusal and self._refusal.operation == operation:
            self._refusal = None
        if thing := calls.made(operation, call.get("answer", {}), self._region):
            self._created(thing)
        for thing in calls.removed(operation, call["parameters"], self._region):
            self._objects.pop(thing, None)
            self._reporter.event(ObjectRemoved(thing))

    def _note_refusal(self, call: Mapping[str, str]) -> None:
        operation = call["operation"]
        is_clean_up = operation in calls.REMOVERS or (self._refusal and operation.startswith(UNDOING))
        if is_clean_up:
            return
        self._refusal = refusals.Refusal(
            service="ec2",
            operation=call["operation"],
            code=call["code"],
            message=call["message"] or "",
            status=int(call["status"]),
            date=call["date"],
        )

    def _created(self, thing: CloudObject) -> None:
        self._objects[thing] = None
        if thing.kind == "key pair":
            self._key_pairs.append(thing)
        self._reporter.event(ObjectCreated(thing))

    def _tell_progress(self, process: child.Child) -> None:
        if self._phase != "upload":
            return
        done_bytes = process.position(self._request.image.path)
        if done_bytes is not None:
            self._reporter.event(BytesMoved(done_bytes, self._request.image.size_bytes))

    def _judge(self, ending: child.Ending) -> None:
        """Return if the run was a success: exit status 0 and an AMI id, nothing less."""
        self._stop.raise_if_requested()
        if ending.is_late:
            raise PlatformReplyError(
                "the upload was stopped: the temporary credentials were about to expire",
                hint="Raise session_seconds in [ec2] of clouduploader.conf, and the role's MaxSessionDuration.",
            )
        if ending.exit_status or not self._image_id:
            raise tool.failure(
                exit_status=ending.exit_status,
                lines=ending.lines,
                refusal=self._refusal,
                region=self._region,
                image_id=self._image_id,
            )

    def _clean_up(self, kept: frozenset[str]) -> None:
        """Remove what is still there, but for these kinds."""
        for path in self._request.work_dir.glob(tool.KEY_FILES):
            # Named before the key pair is made: it is known even if the answer to that never came.
            self._objects[CloudObject("key pair", path.name, self._region)] = None
        doomed = [thing for thing in self._objects if thing.kind not in kept]
        if not doomed:
            return
        self._enter("clean up")
        try:
            clean_up(self._account, doomed, self._reporter)
        except ClouduploaderError as exc:
            for thing in doomed:
                self._reporter.line(f"Left behind: {thing.kind} {thing.id} in {thing.region}: {exc.message}")
        for thing in doomed:
            self._objects.pop(thing)


def clean_up(way: Account, objects: Sequence[CloudObject], reporter: Reporter) -> CleanUpReport:
    """Remove objects with fresh credentials.

    Raises:
        ClouduploaderError: The credentials can't be had.
    """
    from clouduploader.platforms.ec2 import leftovers

    remover = leftovers.Remover(way.client("ec2", way.fresh_keys()), way.region, reporter)
    return remover.remove(objects)
