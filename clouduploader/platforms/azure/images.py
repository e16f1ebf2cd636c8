"""What users get: a managed image, or a version in a gallery. Found, made, read back.

Source: REST reference of Microsoft.Compute: Images, Gallery Images, Gallery Image Versions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from clouduploader.errors import ForeignError, ImageError, NotFoundError, PlatformReplyError, TargetDataError
from clouduploader.platforms.azure import fields
from clouduploader.platforms.azure.arm import ResourceManager
from clouduploader.platforms.azure.staging import Site, Stage, creating
from clouduploader.plugin import CloudObject, Context, JsonValue, Shortfall, UploadContext, labels
from clouduploader.util.frozen import frozen

IMAGE, VERSION = "image", "gallery image version"
CONTENT = f"{labels.PREFIX}content"
"""The label that identifies the disk, whatever the packing was: see `transfer.content`."""
SHA256 = f"{labels.PREFIX}sha256"
"""Of the image file as it was, packed, in hex."""


@frozen()
class ImageSpec:
    """What the image is to be.

    Attributes:
        architecture: x86_64 or arm64.
        generation: V1 or V2.
        size_bytes: Of the raw disk, as far as it is known before it was read to its end.
    """

    architecture: str
    generation: str
    size_bytes: int

    def disk_properties(self) -> dict[str, JsonValue]:
        """Return what a managed disk says of the machines that it is for."""
        return {
            "hyperVGeneration": self.generation,
            "supportedCapabilities": {"architecture": fields.ARCHITECTURES[self.architecture]},
        }


class Product(ABC):
    """The image of one upload.

    Args:
        ctx: The upload.
        site: See Site.
        spec: See ImageSpec.

    Attributes:
        thing: What it is to be.
    """

    thing: CloudObject

    def __init__(self, ctx: UploadContext, site: Site, spec: ImageSpec) -> None:
        self._ctx = ctx
        self._site = site
        self._spec = spec
        self._manager = ResourceManager(ctx)

    def existing(self) -> dict[str, Any] | None:
        """Return what there is of that id, once Azure has finished with it; None if there is nothing."""
        found = self._manager.find(self.thing.id, subject=self._subject)
        if found is None or _state(found) not in ("Creating", "Updating"):
            return found
        return self._settled()

    @abstractmethod
    def check_place(self) -> None:
        """Make sure, before anything is sent, that it can be made here.

        Raises:
            ClouduploaderError: It can't.
        """

    def make(self, stage: Stage, source_id: str, tags: Mapping[str, str]) -> tuple[Shortfall, ...]:
        """Make it, wait until it can be used, and compare what came out. Blocks for minutes.

        Returns:
            Where it could not be replicated to.

        Raises:
            PlatformReplyError: It is another one than was asked for.
            ClouduploaderError: It failed.
        """
        document: dict[str, JsonValue] = {
            "location": self._site.location,
            "tags": dict(tags),
            "properties": self._properties(stage, source_id),
        }
        with creating(self._ctx, self.thing) as accepted:
            self._manager.put(self.thing.id, document, subject=self._subject, accepted=accepted)
        made = self._settled()
        if (state := _state(made)) != "Succeeded":
            raise PlatformReplyError(f"{self._subject} is {state}")
        if made.get("tags") != dict(tags):
            raise PlatformReplyError(f"{self._subject} has other tags than were asked for")
        return self.compare(made)

    @abstractmethod
    def compare(self, found: Mapping[str, Any]) -> tuple[Shortfall, ...]:
        """Compare what is there with what was asked for.

        Returns:
            Where it was not replicated to.

        Raises:
            PlatformReplyError: It is another one.
        """

    def lacking_regions(self, found: Mapping[str, Any]) -> list[str]:
        """List where what is there is to be replicated to, and is not."""
        return []

    def replicate(self, found: Mapping[str, Any], regions: Sequence[str]) -> None:
        """Have what is there replicated to further regions. Blocks for minutes."""
        raise AssertionError("it is in one region")

    @property
    def _subject(self) -> str:
        return f"{self.thing.kind} {self.thing.id.rpartition('/')[2]}"

    def _settled(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ctx.poll(
            lambda: self._manager.get(self.thing.id, subject=self._subject),
            until="settled",
            pending=("pending",),
            state=lambda seen: "pending" if _state(seen) in ("Creating", "Updating") else "settled",
        )
        return found

    @abstractmethod
    def _properties(self, stage: Stage, source_id: str) -> dict[str, JsonValue]:
        """Return what it is made of."""


class ManagedImage(Product):
    """A managed image, as OBS's users have it."""

    def __init__(self, ctx: UploadContext, site: Site, spec: ImageSpec) -> None:
        super().__init__(ctx, site, spec)
        name = fields.image_name(ctx.targetdata, ctx.request.image.filename)
        self.thing = CloudObject(IMAGE, f"{site.group}/providers/Microsoft.Compute/images/{name}")

    def check_place(self) -> None:
        """See Product; only a gallery can tell what is not for x86_64."""
        if self._spec.architecture == "arm64":
            raise ImageError(
                "the image is for arm64, which a managed image can't tell",
                hint="Give gallery, gallery_image and gallery_version.",
            )

    def _properties(self, stage: Stage, source_id: str) -> dict[str, JsonValue]:
        disk: dict[str, JsonValue] = {"osType": "Linux", "osState": "Generalized", **stage.image_source(source_id)}
        return {"hyperVGeneration": self._spec.generation, "storageProfile": {"osDisk": disk}}

    def compare(self, found: Mapping[str, Any]) -> tuple[Shortfall, ...]:
        """See Product."""
        properties = found.get("properties", {})
        disk = properties.get("storageProfile", {}).get("osDisk", {})
        _expect(self._subject, "hyperVGeneration", properties.get("hyperVGeneration"), self._spec.generation)
        _expect(self._subject, "osType", disk.get("osType"), "Linux")
        _expect(self._subject, "osState", disk.get("osState"), "Generalized")
        return ()


