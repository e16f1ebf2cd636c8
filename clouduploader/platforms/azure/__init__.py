"""Azure: makes a managed image or a gallery's version, by a page blob or by a managed disk that is written directly.

This module is loaded for every job; what is slow to import is imported by the method that needs it.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.azure import fields, settings
from clouduploader.plugin import (
    Accounts,
    CloudObject,
    Context,
    Finding,
    FoundObject,
    JsonValue,
    Platform,
    PlatformContext,
    UploadContext,
    UploadResult,
)

if TYPE_CHECKING:
    from clouduploader.platforms.azure.client import AzureClient


class Azure(Platform):
    """The platform `azure`."""

    description = "Makes an image in Azure, by a page blob or a managed disk; the result is its resource id."
    fields = fields.FIELDS
    needs_whole_file = False
    settings_defaults = settings.DEFAULTS
    requirement = "clouduploader[azure]"
    removal_order = ("gallery image version", "image", "disk", "page blob", "container")

    def __init__(self, context: PlatformContext) -> None:
        super().__init__(context)
        self._settings = settings.read(context.settings)

    @property
    def accounts(self) -> Accounts:  # type: ignore[override] # made when it is asked for
        """The users' applications."""
        from clouduploader.platforms.azure import accounts

        return accounts.ApplicationAccounts(self)

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata, self._settings.method)

    def connect(self, ctx: Context) -> "AzureClient":
        """Make the client; a cloud that is none of Microsoft's own is asked for its addresses."""
        from clouduploader.platforms.azure.client import AzureClient

        hint = "The user needs an application, see docs/how-to/azure.rst."
        ctx.require_credential("application_id", "the user has no application configured", hint=hint)
        return AzureClient(ctx, self._settings, self.environment)

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Turn an error of azure-identity into one of ours; the client's own are ours already."""
        if "azure.identity" not in sys.modules:
            return None
        from clouduploader.platforms.azure import sdk

        return sdk.translate(exc, subject)

    def plan(self, ctx: UploadContext) -> Iterable[str]:
        """Check all that can be checked without a change, and say what would be done."""
        from clouduploader.platforms.azure.upload import AzureUpload

        with ctx.translated("Azure"):
            return AzureUpload(ctx, self._settings).plan()

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Make an image of the disk."""
        from clouduploader.platforms.azure.upload import AzureUpload

        return AzureUpload(ctx, self._settings).run()

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Remove one thing."""
        from clouduploader.platforms.azure import upload

        upload.remove(ctx, thing)

    def find(self, ctx: Context, key: str | None) -> Iterable[FoundObject]:
        """Look for what bears our tags."""
        from clouduploader.platforms.azure import cleanup

        return cleanup.find(ctx, key)

    def check(self, ctx: Context) -> Iterable[Finding]:
        """Look whether all is in place."""
        from clouduploader.platforms.azure import check

        return check.run(ctx, self._settings)
