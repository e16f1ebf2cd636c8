"""One upload: check, stage, fill, make the image, remove the stage."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import (
    DeniedError,
    ImageError,
    NotFoundError,
    PlatformReplyError,
    TargetDataError,
)
from clouduploader.model.disk import Compression, ImageFacts, ZeroBlocks, shortage
from clouduploader.platforms.azure import fields, filling, images, staging
from clouduploader.platforms.azure.arm import ResourceManager
from clouduploader.platforms.azure.filling import PageFiller
from clouduploader.platforms.azure.images import ImageSpec, Product
from clouduploader.platforms.azure.pages import PAGE_BYTES, PageFile
from clouduploader.platforms.azure.settings import AzureSettings
from clouduploader.platforms.azure.staging import BlobStage, DiskStage, Site, Stage
from clouduploader.plugin import CloudObject, Context, UploadContext, UploadResult, labels
from clouduploader.plugin.cleanup import remove_each
from clouduploader.plugin.transfer import ConfirmedChunks, ContentChangedError, content, read_content

MAX_RESTARTS = 2  # pages given up because the image was another than thought; then it keeps changing
SIZED = (Compression.XZ, Compression.ZSTD)
"""Packings that tell the size of what is in them, but for what may be the footer of a VHD."""


class StageDeniedError(DeniedError):
    """We may not make what the pages would be sent to."""


class AzureUpload:
    """One upload. Used once.

    Args:
        ctx: The upload.
        settings: See AzureSettings.
    """

    def __init__(self, ctx: UploadContext, settings: AzureSettings) -> None:
        self._ctx = ctx
        self._settings = settings
        self._method = str(ctx.targetdata.get("method", settings.method))
        self._account: Mapping[str, Any] = {}

    def plan(self) -> Sequence[str]:
        """Check what can be checked without a change; see `Platform.plan`."""
        spec = self._spec()
        site = self._site()
        product = images.product(self._ctx, site, spec)
        if (existing := self._existing(product)) is not None:
            steps = [f"leave {product.thing.id} as it is, for it has the same content"]
            if regions := product.lacking_regions(existing):
                steps.append(f"replicate it to {', '.join(regions)}")
            return steps
        product.check_place()
        method = "a page blob" if self._is_by_blob else "a managed disk"
        size_bytes = staging.file_bytes(filling.disk_bytes(spec.size_bytes))
        return (
            f"send a fixed VHD of {size_bytes} bytes to {method} in {site.location}",
            f"make the {product.thing.kind} {product.thing.id} of it: {spec.generation}, {spec.architecture}",
            f"remove {method}",
        )

    def run(self) -> UploadResult:
        """Make the image; see `Platform.upload`."""
        with self._ctx.phase("check image"):
            self._ctx.cancel.raise_if_requested()
            spec = self._spec()
            site = self._site()
            product = images.product(self._ctx, site, spec)
            existing = self._existing(product)
            if existing is None:
                product.check_place()
        if existing is not None:
            self._ctx.reporter.line(f"{product.thing.id} is there already, with the same content.")
            self._remove_stages()
            if regions := product.lacking_regions(existing):
                with self._ctx.phase("replicate"):
                    self._ctx.reporter.line(f"Replicating it to {', '.join(regions)} too.")
                    product.replicate(existing, regions)
            objects = (product.thing, *self._containers())
            return UploadResult(product.thing.id, objects, product.compare(existing), is_already_there=True)
        stage, staged, tags = self._staged(site, spec)
        with self._ctx.phase("make image"):
            self._ctx.cancel.raise_if_requested()
            shortfalls = product.make(stage, staged.id, {**site.tags, **tags})
        with self._ctx.phase("clean up"):
            self._remove_stages()
        return UploadResult(product.thing.id, (product.thing, *self._containers()), shortfalls)

    @property
    def _is_by_blob(self) -> bool:
        return self._method == "blob" or (self._method == "auto" and "storage_account" in self._ctx.targetdata)

    def _spec(self, *, is_measured: bool = False) -> ImageSpec:
        """Tell what the image is to be, by the target data and by what is in it."""
        ctx = self._ctx
        facts = ctx.inspect_image()
        architecture = ctx.architecture(facts, allowed=tuple(fields.ARCHITECTURES))
        size_bytes = facts.size_bytes
        is_known = facts.is_size_exact or ctx.request.image.compression in SIZED
        if size_bytes is None or is_measured or not is_known:
            size_bytes = self._measured_bytes()
        if lack := shortage(size_bytes, facts.minimum_bytes):
            raise ImageError(f"{ctx.request.image.filename} {lack}")
        filling.disk_bytes(size_bytes)  # refuses what is too large
        return ImageSpec(architecture, self._generation(facts, architecture), size_bytes)

    def _measured_bytes(self) -> int:
        """Read the image to its end, for how long the disk is. A footer that it has is not counted."""
        buffer = bytearray(PAGE_BYTES)
        with self._ctx.open_blocks(PAGE_BYTES, ZeroBlocks.SKIP) as source:
            while source.next_into(buffer):
                self._ctx.cancel.raise_if_requested()
            return source.stats().size_bytes

    def _generation(self, facts: ImageFacts, architecture: str) -> str:
        wanted = self._ctx.targetdata.get("hyper_v_generation")
        if wanted:
            if wanted == "V2" and facts.boots_uefi is False:
                self._ctx.reporter.line("Warning: the image does not boot by UEFI, as machines of generation 2 do.")
            return str(wanted)
        if facts.boots_uefi or architecture == "arm64":
            return "V2"
        if facts.boots_uefi is None:
            self._ctx.reporter.line("The image does not tell how it boots; taking generation V1, which boots by BIOS.")
        return "V1"

    def _site(self) -> Site:
        group = resource_group(self._ctx)
        wanted = self._ctx.targetdata.get("location")
        where = None
        if self._is_by_blob:  # an image is where the blob is that it is made of
            self._account = staging.storage_account(self._ctx, str(group["id"]))
            where = self._account.get("location")
        if wanted and where and wanted != where:
            raise TargetDataError(
                f"location is {wanted}, but storage account {self._ctx.targetdata['storage_account']} is in {where}",
                hint="Give a storage account in that location, or method disk.",
            )
        return Site(str(group["id"]), str(wanted or where or group["location"]), _tags(self._ctx))

    def _existing(self, product: Product) -> Mapping[str, Any] | None:
        """Return the image that is there already, made of the same disk; None if there is none.

        Raises:
            PlatformReplyError: There is another one in its place.
        """
        hint = "It stays. Choose another name, or remove it."
        with self._ctx.translated("the image"):
            found = product.existing()
        if found is None:
            return None
        bears = found.get("tags") or {}
        is_ours = bears.get(labels.KEY) == self._ctx.request.journal.key
        is_ready = found.get("properties", {}).get("provisioningState") == "Succeeded"
        if is_ours and not is_ready:
            self._ctx.remove([product.thing])
            return None
        if not is_ready or bears.get(images.CONTENT) != read_content(self._ctx, PAGE_BYTES):
            raise PlatformReplyError(
                f"there is another {product.thing.kind} of that name already: {product.thing.id}", hint=hint
            )
        try:
            product.compare(found)
        except PlatformReplyError as exc:
            raise PlatformReplyError(exc.message, hint=hint) from None
        return found

    def _staged(self, site: Site, spec: ImageSpec) -> tuple[Stage, CloudObject, Mapping[str, str]]:
        """Send the image where the target data and our rights allow; return where that is, and the tags known now."""
        if self._is_by_blob:
            try:
                return self._sent(BlobStage(self._ctx, site, self._account), spec)
            except StageDeniedError as exc:
                if self._method != "auto":
                    raise
                self._ctx.reporter.line(
                    f"A page blob can't be used: {exc.message}. Going on with a managed disk; what lacks is the role "
                    "Storage Blob Data Contributor on the container."
                )
                self._ctx.remove(self._ctx.resources.to_undo())
        return self._sent(DiskStage(self._ctx, site, spec.disk_properties()), spec)

    def _sent(self, stage: Stage, spec: ImageSpec) -> tuple[Stage, CloudObject, Mapping[str, str]]:
        """Send the image to a stage; anew, if the image turns out to be another one than was thought."""
        for number in range(MAX_RESTARTS + 1):
            try:
                return (stage, *self._filled(stage, spec, is_fresh=number > 0))
            except (ContentChangedError, filling.OtherSizeError) as exc:
                if number == MAX_RESTARTS:
                    raise ImageError(f"the image changes while it is read: {exc.message}") from exc
                self._ctx.reporter.line(f"Starting anew: {exc.message}.")
                self._remove_stages()
                if isinstance(exc, filling.OtherSizeError):
                    spec = self._spec(is_measured=True)
        raise AssertionError("the last try raises")

    def _filled(self, stage: Stage, spec: ImageSpec, *, is_fresh: bool) -> tuple[CloudObject, Mapping[str, str]]:
        """Send the image to the stage; return that, and the tags that are known now."""
        disk_bytes = filling.disk_bytes(spec.size_bytes)
        with contextlib.ExitStack() as stack:
            with self._ctx.phase("start upload"):
                staged, file, is_earlier = self._opened(stage, staging.file_bytes(disk_bytes), is_fresh=is_fresh)
                path = self._ctx.request.journal.directory / f"{staged.id.rpartition('/')[2]}.confirmed"
                confirmed = stack.enter_context(ConfirmedChunks(path, PAGE_BYTES))
                filler = PageFiller(self._ctx, self._settings, file, confirmed, disk_bytes)
                if is_earlier:
                    self._ctx.reporter.line(
                        f"Going on with a {staged.kind}, which has {confirmed.count} pages already."
                    )
                    filler.check_kept()
            with self._ctx.phase("upload"):
                stats = filler.fill(spec.size_bytes)
                if lack := shortage(stats.size_bytes, self._ctx.inspect_image().minimum_bytes):
                    raise ImageError(f"{self._ctx.request.image.filename} {lack}")
            if self._ctx.targetdata.get("verify"):
                with self._ctx.phase("verify"):
                    filler.verify()
            with self._ctx.phase("end upload"):
                stage.close(staged.id)
            sha256 = stats.file_sha256 or str(self._ctx.targetdata.get("sha256") or "").lower()
            tags = {images.CONTENT: content(confirmed, stats.size_bytes), images.SHA256: sha256}
        return staged, {name: value for name, value in tags.items() if value}

    def _opened(self, stage: Stage, size_bytes: int, *, is_fresh: bool) -> tuple[CloudObject, PageFile, bool]:
        """Open the pages of an earlier try, or new ones; tell which."""
        for thing in [] if is_fresh else staging.of_earlier_tries(self._ctx, stage.kind):
            if file := stage.open(thing.id, size_bytes):
                self._ctx.resources.adopt(thing)
                return thing, file, True
        self._remove_stages()
        thing = CloudObject(stage.kind, stage.new_id())
        try:
            stage.create(thing.id, size_bytes)
        except DeniedError as exc:
            raise StageDeniedError(exc.message, hint=exc.hint) from exc
        if file := stage.open(thing.id, size_bytes):
            return thing, file, False
        raise PlatformReplyError(f"the {thing.kind} was made, but can't be written")

    def _containers(self) -> list[CloudObject]:
        """List the containers that this try or an earlier one has made; they stay, as OBS's do."""
        return [thing for thing in self._ctx.resources.of_earlier_tries() if thing.kind == staging.CONTAINER]

    def _remove_stages(self) -> None:
        """Remove what this try and earlier ones sent pages to."""
        for kind in (staging.BLOB, staging.DISK):
            things = staging.of_earlier_tries(self._ctx, kind)
            report = remove_each(self._ctx, things, functools.partial(remove, self._ctx), order=())
            for thing in (*report.removed, *report.absent):
                self._ctx.resources.keep(thing)
            if report.left:
                self._ctx.cancel.raise_if_requested()


