"""Look whether everything is in place for a first upload to Azure."""

from collections.abc import Iterator, Sequence
from typing import Any

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.azure import rights, upload
from clouduploader.platforms.azure.answers import METADATA_VERSION, patiently
from clouduploader.platforms.azure.arm import ResourceManager
from clouduploader.platforms.azure.settings import AzureSettings
from clouduploader.plugin import Context, Finding, Level

ROLE_HINT = "`clouduploader account show` prints the role that an upload needs."


def run(ctx: Context, settings: AzureSettings) -> Iterator[Finding]:
    """Look whether the cloud answers, and with target data, whether they let us in; see `Platform.check`."""
    root = settings.cloud
    try:
        root = ctx.client.cloud.resource_manager
        query = {"api-version": METADATA_VERSION}
        url = f"{root}/metadata/endpoints"
        patiently(ctx, lambda: ctx.client.call("GET", url, scope=None, subject=root, parameters=query), subject=root)
    except ClouduploaderError as exc:
        yield _failure(f"cloud {root}", exc)
        return
    yield Finding(Level.OK, f"cloud {root}", "answers")
    if ctx.targetdata:
        yield from _account(ctx, settings)


def _account(ctx: Context, settings: AzureSettings) -> Iterator[Finding]:
    name = str(ctx.targetdata.get("resource_group", ""))
    subject = f"resource group {name}"
    try:
        group = str(upload.resource_group(ctx)["id"])
        given = permissions(ctx, group, subject)
    except ClouduploaderError as exc:
        yield _failure(subject, exc)
        return
    yield Finding(Level.OK, subject, "is shown to the application")
    extras = ["gallery"] if "gallery" in ctx.targetdata else []
    is_by_blob = ctx.targetdata.get("method", settings.method) != "disk" and "storage_account" in ctx.targetdata
    yield from compared(subject, given, [*extras, *(["blob"] if is_by_blob else [])])


def permissions(ctx: Context, group: str, subject: str) -> Sequence[dict[str, Any]]:
    """Return what the application may do in a resource group, by its id."""
    path = f"{group}/providers/Microsoft.Authorization/permissions"
    return list(ResourceManager(ctx).list(path, subject=subject))


def compared(subject: str, given: Sequence[dict[str, Any]], extras: Sequence[str]) -> Iterator[Finding]:
    """Compare what an application may do with what it needs."""
    lacking = rights.missing(rights.chosen(extras), given)
    if lacking:
        yield Finding(Level.FAILURE, subject, f"the application may not do {', '.join(lacking)}", ROLE_HINT)
    else:
        yield Finding(Level.OK, subject, "the application may do all that an upload needs")
    if wide := rights.too_much(given):
        yield Finding(
            Level.WARNING, subject, f"the application may do what no upload needs, such as {', '.join(wide)}", ROLE_HINT
        )


def _failure(subject: str, exc: ClouduploaderError) -> Finding:
    return Finding(Level.FAILURE, subject, exc.message, exc.hint)
