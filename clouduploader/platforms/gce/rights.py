"""Which rights an upload needs in Google's cloud, which the credentials have, and which are too many.

Asking needs no right itself: Cloud Storage, buckets.testIamPermissions; Resource Manager, projects.testIamPermissions.
"""

from collections.abc import Collection, Iterator, Mapping

from clouduploader.errors import ClouduploaderError, DeniedError
from clouduploader.platforms.gce import rest
from clouduploader.plugin import Context, Finding, Level, UploadContext

ON_BUCKET = ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list")
ON_PROJECT = (
    "compute.globalOperations.get",
    "compute.images.create",
    "compute.images.delete",
    "compute.images.get",
    "compute.images.list",
    "compute.images.setLabels",
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "deprecate": ("compute.images.deprecate",),
    "share": ("compute.images.getIamPolicy", "compute.images.setIamPolicy"),
}
"""What else is needed on the project, by what for."""
TOO_WIDE_ON_BUCKET = ("storage.buckets.delete", "storage.buckets.setIamPolicy")
TOO_WIDE_ON_PROJECT = (
    "compute.disks.create",
    "compute.instances.create",
    "compute.instances.setMetadata",
    "iam.serviceAccountKeys.create",
    "iam.serviceAccounts.actAs",
    "resourcemanager.projects.setIamPolicy",
    "storage.buckets.create",
)
"""Some of what no upload needs, and roles such as Editor, Compute Admin or Storage Admin have."""


def on_bucket(ctx: Context, permissions: Collection[str]) -> set[str]:
    """Return which permissions the credentials have on the bucket.

    Raises:
        AbsentError: There is no such bucket.
    """
    bucket = ctx.targetdata["bucket"]
    url = ctx.client.storage(f"storage/v1/b/{bucket}/iam/testPermissions")
    answer = rest.call(ctx, "GET", url, subject=f"bucket {bucket}", query={"permissions": sorted(permissions)})
    return set(answer.get("permissions", []))


def on_project(ctx: Context, permissions: Collection[str]) -> set[str]:
    """Return which permissions the credentials have on the project."""
    url, subject = ctx.client.resource_manager("testIamPermissions"), f"project {ctx.client.project}"
    answer = rest.call(ctx, "POST", url, subject=subject, document={"permissions": sorted(permissions)})
    return set(answer.get("permissions", []))


def wanted(ctx: Context) -> tuple[str, ...]:
    """Return what an upload with these target data needs on the project."""
    uses = {"deprecate": "deprecate_older", "share": "share"}
    return (*ON_PROJECT, *(one for extra, name in uses.items() if ctx.targetdata.get(name) for one in EXTRAS[extra]))


def require(ctx: UploadContext) -> None:
    """Check that the credentials have all that this upload needs.

    Raises:
        DeniedError: They lack something.
        ClouduploaderError: There is no such bucket, or it can't be told.
    """
    for subject, missing in _missing(ctx):
        if missing:
            raise DeniedError(f"{subject}: the credentials lack {', '.join(missing)}", hint=HINT)


HINT = "`clouduploader account show` has a role with all that is needed."


def _missing(ctx: Context) -> Iterator[tuple[str, list[str]]]:
    yield f"bucket {ctx.targetdata['bucket']}", sorted({*ON_BUCKET} - on_bucket(ctx, ON_BUCKET))
    yield f"project {ctx.client.project}", sorted({*wanted(ctx)} - on_project(ctx, wanted(ctx)))


def check(ctx: Context) -> Iterator[Finding]:
    """Look which of the rights are there, of what the target data name; never raises for what it finds."""
    if not ctx.targetdata.get("bucket"):
        yield Finding(Level.OK, "Google", "no bucket is named, so no rights were tried")
        return
    try:
        yield from compared(ctx)
    except ClouduploaderError as exc:
        yield Finding(Level.FAILURE, "Google", exc.message, exc.hint)


def compared(ctx: Context) -> Iterator[Finding]:
    """Compare the rights with what an upload needs, and use one where all are there: an API may be disabled.

    Raises:
        ClouduploaderError: They can't be told, or are of no use.
    """
    is_whole = True
    for subject, missing in _missing(ctx):
        is_whole &= not missing
        if missing:
            yield Finding(Level.FAILURE, subject, f"the credentials lack {', '.join(missing)}", HINT)
        else:
            yield Finding(Level.OK, subject, "the credentials have all rights that an upload needs")
    if is_whole:
        rest.lookup(ctx, ctx.client.compute("images", "clouduploader"), subject=f"project {ctx.client.project}")


def too_wide(ctx: Context) -> Iterator[Finding]:
    """Name rights that no upload needs."""
    found = {
        f"bucket {ctx.targetdata['bucket']}": on_bucket(ctx, TOO_WIDE_ON_BUCKET),
        f"project {ctx.client.project}": on_project(ctx, TOO_WIDE_ON_PROJECT),
    }
    for subject, names in found.items():
        if names:
            yield Finding(
                Level.WARNING,
                subject,
                f"the account may do more than uploads need: {', '.join(sorted(names))}",
                HINT,
            )
