"""Amazon EC2: makes an AMI of an image, through the EBS direct APIs, or by ec2uploadimg and a helper instance.

This module is loaded for every job; what is slow to import is imported by the method that needs it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from clouduploader.errors import AbsentError, ClouduploaderError, ImageError, PlatformReplyError
from clouduploader.model.disk import Image
from clouduploader.platforms.ec2 import fields, settings
from clouduploader.plugin import (
    Accounts,
    CleanUpReport,
    CloudObject,
    Context,
    Cost,
    Finding,
    FoundObject,
    Hints,
    HomeFile,
    JsonValue,
    Platform,
    PlatformContext,
    UploadContext,
    UploadResult,
)

if TYPE_CHECKING:
    from clouduploader.platforms.ec2.auth import Account


class Ec2(Platform):
    """The platform `ec2`."""

    description = "Makes an AMI in Amazon EC2, by the EBS direct APIs or by ec2uploadimg; the result is its id."
    files = (
        HomeFile(
            path=".aws/credentials",
            description="The AWS credentials that assume the users' roles.",
            is_secret=True,
        ),
        HomeFile(path=".aws/config", description="What AWS's SDK is to do otherwise; optional."),
        HomeFile(path=".ec2utils.conf", description="Helper image and instance type of each EC2 region."),
    )
    fields = fields.FIELDS
    needs_whole_file = False
    settings_defaults = settings.DEFAULTS

    def __init__(self, context: PlatformContext) -> None:
        super().__init__(context)
        self._context = context
        self._settings = settings.read(context.settings)

    @property
    def accounts(self) -> Accounts:  # type: ignore[override] # made when it is asked for
        """The users' roles."""
        from clouduploader.platforms.ec2 import accounts

        return accounts.RoleAccounts(self._context, self._settings)

    @property
    def hints(self) -> Hints:  # type: ignore[override] # made when it is asked for
        """What is known of regions without asking AWS."""
        from clouduploader.platforms.ec2 import hints

        return hints.RegionHints(self._context.environment)

    def link_name(self, image: Image) -> str:
        """Return the name by which ec2uploadimg does the right thing, should it be used.

        What it can't take at all keeps its own name: EBS direct goes by the content, and `upload` refuses such an
        image for the other method.
        """
        from clouduploader.platforms.ec2.ec2uploadimg import command

        try:
            return command.link_name(image)
        except ImageError:
            return image.filename

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata, self._settings)

    def connect(self, ctx: Context) -> "Account":
        """Make the account; no network before it is used."""
        from clouduploader.platforms.ec2 import auth

        return auth.account(ctx, self.home, self._settings)

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Turn an error of AWS's SDK into one of ours."""
        if isinstance(exc, ClouduploaderError):  # may come before the SDK is loaded
            return None
        from clouduploader.platforms.ec2 import boto

        return boto.translate(exc, subject)

    def plan(self, ctx: UploadContext) -> Iterable[str | Cost]:
        """Check all that can be checked without a change, and say what would be done."""
        from clouduploader.platforms.ec2 import plan
        from clouduploader.platforms.ec2.context import Ec2Context

        made = plan.make(Ec2Context(ctx, self._settings), self._context)
        return (*made.steps, *made.costs)

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Make an AMI of the image."""
        method = fields.method(ctx.targetdata, self._settings)
        if method == "ec2uploadimg":
            return self._upload_by_helper(ctx)
        from clouduploader.platforms.ec2.context import Ec2Context
        from clouduploader.platforms.ec2.ebs import snapshot
        from clouduploader.platforms.ec2.ebs import upload as direct

        try:
            return direct.EbsUpload(Ec2Context(ctx, self._settings)).run()
        except snapshot.StartDeniedError as exc:
            if method != "auto" or not self._is_for_helper(ctx):
                raise
            ctx.reporter.line(f"EBS direct can't be used: {exc.message}. Going on with ec2uploadimg.")
        return self._upload_by_helper(ctx)

    def _upload_by_helper(self, ctx: UploadContext) -> UploadResult:
        from clouduploader.platforms.ec2 import image_spec
        from clouduploader.platforms.ec2.context import Ec2Context
        from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config

        command.link_name(ctx.request.image)  # refuses what it can't take
        ctx.request.await_file()
        context = Ec2Context(ctx, self._settings)
        with ctx.cancel.interruptible():
            helper = helper_config.helper(self.home, context.region)
            program = command.named(self._settings, self._context)
            image_spec.machine(ctx.request)  # refuses what EC2 has not
            context.authenticate()
        from clouduploader.platforms.ec2.ec2uploadimg import upload  # slow to import: the first request waits for none

        return upload.HelperUpload(context, program, helper, self._context.environment).run()

    def _is_for_helper(self, ctx: UploadContext) -> bool:
        """Tell whether ec2uploadimg could do all that is asked for."""
        from clouduploader.platforms.ec2.ec2uploadimg import command

        try:
            command.link_name(ctx.request.image)
        except ImageError:
            return False
        return not fields.problems({**ctx.targetdata, "method": "ec2uploadimg"}, self._settings)

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Remove one thing; see `clean_up`, which knows what AWS's dependencies ask for."""
        report = self.clean_up(ctx, [thing])
        if report.absent:
            raise AbsentError(f"the {thing.kind} {thing.id} does not show")
        for leftover in report.left:
            raise PlatformReplyError(leftover.reason)

    def clean_up(self, ctx: Context, objects: Sequence[CloudObject]) -> CleanUpReport:
        """Remove what an upload left, with its instances and their volumes, region by region."""
        from clouduploader.platforms.ec2 import cleanup

        return cleanup.clean_up(ctx, ctx.client, objects)

    def find(self, ctx: Context, key: str | None) -> Iterable[FoundObject]:
        """Look for what bears our tags."""
        from clouduploader.platforms.ec2 import cleanup

        return cleanup.find(ctx, ctx.client, key)

    def check(self, ctx: Context) -> Iterable[Finding]:
        """Look whether all is in place."""
        from clouduploader.platforms.ec2 import check

        return check.run(ctx, self._settings, self._context)
