"""The image: what it is made with, made of its archive, read back, shared, and put in the place of older ones.

Source: Compute Engine API v1, images and globalOperations.
"""

import datetime
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clouduploader.errors import (
    ClouduploaderError,
    ForeignError,
    ImageError,
    PlatformReplyError,
    TargetDataError,
)
from clouduploader.model.disk import ImageFacts, shortage
from clouduploader.platforms.gce import fields, labels, rest, staging
from clouduploader.platforms.gce.staging import Archive
from clouduploader.plugin import CloudObject, Context, Shortfall, UploadContext
from clouduploader.plugin.answers import check_object
from clouduploader.util.frozen import frozen

IMAGE = "image"
ARCHITECTURES = ("x86_64", "arm64")
DEFAULT_DESCRIPTION = "uploaded by clouduploader"
USER_ROLE = "roles/compute.imageUser"
READY, PENDING, FAILED = "READY", "PENDING", "FAILED"
CONFIDENTIAL = ("SEV_CAPABLE", "SEV_SNP_CAPABLE", "SNP_SVSM_CAPABLE", "TDX_CAPABLE")  # need UEFI; "Confidential VM"


@frozen(kw_only=True)
class ImageSpec:
    """What the image is made with, in the words of the API.

    Attributes:
        architecture: X86_64 or ARM64.
        features: GuestOsFeature.Type.
    """

    architecture: str
    features: tuple[str, ...]


def resolve(ctx: UploadContext) -> ImageSpec:
    """Decide what the image is made with, from its facts and the target data.

    Raises:
        DataError: The image is not what the target data say, or is cut off.
    """
    facts = ctx.inspect_image()
    if facts.is_size_exact and (problem := shortage(facts.size_bytes or 0, facts.minimum_bytes)):
        _object(ctx, ImageError(f"the image {problem}"))
    architecture = ctx.architecture(facts, allowed=ARCHITECTURES)
    if facts.architectures and architecture not in facts.architectures:
        names = " and ".join(facts.architectures)
        _object(ctx, TargetDataError(f"architecture: found {architecture}, but the image's boot loader is for {names}"))
    return ImageSpec(architecture=architecture.upper(), features=_features(ctx, facts, architecture))


def _features(ctx: UploadContext, facts: ImageFacts, architecture: str) -> tuple[str, ...]:
    given = ctx.targetdata.get("guest_os_features")
    features = [str(name) for name in given] if isinstance(given, list) else list(fields.DEFAULT_FEATURES)
    is_uefi = facts.boots_uefi if architecture != "arm64" else True  # there is nothing else on Arm
    if fields.UEFI in features and is_uefi is False:
        _object(ctx, TargetDataError(f"guest_os_features have {fields.UEFI}, but the image has no EFI boot loader"))
    if fields.UEFI not in features and is_uefi:
        features.append(fields.UEFI)
    if is_uefi is None and fields.UEFI not in features:
        ctx.reporter.line(
            f"The image does not tell how it boots, so it will by BIOS; give {fields.UEFI} as a feature of the guest "
            "if it needs UEFI."
        )
    if (confidential := [name for name in features if name in CONFIDENTIAL]) and fields.UEFI not in features:
        _object(ctx, TargetDataError(f"guest_os_features have {confidential[0]}, which needs {fields.UEFI}"))
    return tuple(sorted(set(features)))


def _object(ctx: UploadContext, error: ClouduploaderError) -> None:
    """Raise an error about the image, unless that is forced."""
    if not ctx.targetdata.get("force"):
        raise type(error)(error.message, hint="Correct it, or give force if you know better.")
    ctx.reporter.line(f"Going on all the same, as force says: {error.message}.")


def image_of(ctx: Context) -> CloudObject:
    """Return the image as the journal has it."""
    return CloudObject(IMAGE, str(ctx.targetdata["image_name"]))


def lookup(ctx: Context, name: str) -> dict[str, Any] | None:
    """Return an image as the API describes it; None if there is none of that name."""
    return rest.lookup(ctx, ctx.client.compute("images", name), subject=f"image {name}")


def listed(ctx: Context, key: str | None) -> list[dict[str, Any]]:
    """List the images of one upload or of all, by their labels."""
    chosen = f"labels.{labels.KEY}={key}" if key else f"labels.{labels.KEY}:*"
    url, subject = ctx.client.compute("images"), f"project {ctx.client.project}"
    return rest.pages(ctx, url, subject=subject, query={"filter": chosen})


