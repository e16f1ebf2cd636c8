"""Amazon EC2: makes an AMI of an image, through the EBS direct APIs, or by ec2uploadimg and a helper instance.

This module is loaded for every job; what is slow to import waits in the other rooms until needed.
"""

from collections.abc import Iterable, Mapping, Sequence

from clouduploader.errors import ImageError
from clouduploader.model.disk import Image
from clouduploader.platforms.ec2 import fields, settings
from clouduploader.plugin import (
    Accounts,
    CleanUpReport,
    CloudObject,
    Finding,
    FoundObject,
    Hints,
    JsonValue,
    Plan,
    PlatformContext,
    Reporter,
    UploadRequest,
    UploadResult,
)
from clouduploader.util.cancel import Cancel


def create(context: PlatformContext) -> "Ec2":
    """Make the platform; the entry point.

    Raises:
        ConfigError: Section `[ec2]` is wrong.
    """
    return Ec2(context)


class Ec2:
    """The platform. See `clouduploader.plugin.Platform`."""

    fields = fields.FIELDS

    def __init__(self, context: PlatformContext) -> None:
        self._context = context
        self._settings = settings.read(context.settings)

    @property
    def accounts(self) -> Accounts:
        """The users' roles."""
        from clouduploader.platforms.ec2.iam import accounts

        return accounts.RoleAccounts(self._context, self._settings)

    @property
    def hints(self) -> Hints:
        """The regions, and the one that the person uses."""
        from clouduploader.platforms.ec2 import hints

        return hints.RegionHints(self._context.environment)

    def link_name(self, image: Image) -> str:
        """Give the name by which ec2uploadimg does the right thing, should it be its turn.

        What it can't take at all has its own name here: the EBS direct way goes by the content, and `upload`
        refuses such an image for the other.
        """
        from clouduploader.platforms.ec2.ec2uploadimg import command

        try:
            return command.link_name(image)
        except ImageError:
            return image.filename

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata, self._settings)

    def plan(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> Plan:
        """Check all that can be checked without a change, and say what would be done."""
        from clouduploader.platforms.ec2 import plan

        return plan.make(self._context, self._settings, request=request, reporter=reporter, cancel=cancel)

    def upload(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> UploadResult:
        """Make an AMI of the image."""
        method = fields.method(request.targetdata, self._settings)
        if method == "ec2uploadimg":
            return self._upload_by_tool(request, reporter, cancel)
        from clouduploader.platforms.ec2 import auth

        with auth.uncollected():
            from clouduploader.platforms.ec2.ebs import snapshot
            from clouduploader.platforms.ec2.ebs import upload as direct

        try:
            return direct.EbsUpload(
                self._context, self._settings, request=request, reporter=reporter, cancel=cancel
            ).run()
        except snapshot.StartDeniedError as exc:
            if method != "auto" or not self._is_for_tool(request):
                raise
            reporter.line(f"EBS direct can't be used: {exc.message}. Going on with ec2uploadimg.")
        return self._upload_by_tool(request, reporter, cancel)

    def _upload_by_tool(self, request: UploadRequest, reporter: Reporter, cancel: Cancel) -> UploadResult:
        from clouduploader.platforms.ec2 import auth
        from clouduploader.platforms.ec2.ec2uploadimg import command

        with auth.uncollected():
            from clouduploader.platforms.ec2.ec2uploadimg import upload

        command.link_name(request.image)  # refuses what it can't take
        return upload.HelperUpload(
            self._context, self._settings, request=request, reporter=reporter, cancel=cancel
        ).run()

    def _is_for_tool(self, request: UploadRequest) -> bool:
        """Whether ec2uploadimg could do all that is asked for."""
        from clouduploader.platforms.ec2.ec2uploadimg import command

        try:
            command.link_name(request.image)
        except ImageError:
            return False
        return not fields.problems({**request.targetdata, "method": "ec2uploadimg"}, self._settings)

    def clean_up(
        self, targetdata: Mapping[str, JsonValue], objects: Sequence[CloudObject], reporter: Reporter
    ) -> CleanUpReport:
        """Remove what an upload left, with fresh credentials."""
        from clouduploader.platforms.ec2 import auth, cleanup

        way = auth.account(
            self._context, self._settings, targetdata=targetdata, user="clean-up", job_name=None, reporter=reporter
        )
        return cleanup.clean_up(way, objects, reporter)

    def find(self, targetdata: Mapping[str, JsonValue], key: str | None, reporter: Reporter) -> Sequence[FoundObject]:
        """Look for what bears our tags."""
        from clouduploader.platforms.ec2 import auth, cleanup

        way = auth.account(
            self._context, self._settings, targetdata=targetdata, user="clean-up", job_name=None, reporter=reporter
        )
        return cleanup.find(way.client("ec2", way.renewing()), way.region, key, reporter)

    def check(self, targetdata: Mapping[str, JsonValue] | None, region: str | None) -> Iterable[Finding]:
        """Look whether all is in place."""
        from clouduploader.platforms.ec2 import check

        return check.run(self._context, self._settings, targetdata=targetdata, region=region)
