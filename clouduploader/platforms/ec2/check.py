"""Look whether everything is in place for a first upload to EC2."""

import contextlib
import dataclasses
import datetime
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clouduploader.errors import ClouduploaderError, ConfigError, TransientError
from clouduploader.platforms.ec2 import ami, auth, aws_errors, fields, hints
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config, process
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import Context, Finding, Level, NullReporter, PlatformContext

OLDEST_HELPER = (10, 0, 0)  # what was measured is 10.0.5; options and output were the same in all of 10.0
MAX_VERSION = 100  # characters
VERSION_SECONDS = 30  # importing boto3 and paramiko cold takes a few
NO_SNAPSHOT = "snap-00000000000000000"
DRY_RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "RegisterImage": (
        "register_image",
        {
            "Name": "clouduploader check",
            "RootDeviceName": "/dev/sda1",
            "VirtualizationType": "hvm",
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": NO_SNAPSHOT}}],
        },
    ),
    "CreateTags": ("create_tags", {"Resources": [NO_SNAPSHOT], "Tags": [{"Key": "check", "Value": ""}]}),
    "DescribeImages": ("describe_images", {"Owners": ["self"]}),
    "DescribeSnapshots": ("describe_snapshots", {"OwnerIds": ["self"]}),
    "DeleteSnapshot": ("delete_snapshot", {"SnapshotId": NO_SNAPSHOT}),
    "DeregisterImage": ("deregister_image", {"ImageId": "ami-00000000000000000"}),
}
"""Actions of EC2 that an EBS direct upload calls, with boto3's method, and parameters that name nothing that exists."""
TIED = ("RegisterImage", "CreateTags", "DeleteSnapshot", "DeregisterImage")
"""Those of them that the role may have for things with our tag only, as `rights` has it: a refusal tells nothing."""
UNTRIABLE = (
    "ebs:StartSnapshot",
    "ebs:PutSnapshotBlock",
    "ebs:CompleteSnapshot",
    "ebs:ListSnapshotBlocks",
    "ebs:GetSnapshotBlock",
)
"""Actions of the EBS direct APIs: they know no DryRun."""


def run(ctx: Context, settings: Ec2Settings, platform: PlatformContext) -> Iterator[Finding]:
    """Look whether all is in place; see `Platform.check`.

    Args:
        ctx: With target data or without.
        settings: Section `[ec2]`.
        platform: What the platform was made from.
    """
    return _Check(ctx, settings, platform).run()


