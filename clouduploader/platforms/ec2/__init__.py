"""Amazon EC2: makes an AMI of an image, by ec2uploadimg and a helper instance.

This module is loaded for every job; what is slow to import waits in the other rooms until needed.
"""

from collections.abc import Iterable, Mapping, Sequence

from clouduploader.platform import (
    CleanUpReport,
    CloudObject,
    Finding,
    Image,
    JsonValue,
    PlatformContext,
    Reporter,
    UploadRequest,
    UploadResult,
)
from clouduploader.platforms.ec2 import fields, settings
from clouduploader.stop import Stop


def create(context: PlatformContext) -> "Ec2":
    """Make the platform; the entry point.

    Raises:
        ConfigError: Section `[ec2]` is wrong.
    """
    return Ec2(context)


class Ec2:
    """The platform. See `clouduploader.platform.Platform`."""

    fields = fields.FIELDS

    def __init__(self, context: PlatformContext) -> None:
        self._context = context
        self._settings = settings.read(context.settings)

    def link_name(self, image: Image) -> str:
        """Give the name by which ec2uploadimg does the right thing."""
        from clouduploader.platforms.ec2 import tool

        return tool.link_name(image)

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata)

    def plan(self, request: UploadRequest, reporter: Reporter) -> list[str]:
        """Check all that can be checked without a change, and say what would be done."""
        from clouduploader.platforms.ec2 import plan

        return plan.make(self._context, self._settings, request=request, reporter=reporter)

    def upload(self, request: UploadRequest, reporter: Reporter, stop: Stop) -> UploadResult:
        """Make an AMI of the image."""
        from clouduploader.platforms.ec2 import upload

        return upload.Upload(self._context, self._settings, request=request, reporter=reporter, stop=stop).run()

    def clean_up(
        self, targetdata: Mapping[str, JsonValue], objects: Sequence[CloudObject], reporter: Reporter
    ) -> CleanUpReport:
        """Remove what an upload left, with fresh credentials."""
        from clouduploader.platforms.ec2 import upload

        way = upload.account(
            self._context, self._settings, targetdata=targetdata, user="clean-up", job_name=None, reporter=reporter
        )
        return upload.clean_up(way, objects, reporter)

    def check(self, targetdata: Mapping[str, JsonValue] | None, region: str | None) -> Iterable[Finding]:
        """Look whether all is in place."""
        from clouduploader.platforms.ec2 import check

        return check.run(self._context, self._settings, targetdata=targetdata, region=region)
