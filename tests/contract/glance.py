"""OpenStack Glance as a plugin author would write it: the plugin API is enough for a cloud in few lines."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, http_error
from clouduploader.plugin import (
    CloudObject,
    Context,
    Field,
    Finding,
    FoundObject,
    JsonValue,
    Level,
    Platform,
    UploadContext,
    UploadResult,
    labels,
)

ARCHITECTURES = {"x86_64": "x86_64", "i386": "i686", "arm64": "aarch64"}


class Glance(Platform):
    """Images in OpenStack Glance."""

    description = "Makes an image in OpenStack Glance; the result is its id."
    settings_defaults: Mapping[str, str] = {"interface": "public"}
    fields = (
        Field(name="image_name", description="The name of the image.", is_required=True, max_length=255),
        Field(
            name="region",
            description="The region of the cloud.",
            is_required=True,
            pattern=r"[A-Za-z0-9_.-]+",
            pattern_meaning="letters, digits and _.-",
        ),
        Field(name="auth_url", description="The URL of Keystone.", is_required=True, max_length=2048),
        Field(
            name="application_credential_id",
            description="The application credential that uploads.",
            is_required=True,
            max_length=64,
        ),
        Field(
            name="application_credential_secret",
            description="Its secret.",
            is_required=True,
            is_secret=True,
            max_length=255,
        ),
        Field(
            name="visibility",
            description="For whom the image is visible.",
            allowed=("private", "shared", "community", "public"),
        ),
        Field.FILENAME,
        Field.SHA256,
    )

    def problems(self, targetdata: Mapping[str, JsonValue]) -> list[str]:
        """Check the URL."""
        is_url = re.match(r"https?://", str(targetdata.get("auth_url", "")))
        return [] if is_url or "auth_url" not in targetdata else ["auth_url is no URL"]

    def connect(self, ctx: Context) -> Any:
        """Connect with the application credential."""
        import openstack

        names = ("auth_url", "application_credential_id", "application_credential_secret")
        return openstack.connection.Connection(
            auth_type="v3applicationcredential",
            auth={name: ctx.targetdata[name] for name in names},
            region_name=ctx.region,
            interface=self.settings["interface"],
            image_api_version="2",
        )

    def translate(self, exc: Exception, subject: str) -> ClouduploaderError | None:
        """Translate what openstacksdk, and keystoneauth below it, raise."""
        import keystoneauth1.exceptions
        import openstack.exceptions

        if isinstance(exc, openstack.exceptions.HttpException):
            return http_error(exc.status_code, subject=subject, message=str(exc.details or exc))
        if isinstance(exc, keystoneauth1.exceptions.HttpError):
            return http_error(exc.http_status, subject=subject, message=str(exc.message))
        if isinstance(exc, openstack.exceptions.SDKException | keystoneauth1.exceptions.ClientException):
            return http_error(None, subject=subject, message=str(exc))
        return None

    def plan(self, ctx: UploadContext) -> Iterator[str]:
        """Look whether the name is free."""
        self._check_name(ctx)
        yield f"make the image '{ctx.targetdata['image_name']}' in {ctx.region}"

    def upload(self, ctx: UploadContext) -> UploadResult:
        """Make an image of the raw disk."""
        with ctx.phase("check image"):
            ctx.cancel.raise_if_requested()
            facts = ctx.inspect_image()
            architecture = ARCHITECTURES[ctx.architecture(facts, allowed=ARCHITECTURES)]
            self._check_name(ctx)
        with ctx.phase("upload"):
            with ctx.creating("image") as created:
                image = self._create(ctx, architecture, is_uefi=bool(facts.boots_uefi) and not facts.boots_bios)
                thing = created(image["id"])
            ctx.cancel.raise_if_requested()
            with ctx.open_stream(digest="sha512") as stream:
                _checked(ctx.client.image.put(f"/images/{thing.id}/file", data=stream, headers=BYTES))
        with ctx.phase("verify"):
            found = ctx.poll(lambda: ctx.client.image.get_image(thing.id), until="active", pending=("queued", "saving"))
            if found.hash_algo == "sha512" and found.hash_value != stream.hexdigest():
                raise PlatformReplyError(f"image {thing.id} is not what was sent")
        return UploadResult(thing.id, (thing,))

    def _create(self, ctx: UploadContext, architecture: str, *, is_uefi: bool) -> dict[str, Any]:
        document = {
            "name": ctx.targetdata["image_name"],
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": ctx.targetdata.get("visibility", "private"),
            "tags": [f"{name}={value}"[:255] for name, value in ctx.labels.items()],
            "hw_architecture": architecture,
            "hw_firmware_type": "uefi" if is_uefi else "bios",
        }
        made: dict[str, Any] = _checked(ctx.client.image.post("/images", json=document)).json()
        return made

    def remove(self, ctx: Context, thing: CloudObject) -> None:
        """Delete an image."""
        with ctx.translated(f"image {thing.id}"):
            ctx.client.image.delete_image(thing.id, ignore_missing=False)

    def find(self, ctx: Context, key: str | None) -> Iterator[FoundObject]:
        """Look for images by their tags."""
        with ctx.translated(f"region {ctx.region}"):
            for image in ctx.client.image.images(**({"tag": f"{labels.KEY}={key}"} if key else {})):
                bears = dict(tag.split("=", 1) for tag in image.tags if tag.startswith(labels.PREFIX))
                reason = "an image that can be used" if image.status == "active" else None
                if labels.is_ours(bears):
                    yield FoundObject.from_labels(CloudObject("image", image.id, ctx.region), bears, None, reason)

    def check(self, ctx: Context) -> Iterable[Finding]:
        """List one image."""
        url = str(ctx.targetdata.get("auth_url", "auth_url"))
        try:
            with ctx.translated(url):
                next(iter(ctx.client.image.images(limit=1)), None)
        except ClouduploaderError as exc:
            yield Finding(Level.FAILURE, url, exc.message, exc.hint)
        else:
            yield Finding(Level.OK, url, f"lets us in, region {ctx.region}")

    def _check_name(self, ctx: UploadContext) -> None:
        name = ctx.targetdata["image_name"]
        with ctx.translated(f"region {ctx.region}"):
            for image in ctx.client.image.images(name=name, status="active"):
                raise PlatformReplyError(f"there is an image of that name already ({image.id})", hint="Choose another.")


BYTES = {"Content-Type": "application/octet-stream"}


def _checked(response: Any) -> Any:
    import openstack.exceptions

    openstack.exceptions.raise_from_response(response)
    return response
