"""Is everything in place for a first upload to EC2?"""

import datetime
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import ClouduploaderError
from clouduploader.platform import Event, Finding, JsonValue, Level, PlatformContext
from clouduploader.platforms.ec2 import child, plan, refusals, regions, tool, upload
from clouduploader.platforms.ec2.settings import Settings

if TYPE_CHECKING:
    import botocore.session

OLDEST_TOOL = (10, 0, 0)  # what was measured is 10.0.5; options and output were the same in all of 10.0
VERSION_SECONDS = 30  # importing boto3 and paramiko cold takes a few


class _Silent:
    """A reporter for calls nobody wants to hear of."""

    def line(self, text: str) -> None:
        """Say nothing."""

    def detail(self, text: str) -> None:
        """Say nothing."""

    def event(self, event: Event) -> None:
        """Say nothing."""

    def hide(self, secret: str) -> None:
        """Nothing is said, so nothing needs to be hidden."""


def run(
    context: PlatformContext,
    settings: Settings,
    *,
    targetdata: Mapping[str, JsonValue] | None,
    region: str | None,
) -> Iterator[Finding]:
    """See `Platform.check`."""
    yield from _tool(context, settings)
    try:
        names = [region] if region else regions.names(context.home)
    except ClouduploaderError as exc:
        yield _failure(str(context.home / regions.FILE_NAME), exc)
        return
    if not names:
        path = str(context.home / regions.FILE_NAME)
        yield Finding(Level.FAILURE, path, "no region is configured", "Add a section [region-R]; see the sample.")
    helpers: dict[str, regions.Helper] = {}
    for name in names:
        try:
            helpers[name] = regions.helper(context.home, name)
        except ClouduploaderError as exc:
            yield _failure(f"region {name}", exc)
    yield from _identity(context, settings, next(iter(helpers), None), helpers)
    if targetdata is not None:
        yield from _role(context, settings, targetdata)


def _failure(subject: str, exc: ClouduploaderError) -> Finding:
    return Finding(Level.FAILURE, subject, exc.message, exc.hint)


def _tool(context: PlatformContext, settings: Settings) -> Iterator[Finding]:
    try:
        program = tool.find(settings.ec2uploadimg, context.environment.get("PATH"))
    except ClouduploaderError as exc:
        yield _failure("ec2uploadimg", exc)
        return
    subject = str(program.script)
    try:
        answer = subprocess.run(
            [program.interpreter, str(program.script), "--version"],
            env=child.environment(context.environment, context.home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        yield Finding(Level.FAILURE, subject, f"does not run: {exc}", "Reinstall ec2imgutils.")
        return
    if answer.returncode:
        words = answer.stderr.strip().splitlines()[-1:] or ["no reason given"]
        yield Finding(Level.FAILURE, subject, f"does not run: {words[0]}", "Reinstall ec2imgutils.")
        return
    version = answer.stdout.strip()
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    message = f"version {version}, run by {program.interpreter}"
    if numbers < OLDEST_TOOL:
        yield Finding(Level.WARNING, subject, message, "This is older than what clouduploader was made for: 10.0.")
    else:
        yield Finding(Level.OK, subject, message)


def _identity(
    context: PlatformContext, settings: Settings, region: str | None, helpers: Mapping[str, regions.Helper]
) -> Iterator[Finding]:
    """Who we are in AWS, whether the clock is right, and what the regions have."""
    if region is None:
        return
    from clouduploader.platforms.ec2 import api, credentials

    session = credentials.base_session(context.home, settings.profile, is_role_wanted=True)
    try:
        sts = api.client("sts", region=settings.sts_region or region, reporter=_Silent(), session=session)
        with api.translated("our own account"):
            answer = sts.get_caller_identity()
    except ClouduploaderError as exc:
        yield _failure("AWS identity", exc)
        return
    yield Finding(Level.OK, "AWS identity", f"{answer['Arn']}, account {answer['Account']}")
    yield _clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
    for name, helper in helpers.items():
        yield from _region(name, helper, session)


def _clock(date: str) -> Finding:
    skew = refusals.clock_skew(date)
    if skew is None:
        return Finding(Level.WARNING, "clock", "AWS did not tell the time")
    seconds = round(abs(skew).total_seconds())
    message = f"{seconds} seconds {'ahead of' if skew > datetime.timedelta() else 'behind'} Amazon's"
    if abs(skew) > refusals.MAX_SKEW:
        return Finding(Level.FAILURE, "clock", message, "Set it, for example with chrony: AWS refuses 5 minutes.")
    return Finding(Level.OK, "clock", message)


def _region(name: str, helper: regions.Helper, session: "botocore.session.Session") -> Iterator[Finding]:
    """Look at a region with the service's own keys, which OBS's admin may have given no rights but AssumeRole."""
    subject = f"region {name}"
    from clouduploader.platforms.ec2 import api

    try:
        ec2 = api.client("ec2", region=name, reporter=_Silent(), session=session)
        plan.check_helper(ec2, helper.ami, name)
        with api.translated(subject):
            types = ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": [helper.instance_type]}])[
                "InstanceTypes"
            ]
    except ClouduploaderError as exc:
        if "UnauthorizedOperation" in exc.message:
            yield Finding(
                Level.WARNING,
                subject,
                f"{helper.ami} and {helper.instance_type} can't be looked up: the service may not",
                "Give target data (--data) to look with the role's rights, or allow the service ec2:Describe*.",
            )
        else:
            yield _failure(subject, exc)
        return
    if not types:
        hint = "Put another Xen type into .ec2utils.conf."
        yield Finding(Level.FAILURE, subject, f"there is no instance type {helper.instance_type}", hint)
    elif types[0].get("Hypervisor", "xen") != "xen":
        hint = "Use a Xen type, for example t2.micro: ec2uploadimg can't find its disks on others."
        yield Finding(Level.FAILURE, subject, f"{helper.instance_type} is not on Xen", hint)
    else:
        yield Finding(Level.OK, subject, f"helper {helper.ami} on {helper.instance_type}")


def _role(context: PlatformContext, settings: Settings, targetdata: Mapping[str, JsonValue]) -> Iterator[Finding]:
    """Try the role of a job that is to come, and look at the job's region with its rights."""
    reporter = _Silent()
    way = upload.account(context, settings, targetdata=targetdata, user="check", job_name=None, reporter=reporter)
    subject = f"role {way.role_arn}" if way.role_arn else "own credentials"
    try:
        ec2 = way.client("ec2", way.fresh_keys())
        yield Finding(Level.OK, subject, "can be used")
        helper = regions.helper(context.home, way.region)
        plan.check_helper(ec2, helper.ami, way.region)
        plan.check_name(ec2, str(targetdata["ami_name"]), way.region)
        if targetdata.get("vpc_subnet_id"):
            plan.check_subnet(ec2, str(targetdata["vpc_subnet_id"]), way.region)
    except ClouduploaderError as exc:
        yield _failure(subject, exc)
        return
    yield Finding(Level.OK, subject, f"helper, name and subnet are fine in {way.region}")