class GalleryVersion(Product):
    """A version of an image definition in an Azure Compute Gallery."""

    def __init__(self, ctx: UploadContext, site: Site, spec: ImageSpec) -> None:
        super().__init__(ctx, site, spec)
        self._definition = definition_id(ctx.targetdata, site.group)
        self.thing = CloudObject(VERSION, f"{self._definition}/versions/{ctx.targetdata['gallery_version']}")

    def check_place(self) -> None:
        """See Product; the image definition must be there, and be for such an image."""
        subject = f"image definition {self._ctx.targetdata['gallery_image']}"
        found = self._manager.find(self._definition, subject=subject)
        if found is None:
            raise NotFoundError(
                f"there is no {subject} in gallery {self._ctx.targetdata['gallery']}",
                hint="Make it with `az sig image-definition create`; docs/how-to/azure.rst has an example.",
            )
        properties = found.get("properties", {})
        wanted = {
            "osType": "Linux",
            "osState": "Generalized",
            "hyperVGeneration": self._spec.generation,
            "architecture": fields.ARCHITECTURES[self._spec.architecture],
        }
        for name, value in wanted.items():
            default = "x64" if name == "architecture" else "V1" if name == "hyperVGeneration" else None
            if (its := properties.get(name) or default) != value:
                raise TargetDataError(f"{subject} is for images whose {name} is {its}, but this one's is {value}")

    def _properties(self, stage: Stage, source_id: str) -> dict[str, JsonValue]:
        given = self._ctx.targetdata
        profile: dict[str, JsonValue] = {
            "targetRegions": _targets([self._site.location, *self._regions()]),
            "excludeFromLatest": bool(given.get("exclude_from_latest")),
        }
        if end := fields.moment(given.get("end_of_life")):
            profile["endOfLifeDate"] = end.isoformat().replace("+00:00", "Z")
        disk: dict[str, JsonValue] = {"hostCaching": "ReadOnly", "source": stage.source(source_id)}
        return {"publishingProfile": profile, "storageProfile": {"osDiskImage": disk}}

    def lacking_regions(self, found: Mapping[str, Any]) -> list[str]:
        """See Product."""
        have = {_region(target.get("name")) for target in _targets_of(found) if isinstance(target, dict)}
        return [name for name in self._regions() if _region(name) not in have]

    def replicate(self, found: Mapping[str, Any], regions: Sequence[str]) -> None:
        """See Product; as `az sig image-version update` does it."""
        properties = found.get("properties", {})
        profile = properties.get("publishingProfile", {})
        document: dict[str, JsonValue] = {
            "location": found.get("location", self._site.location),
            "tags": found.get("tags", {}),
            "properties": {
                **{name: properties[name] for name in ("storageProfile", "safetyProfile") if name in properties},
                "publishingProfile": {**profile, "targetRegions": [*_targets_of(found), *_targets(regions)]},
            },
        }
        self._manager.put(self.thing.id, document, subject=self._subject, accepted=lambda: None)

    def _regions(self) -> list[str]:
        chosen = self._ctx.targetdata.get("regions")
        return list(dict.fromkeys(map(str, chosen))) if isinstance(chosen, list) else []

    def compare(self, found: Mapping[str, Any]) -> tuple[Shortfall, ...]:
        """See Product."""
        profile = found.get("properties", {}).get("publishingProfile", {})
        excluded = bool(self._ctx.targetdata.get("exclude_from_latest"))
        _expect(self._subject, "excludeFromLatest", profile.get("excludeFromLatest"), excluded)
        query = {"$expand": "ReplicationStatus"}
        seen = self._manager.get(self.thing.id, subject=self._subject, parameters=query)
        summary = (seen.get("properties", {}).get("replicationStatus") or {}).get("summary") or []
        return tuple(
            Shortfall(str(region.get("region")), str(region.get("details") or region["state"]))
            for region in summary
            if region.get("state") == "Failed"
        )


