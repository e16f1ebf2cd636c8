"""One upload: an image in the region of the target data, and one in each further region, all of the same content.

An image is made with an id of ours, so that a lost answer makes no second one. A PUT can't go on where it broke: the
image is removed then, and another is made. The content is compared by the digest that Glance makes of what it stores.
"""

import functools
import hashlib
import math
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from clouduploader.errors import (
    AbsentError,
    ClouduploaderError,
    PlatformReplyError,
    StoppedError,
    TransientError,
    UnavailableError,
)
from clouduploader.platforms.openstack import fields
from clouduploader.platforms.openstack.cloud import Cloud
from clouduploader.platforms.openstack.glance import Body, Document, Images
from clouduploader.plugin import CloudObject, Shortfall, UploadContext, UploadResult, labels, retry

T = TypeVar("T")

KIND = "image"
TRIES = 8  # of a transfer; the pauses between them are a minute together
CALL_SECONDS = 180.0  # of a call without content; three times what a socket may be silent
SEND_SECONDS = 7 * 86400.0  # ours; a transfer that does not get on ends long before, see `glance.SEND_TIMEOUTS`
DIGEST = "sha512"  # Glance, hashing_algorithm: the default
UNFINISHED = frozenset({"queued", "saving", "uploading", "importing", "killed", "deleted", "pending_delete"})
"""States of an image that is of no use to anybody, or not yet."""
STORING = ("saving", "uploading", "importing")
"""States in which Glance has the content, and works on it."""


