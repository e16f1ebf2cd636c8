"""Google Compute Engine: makes an image of a disk, by an archive in a bucket.

This module is loaded for every job; what is slow to import is imported by the method that needs it.
"""

import datetime
import sys
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from clouduploader.errors import ClouduploaderError, ConfigError, TransientError
from clouduploader.platforms.gce import auth, fields, images, labels, rights, staging
from clouduploader.plugin import (
    Accounts,
    CloudObject,
    Context,
    Finding,
    FoundObject,
    JsonValue,
    ObjectState,
    Platform,
    PlatformContext,
    UploadContext,
    UploadResult,
)
from clouduploader.util import hosts
from clouduploader.util.cancel import Cancel

if TYPE_CHECKING:
    from clouduploader.platforms.gce.rest import Client

_STATES = {images.READY: ObjectState.READY, images.PENDING: ObjectState.PENDING, None: ObjectState.COMPLETE}
"""By the status of an image; an archive has none, and is whole as soon as it is there."""


class Gce(Platform):
    """The platform `gce`."""

    description = "Makes an image in Google Compute Engine; the result is its name."
    fields = fields.FIELDS
    needs_whole_file = False
    requirement = "clouduploader[gce]"
    settings_defaults: ClassVar[Mapping[str, str]] = {"api_url": "https://{service}.googleapis.com"}
    removal_order = (images.IMAGE, staging.OBJECT)

    def __init__(self, context: PlatformContext) -> None:
        super().__init__(context)
        api_url = self.settings["api_url"]
        parts = urllib.parse.urlsplit(api_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and hosts.is_here(parts.hostname or "")):
            raise ConfigError(
                f"setting 'api_url' in [gce] of clouduploader.conf is '{api_url}', not a URL of https",
                hint="By http others could read the tokens.",
            )

    @property
    def accounts(self) -> Accounts:  # type: ignore[override] # made when it is asked for
        """The users' service accounts."""
        from clouduploader.platforms.gce import accounts

        return accounts.ServiceAccounts(lambda values, reporter: Context(self, values, reporter, Cancel()))

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the rules between fields."""
        return fields.problems(targetdata)

    def connect(self, ctx: Context) -> "Client":
        """Make the client."""
        return auth.connect(ctx, api_url=self.settings["api_url"], environment=self.environment)

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Turn an error of google-auth into one of ours; the client's own are ours already."""
        if "google.auth" not in sys.modules:
            return None
        from clouduploader.platforms.gce import person

        return person.translate(exc, subject)

    def plan(self, ctx: UploadContext) -> Iterator[str]:
        """Check the image, the name and the bucket."""
        image, bucket = images.image_of(ctx), staging.bucket_of(ctx)
        spec = images.resolve(ctx)
        if found := images.lookup(ctx, image.id):
            images.check_same(ctx, spec, found)
            yield f"leave image {image.id} as it is, for it is of the same disk"
        else:
            rights.require(ctx)
            yield f"send the disk as disk.raw in a tar.gz to bucket {bucket}"
            yield (
                f"make image {image.id} in project {ctx.client.project} of it, for {spec.architecture}, "
                f"with {', '.join(spec.features) or 'no features'}"
            )
            yield f"remove the archive from bucket {bucket}"
        yield from images.plan_distribution(ctx)

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Make an image of the disk, or find that there is one already."""
        with ctx.phase("check image"):
            image = images.image_of(ctx)
            staging.bucket_of(ctx)
            ctx.cancel.raise_if_requested()
            spec = images.resolve(ctx)
            found = images.lookup(ctx, image.id)
            if found and images.is_failed(found, ctx.request.journal.key):
                ctx.remove([image])
                found = None
        if found:
            with ctx.phase("compare"):
                images.check_same(ctx, spec, found)
                images.await_ready(ctx, image.id)
                ctx.reporter.line(f"Image {image.id} is there already, and of the same disk.")
        archives = [one for one in ctx.resources.of_earlier_tries() if one.kind == staging.OBJECT]
        if not found:
            archives.append(self._create(ctx, spec))
        with ctx.phase("finish"):
            ctx.remove(list(dict.fromkeys(archives)))
            shortfalls = images.distribute(ctx, image.id)
        return UploadResult(image.id, (image,), shortfalls, is_already_there=bool(found))

    @staticmethod
    def _create(ctx: UploadContext, spec: images.ImageSpec) -> CloudObject:
        """Make the image; return its archive."""
        with ctx.phase("upload"):
            archive = staging.upload(ctx)
        with ctx.phase("make image"):
            try:
                images.create(ctx, spec, archive)
            except TransientError:
                ctx.resources.keep(archive.thing)
                ctx.reporter.line(f"The archive {archive.thing.id} is kept for another try.")
                raise
        return archive.thing

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Delete an image, or the archive of one."""
        if thing.kind == images.IMAGE:
            images.remove(ctx, thing.id)
        else:
            staging.remove(ctx, thing)

    def find(self, ctx: Context, key: str | None) -> Iterator[FoundObject]:
        """Look for images by their labels, and for archives by their names."""
        for found in staging.listed(ctx, key):
            yield _found(CloudObject(staging.OBJECT, f"{found['bucket']}/{found['name']}"), found, "timeCreated")
        for found in images.listed(ctx, key):
            yield _found(CloudObject(images.IMAGE, found["name"]), found, "creationTimestamp")

    def check(self, ctx: Context) -> Iterable[Finding]:
        """Look which rights the credentials have."""
        return rights.check(ctx)


def _found(thing: CloudObject, described: Mapping[str, Any], time_key: str) -> FoundObject:
    """Say of a thing what its description tells."""
    bears = labels.as_ours(described.get("labels") or described.get("metadata") or {})
    status = described.get("status")
    return FoundObject.from_labels(
        thing,
        bears,
        datetime.datetime.fromisoformat(described[time_key]),
        "an image that can be used" if status == images.READY else None,
        _STATES.get(status, ObjectState.PARTIAL),
    )