def remove(ctx: Context, thing: CloudObject) -> None:
    """Remove what an upload made; see `Platform.remove`."""
    if thing.kind in (staging.BLOB, staging.CONTAINER):
        staging.remove_blob(ctx, thing)
    elif thing.kind == staging.DISK:
        staging.remove_disk(ctx, thing)
    elif thing.kind in (images.IMAGE, images.VERSION):
        images.remove(ctx, thing)
    else:
        raise NotFoundError(f"uploads to Azure make no {thing.kind}")


def subscription_id(ctx: Context) -> str:
    """Return the subscription: the target data's, or the only one that is shown to us.

    Raises:
        TargetDataError: There are several.
        DeniedError: There is none.
    """
    if given := ctx.targetdata.get("subscription_id"):
        return str(given)
    found = [
        str(each["subscriptionId"])
        for each in ResourceManager(ctx).list("/subscriptions", subject="the subscriptions", needed=("subscriptionId",))
        if each.get("state", "Enabled") in ("Enabled", "Warned", "PastDue")
    ]
    if not found:
        raise DeniedError(
            "no subscription is shown to the application",
            hint="It needs a role in the resource group; docs/how-to/azure.rst tells which.",
        )
    if len(found) > 1:
        raise TargetDataError(
            f"the application sees {len(found)} subscriptions",
            hint=f"Give subscription_id: {', '.join(sorted(found))}.",
        )
    return found[0]


def resource_group(ctx: Context) -> Mapping[str, Any]:
    """Return the target data's resource group: its id and location.

    Raises:
        AbsentError: There is none of that name.
    """
    name = ctx.targetdata["resource_group"]
    path = f"/subscriptions/{subscription_id(ctx)}/resourceGroups/{name}"
    return ResourceManager(ctx).get(path, subject=f"resource group {name}", needed=("id", "location"))


def _tags(ctx: UploadContext) -> dict[str, str]:
    users = ctx.targetdata.get("tags")
    ours = {name: value[: fields.MAX_TAG_VALUE_LENGTH] for name, value in ctx.labels.items()}
    return {**{name: str(value) for name, value in (users if isinstance(users, dict) else {}).items()}, **ours}