class ImageUpload:
    """One upload. Used once.

    Args:
        ctx: The upload.
        default_method: Where the target data name none, one of `fields.METHODS`.
    """

    def __init__(self, ctx: UploadContext, *, default_method: str) -> None:
        self._ctx = ctx
        self._is_staged = ctx.targetdata.get("method", default_method) == "glance-direct"
        self._encoding = str(ctx.targetdata.get("disk_format", "raw"))

    def plan(self) -> Iterator[str]:
        """Say what `run` would do, having looked for images of the name."""
        document = self._described()
        for region in self._regions():
            if existing := self._existing(region, document):
                yield f"leave image {existing['id']} in {region} as it is, for it is the same"
            else:
                yield f"make the image '{document['name']}' in {region}"
        if members := self._members():
            yield f"share it with {', '.join(members)}"

    def run(self) -> UploadResult:
        """Make the images; what fails in a further region is a shortfall."""
        ctx = self._ctx
        home, *others = self._regions()
        with ctx.phase("check image"):
            document = self._described()
        thing, is_new = self._in_region(home, document)
        things, shortfalls = [thing], []
        for region in others:
            try:
                things.append(self._in_region(region, document)[0])
            except StoppedError:
                raise
            except ClouduploaderError as exc:
                ctx.remove([left for left in ctx.resources.to_undo() if left.region == region])
                ctx.reporter.line(f"Not in {region}: {exc.message}")
                shortfalls.append(Shortfall(region, exc.message))
        return UploadResult(thing.id, tuple(things), tuple(shortfalls), is_already_there=not is_new)

    def _in_region(self, region: str, document: Document) -> tuple[CloudObject, bool]:
        """Make the image of a region, or find that it is there; tell whether it is new."""
        ctx = self._ctx
        with ctx.phase("check account"):
            self._remove_leftovers(region)
            existing = self._existing(region, document)
        if existing:
            thing = CloudObject(KIND, str(existing["id"]), region)
        else:
            thing, digest = self._sent(region, document)
            with ctx.phase("verify"):
                self._verify(thing, document, digest)
        if members := self._members():
            with ctx.phase("share"):
                images = self._images(region)
                for member in members:
                    self._call(functools.partial(images.share, thing.id, member))
        return thing, not existing

    def _described(self) -> Document:
        """Look at the image, and make the document of an image of it; all but the id."""
        ctx = self._ctx
        facts = ctx.inspect_image()
        data = ctx.targetdata
        document: dict[str, Any] = dict(data.get("properties") or {})  # type: ignore[arg-type]
        if facts.boots_bios:
            document["hw_firmware_type"] = "bios"  # what every hypervisor has, also where UEFI would do
        elif facts.boots_uefi:
            document["hw_firmware_type"] = "uefi"
        document |= {name: data[name] for name in fields.PROPERTIES if name in data}
        return document | {
            "name": data["image_name"],
            "container_format": "bare",
            "disk_format": self._encoding,
            "architecture": fields.ARCHITECTURES[ctx.architecture(facts, allowed=fields.ARCHITECTURES)],
            "visibility": data.get("visibility") or ("shared" if self._members() else "private"),
            "tags": fields.tags(ctx.labels, data.get("tags")),
        }

    def _existing(self, region: str, document: Document) -> Document | None:
        """Find the image that an earlier upload of the same content made; None if the name is free.

        Raises:
            PlatformReplyError: The name is another image's.
        """
        images, owner = self._images(region), self._cloud.project_id()
        name = document["name"]
        named = self._call(lambda: list(images.find(name=name, owner=owner)))
        for image in named:
            if image.get("name") != name or image["status"] in UNFINISHED:
                continue
            differences = [*_differences(image, document)]
            if not differences and image.get("os_hash_value") != self._digest(str(image.get("os_hash_algo"))):
                differences = ["it has another content"]
            if differences:
                raise PlatformReplyError(
                    f"there is an image of that name in {region} already, {image['id']}: {'; '.join(differences)}",
                    hint="Choose another name, or delete that image.",
                )
            return image
        return None

    def _remove_leftovers(self, region: str) -> None:
        """Remove the images of earlier tries that were killed: one without its content serves no other try."""
        images, owner, key = self._images(region), self._cloud.project_id(), self._ctx.request.journal.key
        found = self._call(lambda: list(images.find(tag=f"{labels.KEY}={key}", owner=owner)))
        left = [CloudObject(KIND, str(image["id"]), region) for image in found if image["status"] in UNFINISHED]
        if left:
            self._ctx.remove(left)

    def _sent(self, region: str, document: Document) -> tuple[CloudObject, str]:
        """Make an image and send its content; begin again with another image if that breaks.

        Returns:
            The image, and the digest of what was sent.
        """
        tries = 0

        def is_worth_it(exc: ClouduploaderError) -> bool:
            nonlocal tries
            tries += 1
            return tries < TRIES and retry.is_transient(exc)

        return self._ctx.retry(
            lambda: self._send_once(region, document), subject=region, seconds=math.inf, may_pass=is_worth_it
        )

    def _send_once(self, region: str, document: Document) -> tuple[CloudObject, str]:
        ctx, images, image_id = self._ctx, self._images(region), str(uuid.uuid4())
        with ctx.resources.creating(KIND, region, token=image_id) as created:
            self._call(lambda: images.create({**document, "id": image_id}))
            thing = created(image_id)
        if self._is_staged and "glance-direct" not in (images.import_methods or ""):
            raise UnavailableError(f"the cloud offers no import by glance-direct in {region}", hint="Use method put.")
        with ctx.phase("upload"), ctx.open_stream(self._encoding, digest=DIGEST) as stream:
            body = Body(stream)
            try:
                ctx.within(
                    SEND_SECONDS,
                    functools.partial(images.send, image_id, body, is_staged=self._is_staged),
                    subject=f"{KIND} {image_id}",
                )
            except TransientError:
                if not (body.is_sent and self._is_stored(thing)):  # else the answer alone was lost
                    ctx.remove([thing])
                    raise
        if self._is_staged:
            self._call(functools.partial(images.start_import, image_id))
        return thing, stream.hexdigest()

    def _is_stored(self, thing: CloudObject) -> bool:
        """Tell whether Glance has got a content to its end; one that it does not tell of counts as lost."""
        try:
            return self._call(lambda: self._images(thing.region).show(thing.id))["status"] in ("active", *STORING)
        except (AbsentError, TransientError):
            return False

    def _verify(self, thing: CloudObject, document: Document, digest: str) -> None:
        """Wait until an image can be used, and hold it against what was asked for and sent."""
        images = self._images(thing.region)
        found = self._ctx.poll(
            lambda: self._within(functools.partial(images.show, thing.id)),
            until="active",
            pending=STORING,
            state=lambda image: "failed" if image.get("os_glance_failed_import") else str(image["status"]),
        )
        algorithm = str(found.get("os_hash_algo"))
        ours = digest if algorithm == DIGEST else self._digest(algorithm)
        if found.get("os_hash_value") != ours:
            raise PlatformReplyError(
                f"{KIND} {thing.id} is not what was sent: its {algorithm} is {found.get('os_hash_value')}, not {ours}"
            )
        if differences := [*_differences(found, document)]:
            raise PlatformReplyError(f"{KIND} {thing.id} is not what was asked for: {'; '.join(differences)}")

    @functools.cache  # noqa: B019 the object serves one upload
    def _digest(self, algorithm: str) -> str:
        """Read the image to its end for the digest of what would be sent; "" for a digest that is not known here."""
        if algorithm not in hashlib.algorithms_available:
            return ""
        with self._ctx.phase("read image"), self._ctx.open_stream(self._encoding, digest=algorithm) as stream:
            for _piece in stream:
                pass
            return stream.hexdigest()

    @property
    def _cloud(self) -> Cloud:
        found: Cloud = self._ctx.client
        return found

    def _images(self, region: str) -> Images:
        return self._call(lambda: self._cloud.images(region))

    def _regions(self) -> list[str]:
        """The region of the target data, and those of `regions`, each once."""
        others = self._ctx.targetdata.get("regions")
        return list(dict.fromkeys([self._ctx.region, *(map(str, others) if isinstance(others, list) else ())]))

    def _members(self) -> list[str]:
        found = self._ctx.targetdata.get("members")
        return list(dict.fromkeys(map(str, found))) if isinstance(found, list) else []

    def _call(self, call: Callable[[], T]) -> T:
        return self._ctx.retry(lambda: self._within(call))

    def _within(self, call: Callable[[], T]) -> T:
        return self._ctx.within(CALL_SECONDS, call)


def _differences(image: Document, document: Document) -> Iterator[str]:
    """Say what of an image is not as asked for; it may have more."""
    for name, value in document.items():
        if name != "tags" and image.get(name) != value:
            yield f"its {name} is {image.get(name, 'not set')}, that of this one {value}"
    for tag in document["tags"]:
        if not tag.startswith(fields.MARK) and tag not in image["tags"]:
            yield f"it has no tag {tag}"
