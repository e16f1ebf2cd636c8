"""Upload disk images to a depot."""

from clouduploader.errors import ClouduploaderError, ConfigError, PlatformReplyError, http_error
from clouduploader.plugin import CloudObject, Field, Finding, FoundObject, Level, Platform, UploadResult, labels


class DepotPlatform(Platform):
    """Images in a depot."""

    description = "Makes an image in a depot; the result is its id."
    settings_defaults = {"url": ""}
    fields = (
        Field(
            name="image_name", description="The name of the image.", is_required=True, max_length=80, option="--name"
        ),
        Field(name="token", description="The token of your account.", is_required=True, is_secret=True),
        Field.FILENAME,
    )

    def connect(self, ctx):
        """Make the client of the SDK."""
        from depot_sdk import Depot

        if not self.settings["url"]:
            raise ConfigError("the setting url in [depot] is missing", hint="It says where the depot is.")
        return Depot(self.settings["url"], ctx.targetdata.get("token", ""))

    def translate(self, exc, subject):
        """Translate what the SDK raises."""
        from depot_sdk import DepotError

        if isinstance(exc, DepotError):
            return http_error(exc.status, subject=subject, message=str(exc))
        return None

    def upload(self, ctx):
        """Make an image of the raw disk."""
        with ctx.phase("check"):
            self._check_name(ctx)
        with ctx.phase("upload"):
            with ctx.creating("image") as created:
                image_id = ctx.client.create(ctx.targetdata["image_name"], dict(ctx.labels))
                image = created(image_id)
            with ctx.open_stream(digest="sha256") as stream:
                ctx.client.send(image.id, stream)
        with ctx.phase("verify"):
            found = ctx.poll(
                lambda: ctx.client.get(image.id),
                state=lambda found: found["state"],
                until="ready",
                pending=["checking"],
            )
            if found["sha256"] != stream.hexdigest():
                raise PlatformReplyError(f"{image.id} is not what was sent")
        return UploadResult(image.id, (image,))

    def _check_name(self, ctx):
        name = ctx.targetdata["image_name"]
        if name in [image["name"] for image in ctx.client.list()]:
            raise PlatformReplyError(f"there is an image called {name} already", hint="Choose another name.")

    def remove(self, ctx, thing):
        """Delete an image."""
        with ctx.translated(thing.id):
            ctx.client.delete(thing.id)

    def plan(self, ctx):
        """Look whether the name is free."""
        with ctx.translated("the depot"):
            self._check_name(ctx)
        yield f"make the image {ctx.targetdata['image_name']} in {self.settings['url']}"

    def find(self, ctx, key):
        """Look for images by the labels that `upload` puts on them."""
        with ctx.translated("the depot"):
            for image in ctx.client.list():
                bears = image["labels"]
                if labels.is_ours(bears) and key in (None, bears[labels.KEY]):
                    reason = "it can be used" if image["state"] == "ready" else None
                    yield FoundObject.from_labels(CloudObject("image", image["id"]), bears, None, reason)

    def check(self, ctx):
        """Look whether the depot lets us in."""
        try:
            with ctx.translated("the depot"):
                count = len(ctx.client.list())
        except ClouduploaderError as exc:
            yield Finding(Level.FAILURE, "[depot]", exc.message, exc.hint)
        else:
            yield Finding(Level.OK, self.settings["url"], f"lets us in, and has {count} images")