def is_failed(found: Mapping[str, Any], key: str) -> bool:
    """Tell whether an image is one of this upload that never became one."""
    return found.get("status") == FAILED and found.get("labels", {}).get(labels.KEY) == key


def check_same(ctx: UploadContext, spec: ImageSpec, found: Mapping[str, Any]) -> None:
    """Check that an image which has the name already is as asked for, and was made of the same archive.

    Raises:
        PlatformReplyError: It is not, or that is not known.
    """
    name, hint = image_of(ctx).id, "Choose another name."
    if differing := _differences(found, _wanted(ctx, spec)):
        raise PlatformReplyError(f"there is an image {name} already, with another {' and '.join(differing)}", hint=hint)
    if found.get("labels", {}).get(labels.DIGEST) != staging.digest(ctx):
        raise PlatformReplyError(f"there is an image {name} already, and it was not made of the same disk", hint=hint)


def await_ready(ctx: UploadContext, name: str) -> dict[str, Any]:
    """Wait until an image can be used.

    Raises:
        PlatformReplyError: It won't.
    """
    subject = f"image {name}"
    found: dict[str, Any] = ctx.poll(
        lambda: rest.document(rest.send(ctx, "GET", ctx.client.compute("images", name), subject=subject), subject),
        until=READY,
        pending=(PENDING,),
        state=lambda image: str(image.get("status")),
    )
    return found


def create(ctx: UploadContext, spec: ImageSpec, archive: Archive) -> CloudObject:
    """Make the image of its archive, and read it back. Blocks for minutes.

    Raises:
        PlatformReplyError: Google can't make it, or made another.
        ClouduploaderError: See `rest.send`.
    """
    document = _document(ctx, spec, archive)
    name = document["name"]
    token = str(uuid.uuid4())  # with it the same request once more is answered with the same operation
    with ctx.creating(IMAGE, token=token) as created:
        operation = rest.call(
            ctx,
            "POST",
            ctx.client.compute("images"),
            subject=f"image {name}",
            query={"requestId": token},
            document=document,
        )
        image = created(name)
    await_operation(ctx, operation, subject=f"image {name}")
    _check(await_ready(ctx, name), document)
    return image


def _document(ctx: UploadContext, spec: ImageSpec, archive: Archive) -> dict[str, Any]:
    users = ctx.targetdata.get("labels")
    return {
        **_wanted(ctx, spec),
        "name": image_of(ctx).id,
        "description": str(ctx.targetdata.get("description") or DEFAULT_DESCRIPTION),
        "labels": {
            **(users if isinstance(users, dict) else {}),
            **labels.of_upload(ctx.labels),
            labels.DIGEST: archive.digest,
        },
        "rawDisk": {"source": staging.source_url(archive.thing), "containerType": "TAR"},
    }