def definition_id(targetdata: Mapping[str, JsonValue], group: str) -> str:
    """Return the id of the image definition; its gallery may be in another resource group than `group`, the image's."""
    if named := targetdata.get("gallery_resource_group"):
        group = f"{group.rpartition('/')[0]}/{named}"
    return f"{group}/providers/Microsoft.Compute/galleries/{targetdata['gallery']}/images/{targetdata['gallery_image']}"


def _targets(names: Sequence[str]) -> list[JsonValue]:
    return [{"name": name, "regionalReplicaCount": 1} for name in dict.fromkeys(names)]


def _targets_of(version: Mapping[str, Any]) -> list[Any]:
    found = version.get("properties", {}).get("publishingProfile", {}).get("targetRegions")
    return found if isinstance(found, list) else []


def _region(name: object) -> str:
    """Return a region's name as it is written in requests; answers may have it as people read it, `West Europe`."""
    return str(name).replace(" ", "").lower()


def product(ctx: UploadContext, site: Site, spec: ImageSpec) -> Product:
    """Return what the target data ask for."""
    return GalleryVersion(ctx, site, spec) if "gallery" in ctx.targetdata else ManagedImage(ctx, site, spec)


def remove(ctx: Context, thing: CloudObject) -> None:
    """Delete an image or a version; that of another upload, which has the name by now, stays.

    Raises:
        AbsentError: It is not there.
        ForeignError: It is another upload's.
    """
    manager, subject = ResourceManager(ctx), f"the {thing.kind}"
    bears = manager.get(thing.id, subject=subject).get("tags") or {}
    if ctx.key and bears.get(labels.KEY) != ctx.key:
        raise ForeignError(f"{subject} is another upload's")
    manager.delete(thing.id, subject=subject)


def _state(resource: Mapping[str, Any]) -> str:
    return str(resource.get("properties", {}).get("provisioningState"))


def _expect(subject: str, name: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise PlatformReplyError(f"{subject} has {name} {found}, though {wanted} was asked for")
