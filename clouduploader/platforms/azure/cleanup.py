"""What uploads left, or made, by the labels that it bears."""

import datetime
import email.utils
from collections.abc import Iterator, Mapping
from typing import Any

from clouduploader.errors import AbsentError, DeniedError
from clouduploader.platforms.azure import images, staging, upload
from clouduploader.platforms.azure.arm import ResourceManager
from clouduploader.plugin import CloudObject, Context, FoundObject, ObjectState, labels

KEPT = "an image that can be used"
COLLECTIONS = {images.IMAGE: "images", staging.DISK: "disks"}


def find(ctx: Context, key: str | None) -> Iterator[FoundObject]:
    """Look for images, disks and blobs of uploads; see `Platform.find`.

    Galleries and containers are looked into as far as the target data name them; all resource groups that are shown
    where they name none.
    """
    seen = set()  # a storage account and a gallery need not be in the group by which they are found
    with ctx.translated("Azure"):
        for group in _groups(ctx):
            for found in (*_resources(ctx, group), *_blobs(ctx, group)):
                if found.key and key in (None, found.key) and found.object not in seen:
                    seen.add(found.object)
                    yield found


def _groups(ctx: Context) -> Iterator[str]:
    """Give the ids of the resource groups to look through."""
    if ctx.targetdata.get("resource_group"):
        yield str(upload.resource_group(ctx)["id"])
        return
    path = f"/subscriptions/{upload.subscription_id(ctx)}/resourceGroups"
    for group in ResourceManager(ctx).list(path, subject="the resource groups"):
        yield str(group["id"])


def _resources(ctx: Context, group: str) -> Iterator[FoundObject]:
    manager = ResourceManager(ctx)
    paths = {kind: f"{group}/providers/Microsoft.Compute/{name}" for kind, name in COLLECTIONS.items()}
    if "gallery" in ctx.targetdata and "gallery_image" in ctx.targetdata:
        paths[images.VERSION] = f"{images.definition_id(ctx.targetdata, group)}/versions"
    for kind, path in paths.items():
        try:
            for resource in manager.list(path, subject=f"the {kind}s", needed=("id",)):
                yield _found(CloudObject(kind, str(resource["id"])), resource)
        except AbsentError:
            continue


def _found(thing: CloudObject, resource: Mapping[str, Any]) -> FoundObject:
    properties = resource.get("properties", {})
    bears = resource.get("tags") or {}
    is_image = thing.kind != staging.DISK
    is_ready = is_image and properties.get("provisioningState") == "Succeeded"
    created = _moment(properties.get("timeCreated") or properties.get("publishingProfile", {}).get("publishedDate"))
    state = ObjectState.READY if is_ready else ObjectState.PARTIAL
    return FoundObject.from_labels(thing, bears, created, KEPT if is_ready else None, state)


def _blobs(ctx: Context, group: str) -> Iterator[FoundObject]:
    if "storage_account" not in ctx.targetdata or "container" not in ctx.targetdata:
        return
    try:
        url = staging.container_url(staging.storage_account(ctx, group), ctx.targetdata)
        for address, metadata, made in staging.blobs(ctx, url):
            created = email.utils.parsedate_to_datetime(made) if made else None
            bears = {
                labels.KEY: metadata.get(staging.METADATA_KEY, ""),
                labels.JOB: metadata.get(staging.METADATA_JOB, ""),
            }
            yield FoundObject.from_labels(CloudObject(staging.BLOB, address), bears, created, None)
    except AbsentError:
        return
    except DeniedError as exc:  # then no upload could make one either
        ctx.reporter.detail(f"Blobs are not looked for: {exc.message}")


def _moment(text: object) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