def _wanted(ctx: UploadContext, spec: ImageSpec) -> dict[str, Any]:
    """Return what an image must be, in order to do in the place of the one that is asked for."""
    location = ctx.targetdata.get("storage_location")
    wanted = {
        "family": ctx.targetdata.get("family"),
        "architecture": spec.architecture,
        "guestOsFeatures": [{"type": name} for name in spec.features],
        "storageLocations": [location] if location else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _check(found: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Compare the image with what was asked for.

    Raises:
        PlatformReplyError: It is another.
    """
    if differing := _differences(found, document):
        raise PlatformReplyError(f"image {document['name']} was made with another {' and '.join(differing)}")


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List in what an image is another, by the names of the API."""
    names = ("architecture", "description", "family", "labels", "storageLocations")
    differing = [name for name in names if name in wanted and found.get(name) != wanted[name]]
    return differing + (["guestOsFeatures"] if _types(found) != _types(wanted) else [])


def _types(image: Mapping[str, Any]) -> set[str]:
    given = image.get("guestOsFeatures", [])
    return {str(check_object(one, "guestOsFeatures", needed=("type",))["type"]) for one in given}


def await_operation(ctx: Context, operation: Mapping[str, Any], *, subject: str) -> None:
    """Wait for an operation.

    Raises:
        PlatformReplyError: It failed.
    """
    if not operation.get("name"):
        raise PlatformReplyError(f"{subject}: Google began something, but did not say what")
    url = ctx.client.compute("operations", operation["name"])
    done = ctx.poll(
        lambda: rest.document(rest.send(ctx, "GET", url, subject=f"operation on {subject}"), subject),
        until="DONE",
        pending=("PENDING", "RUNNING"),
        state=lambda found: str(found.get("status")),
    )
    for given in done.get("error", {}).get("errors", []):
        error = check_object(given, subject)
        raise PlatformReplyError(f"{subject}: {str(error.get('message', '')).rstrip('.')} ({error.get('code')})")


def remove(ctx: Context, name: str) -> None:
    """Delete an image, and wait until it is gone; that of another upload, which has the name by now, stays.

    Raises:
        AbsentError: There is none.
        ForeignError: It is another upload's.
        TransientError: It is being made.
    """
    url, subject = ctx.client.compute("images", name), f"image {name}"
    found = rest.document(rest.send(ctx, "GET", url, subject=subject), subject)
    if ctx.key and found.get("labels", {}).get(labels.KEY) != ctx.key:
        raise ForeignError(f"{subject} is another upload's")
    operation = rest.document(rest.send(ctx, "DELETE", url, subject=subject), subject)
    await_operation(ctx, operation, subject=subject)


def plan_distribution(ctx: UploadContext) -> Iterator[str]:
    """Say what `distribute` would do."""
    members, wanted = ctx.targetdata.get("share"), ctx.targetdata.get("deprecate_older")
    if isinstance(members, list) and members:
        yield f"let {', '.join(map(str, members))} use it"
    if wanted:
        yield f"make the older images of family {ctx.targetdata['family']} {str(wanted).lower()}"


def distribute(ctx: UploadContext, name: str) -> tuple[Shortfall, ...]:
    """Let others use the image, and put it in the place of the older ones of its family.

    Returns:
        What failed of it.
    """
    members = ctx.targetdata.get("share")
    wanted = ctx.targetdata.get("deprecate_older")
    shortfalls = []
    try:
        if isinstance(members, list) and members:
            _share(ctx, name, [str(member) for member in members])
    except ClouduploaderError as exc:
        ctx.cancel.raise_if_requested()
        shortfalls.append(Shortfall(f"sharing {name}", exc.message))
    try:
        if wanted:
            _deprecate_older(ctx, name, str(wanted))
    except ClouduploaderError as exc:
        ctx.cancel.raise_if_requested()
        shortfalls.append(Shortfall(f"older images of {ctx.targetdata['family']}", exc.message))
    return tuple(shortfalls)


def _share(ctx: UploadContext, name: str, members: Sequence[str]) -> None:
    """Add members to those who can use an image; what others change meanwhile is not lost, by the policy's etag."""
    url, subject = ctx.client.compute("images", name, "getIamPolicy"), f"image {name}"
    policy = rest.call(ctx, "GET", url, subject=subject)
    parts: Mapping[str, type] = {"role": str, "members": list}
    bindings = [check_object(one, subject, members=parts, needed=("role",)) for one in policy.get("bindings", [])]
    users = next((one for one in bindings if one["role"] == USER_ROLE and "condition" not in one), None)
    if users is None:
        bindings.append(users := {"role": USER_ROLE, "members": []})
    missing = [member for member in members if member not in users.get("members", [])]
    if missing:
        users["members"] = [*users.get("members", []), *missing]
        url = ctx.client.compute("images", name, "setIamPolicy")
        rest.call(ctx, "POST", url, subject=subject, document={"policy": {**policy, "bindings": bindings}})
        ctx.reporter.line(f"Shared with {', '.join(missing)}.")


def _deprecate_older(ctx: UploadContext, name: str, state: str) -> None:
    """Deprecate the images of the family that are older than this one, and not that far yet."""
    family = ctx.targetdata["family"]
    found = rest.pages(
        ctx, ctx.client.compute("images"), subject=f"family {family}", query={"filter": f'family = "{family}"'}
    )
    new = next((image for image in found if image["name"] == name), None)
    if new is None:
        raise PlatformReplyError(f"family {family} has no image {name}")
    for image in found:
        if _created(image) < _created(new) and image.get("deprecated", {}).get("state") not in (
            state,
            *fields.DEPRECATIONS[1:],
            "DELETED",
        ):
            operation = rest.call(
                ctx,
                "POST",
                ctx.client.compute("images", image["name"], "deprecate"),
                subject=f"image {image['name']}",
                document={"state": state, "replacement": new["selfLink"]},
            )
            await_operation(ctx, operation, subject=f"image {image['name']}")
            ctx.reporter.line(f"Image {image['name']} is {state.lower()} now.")


def _created(image: Mapping[str, Any]) -> datetime.datetime:
    """Return when an image was made; Google tells it in its own zone, with the hour that is saved in summer."""
    return datetime.datetime.fromisoformat(image["creationTimestamp"])