class _Check:
    def __init__(self, ctx: Context, settings: Ec2Settings, platform: PlatformContext) -> None:
        self._ctx = ctx
        self._settings = settings
        self._platform = platform
        self._method = fields.method(ctx.targetdata, settings)

    def run(self) -> Iterator[Finding]:
        helpers: dict[str, helper_config.HelperInstance] = {}
        if self._method != "ebs-direct":
            for finding in self._for_helper(helpers):
                is_needed = self._method == "ec2uploadimg" or finding.level is not Level.FAILURE
                yield finding if is_needed else dataclasses.replace(finding, level=Level.WARNING)
        names = list(helpers)
        if self._method != "ec2uploadimg":
            names = [self._ctx.region] if self._ctx.region else names or self._regions_without_helpers()
        yield from self._identity(names, helpers)
        if self._ctx.targetdata:
            yield from self._role()

    def _for_helper(self, helpers: dict[str, helper_config.HelperInstance]) -> Iterator[Finding]:
        """Look at what ec2uploadimg needs, and collect its helpers by region."""
        yield from self._program()
        path = str(self._platform.home / helper_config.FILE_NAME)
        try:
            names = [self._ctx.region] if self._ctx.region else helper_config.names(self._platform.home)
        except ClouduploaderError as exc:
            yield _failure(path, exc)
            return
        if not names:
            yield Finding(Level.FAILURE, path, "no region is configured", "Add a section [region-R]; see the sample.")
        for name in names:
            try:
                helpers[name] = helper_config.helper(self._platform.home, name)
            except ClouduploaderError as exc:
                yield _failure(f"region {name}", exc)

    def _regions_without_helpers(self) -> list[str]:
        """List the regions to look at where .ec2utils.conf is not needed."""
        found: list[str] = []
        with contextlib.suppress(ClouduploaderError):
            found = helper_config.names(self._platform.home)
        if not found:
            with contextlib.suppress(ClouduploaderError):
                own = hints.RegionHints(self._platform.environment).default("region")
                found = [own] if own else []
        return found

    def _program(self) -> Iterator[Finding]:
        try:
            program = command.named(self._settings, self._platform)
        except ClouduploaderError as exc:
            yield _failure("ec2uploadimg", exc)
            return
        subject = str(program.script)
        try:
            answer = subprocess.run(
                [program.interpreter, str(program.script), "--version"],
                env=process.environment(self._platform.environment, self._platform.home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VERSION_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            yield Finding(Level.FAILURE, subject, f"does not run: {exc}", "Reinstall ec2imgutils.")
            return
        if answer.returncode:
            words = answer.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
            yield Finding(Level.FAILURE, subject, f"does not run: {words[0]}", "Reinstall ec2imgutils.")
            return
        version = answer.stdout.decode(errors="replace").strip()[:MAX_VERSION]
        numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
        message = f"version {version}, run by {program.interpreter}"
        if numbers < OLDEST_HELPER:
            yield Finding(Level.WARNING, subject, message, "This is older than what clouduploader was made for: 10.0.")
        else:
            yield Finding(Level.OK, subject, message)

    def _identity(self, names: Sequence[str], helpers: Mapping[str, helper_config.HelperInstance]) -> Iterator[Finding]:
        """Look which identity we have in AWS, whether the clock is right, and what the regions have."""
        if not names:
            if self._method != "ec2uploadimg":
                yield Finding(
                    Level.WARNING, "regions", "there is none to look at", "Name one with --region, or give --data."
                )
            return
        region = self._settings.sts_region or names[0]
        caller = auth.CallerAccount(
            self._platform.home, self._settings.profile, is_role_wanted=True, region=region, reporter=NullReporter()
        )
        try:
            keys = caller.keys()
            we = caller.identity(keys)
        except ClouduploaderError as exc:
            yield _failure("AWS identity", exc)
            return
        yield Finding(Level.OK, "AWS identity", f"{we.arn}, account {we.account_id}")
        yield _clock(we.date)
        for name in names:
            if name in helpers:
                yield from self._region(name, helpers[name], caller, keys)
            if self._method != "ec2uploadimg":
                yield self._endpoint(name, caller, keys)

    def _endpoint(self, region: str, caller: auth.CallerAccount, keys: AccessKeys) -> Finding:
        """Look whether the EBS direct APIs answer at all; no right is needed for that."""
        subject = f"EBS direct APIs in {region}"
        try:
            ebs = caller.client("ebs", region, keys)
            with self._ctx.translated(subject):
                ebs.list_snapshot_blocks(SnapshotId=NO_SNAPSHOT)
        except (TransientError, ConfigError) as exc:
            return _failure(subject, exc)
        except ClouduploaderError:
            pass  # an answer, whatever it says
        return Finding(Level.OK, subject, f"{ebs.meta.endpoint_url} answers")

    def _region(
        self, name: str, helper: helper_config.HelperInstance, caller: auth.CallerAccount, keys: AccessKeys
    ) -> Iterator[Finding]:
        """Look at a region with the service's own keys, which OBS's admin may have given no rights but AssumeRole."""
        subject = f"region {name}"
        try:
            ec2 = caller.client("ec2", name, keys)
            helper_config.check_ami(self._ctx, ec2, helper.ami, name)
            with self._ctx.translated(subject):
                types = ec2.describe_instance_types(
                    Filters=[{"Name": "instance-type", "Values": [helper.instance_type]}]
                )["InstanceTypes"]
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

    def _role(self) -> Iterator[Finding]:
        """Try the role of a job that is to come, and look at the job's region with its rights."""
        account = auth.account_to_check(self._ctx, self._platform.home, self._settings)
        subject = f"role {account.role_arn}" if account.role_arn else "own credentials"
        try:
            ec2 = account.ec2()
            yield Finding(Level.OK, subject, "can be used")
            if self._method != "ebs-direct":
                helper = helper_config.helper(self._platform.home, self._ctx.region)
                helper_config.check_ami(self._ctx, ec2, helper.ami, self._ctx.region)
            ami.check_name(self._ctx, account)
            if self._method != "ebs-direct":
                helper_config.check_subnet(self._ctx, ec2)
        except ClouduploaderError as exc:
            yield _failure(subject, exc)
            return
        looked_at = "name is" if self._method == "ebs-direct" else "helper, name and subnet are"
        yield Finding(Level.OK, subject, f"{looked_at} fine in {self._ctx.region}")
        if self._method != "ec2uploadimg":
            yield from _rights(self._ctx, account, subject)


def _failure(subject: str, exc: ClouduploaderError) -> Finding:
    return Finding(Level.FAILURE, subject, exc.message, exc.hint)


def _clock(date: str) -> Finding:
    skew = aws_errors.clock_skew(date)
    if skew is None:
        return Finding(Level.WARNING, "clock", "AWS did not tell the time")
    seconds = round(abs(skew).total_seconds())
    message = f"{seconds} seconds {'ahead of' if skew > datetime.timedelta() else 'behind'} Amazon's"
    if abs(skew) > aws_errors.MAX_SKEW:
        return Finding(Level.FAILURE, "clock", message, "Set it, for example with chrony: AWS refuses 5 minutes.")
    return Finding(Level.OK, "clock", message)


def _rights(ctx: Context, account: auth.Account, subject: str) -> Iterator[Finding]:
    """Try, without doing it, what EBS direct needs of EC2; and say what can't be tried."""
    from clouduploader.platforms.ec2 import boto

    granted, unknown = [], []
    for action, (operation, parameters) in DRY_RUNS.items():
        try:
            with ctx.translated(subject):
                getattr(account.ec2(), operation)(**parameters, DryRun=True)
            code = ""
        except ClouduploaderError as exc:
            code = boto.refusal_code(exc)
            if not code:
                yield Finding(Level.FAILURE, subject, f"ec2:{action} can't be tried: {exc.message}")
                return
        if code == "DryRunOperation":
            granted.append(f"ec2:{action}")
        elif code in aws_errors.UNAUTHORIZED and action not in TIED:
            hint = "Attach the policy that `clouduploader account show` prints to the role."
            yield Finding(Level.FAILURE, subject, f"may not call ec2:{action}", hint)
        else:
            unknown.append(f"ec2:{action}")
    if granted:
        yield Finding(Level.OK, subject, f"may call {', '.join(granted)} (tried without doing it)")
    yield Finding(
        Level.WARNING,
        subject,
        f"whether it may call {', '.join([*unknown, *UNTRIABLE])} can't be tried without doing it",
        "The first upload will tell: `clouduploader account show` prints the policy.",
    )
