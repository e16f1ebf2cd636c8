"""List the platforms, and describe the target data that they take."""

from typing import Any

from clouduploader.errors import ClouduploaderError
from clouduploader.plugin.fields import json_schema
from clouduploader.store import config
from clouduploader.uploads import registry
from clouduploader.util.frozen import frozen


@frozen()
class ListedPlatform:
    """A platform that some package offers.

    Attributes:
        target: Which target it answers to.
        package: Name and version of the package.
        problem: Why it can't be used, or None.
        description: See Platform; None if it can't be used.
    """

    target: str
    package: str
    problem: str | None
    description: str | None


def list_platforms(settings: config.Config) -> list[ListedPlatform]:
    """Try to load each platform; one that is broken does not hide the others."""
    return [_listed(offer, settings) for offer in registry.offers()]


def _listed(offer: registry.PlatformOffer, settings: config.Config) -> ListedPlatform:
    try:
        platform = registry.load(offer.target, settings)
    except ClouduploaderError as exc:
        return ListedPlatform(offer.target, offer.package, exc.message, None)
    return ListedPlatform(offer.target, offer.package, None, platform.description)


def schema(target: str, settings: config.Config) -> dict[str, Any]:
    """Describe a platform's target data as JSON Schema.

    Raises:
        UnknownTargetError: There is no such platform.
        PluginLoadError: It can't be loaded.
    """
    return json_schema(registry.load(target, settings).fields)
