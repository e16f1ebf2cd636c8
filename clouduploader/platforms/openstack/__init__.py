"""OpenStack: makes an image in Glance, whose content comes as one stream.

This module is loaded for every job; what is slow to import is imported by the method that needs it.
"""

import datetime
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from clouduploader.errors import ClouduploaderError, ConfigError, PlatformReplyError
from clouduploader.platforms.openstack import fields
from clouduploader.plugin import (
    Accounts,
    CloudObject,
    Context,
    Finding,
    FoundObject,
    Hints,
    HomeFile,
    JsonValue,
    ObjectState,
    Platform,
    PlatformContext,
    UploadContext,
    UploadResult,
    labels,
)

if TYPE_CHECKING:
    from clouduploader.platforms.openstack.cloud import Cloud


class OpenStack(Platform):
    """The platform `openstack`."""

    description = "Makes an image in OpenStack Glance; the result is its id."
    files = (
        HomeFile(path="clouds.yaml", description="The OpenStack clouds by their names, without credentials; optional."),
    )
    fields = fields.FIELDS
    needs_whole_file = False
    settings_defaults: ClassVar[Mapping[str, str]] = {"auth_hosts": "*", "cloud": "", "method": "put"}
    requirement = "clouduploader[openstack]"

    def __init__(self, context: PlatformContext) -> None:
        super().__init__(context)
        if self.settings["method"] not in fields.METHODS:
            raise ConfigError(
                f"setting 'method' in [openstack] of clouduploader.conf is '{self.settings['method']}', not one of "
                f"{', '.join(fields.METHODS)}"
            )

    @property
    def accounts(self) -> Accounts:  # type: ignore[override] # made when it is asked for
        """The users' application credentials."""
        from clouduploader.platforms.openstack import accounts

        return accounts.CredentialAccounts(self)

    @property
    def hints(self) -> Hints:  # type: ignore[override] # made when it is asked for
        """What the person's own settings tell."""
        from clouduploader.platforms.openstack import hints

        return hints.RegionHints(self.environment)

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata, default_cloud=self.settings["cloud"])

    def connect(self, ctx: Context) -> "Cloud":
        """Find the cloud; no network before it is used."""
        from clouduploader.platforms.openstack import cloud

        ctx.require_credential(
            "application_credential_id",
            "the user has no application credential configured",
            hint="Enter it with `clouduploader account set USER application_credential_id ID`.",
        )
        takes = None
        if url := str(ctx.targetdata.get("auth_url") or ""):
            allowed = self.settings["auth_hosts"].lower().split()
            fields.check_url(url, allowed, is_by_hand=ctx.is_by_hand)
            if not (ctx.is_by_hand or fields.is_listed(url, allowed)):
                takes = fields.is_of_https  # by http are the servers that trust this machine
        return cloud.connect(ctx, self.home, self.settings["cloud"], takes=takes)

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Turn an error of openstacksdk or keystoneauth into one of ours."""
        if isinstance(exc, ClouduploaderError) or "keystoneauth1" not in sys.modules:  # then it is not theirs
            return None
        from clouduploader.platforms.openstack import cloud

        return cloud.translate(exc, subject)

    def plan(self, ctx: UploadContext) -> Iterable[str]:
        """Check all that can be checked without a change, and say what would be done."""
        from clouduploader.platforms.openstack import upload

        return list(upload.ImageUpload(ctx, default_method=self.settings["method"]).plan())

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Make an image of the disk, or find that it is there."""
        from clouduploader.platforms.openstack import upload

        return upload.ImageUpload(ctx, default_method=self.settings["method"]).run()

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Delete an image."""
        if thing.kind != "image":
            raise PlatformReplyError("clouduploader does not know how to remove that")
        cloud: Cloud = ctx.client
        with ctx.translated(f"image {thing.id}"):
            cloud.images(thing.region or ctx.region).delete(thing.id)

    def find(self, ctx: Context, key: str | None) -> Iterator[FoundObject]:
        """Look for the project's images that bear our tags."""
        cloud: Cloud = ctx.client
        tag = f"{labels.KEY}={key}" if key else fields.MARK
        with ctx.translated(f"region {ctx.region}"):
            for image in cloud.images(ctx.region).find(tag=tag, owner=cloud.project_id()):
                bears = fields.labels_of(image["tags"])
                if labels.is_ours(bears):
                    is_ready = image["status"] in ("active", "deactivated")
                    yield FoundObject.from_labels(
                        CloudObject("image", str(image["id"]), ctx.region),
                        bears,
                        datetime.datetime.fromisoformat(image["created_at"]),
                        "an image that can be used" if is_ready else None,
                        ObjectState.READY if is_ready else ObjectState.PARTIAL,
                    )

    def check(self, ctx: Context) -> Iterator[Finding]:
        """Look at clouds.yaml, log in, and look at the image service."""
        from clouduploader.platforms.openstack import check

        return check.run(ctx, self.home)
