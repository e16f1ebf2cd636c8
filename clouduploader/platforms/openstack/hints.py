"""What a person's own OpenStack settings tell about regions, without asking the cloud."""

from collections.abc import Mapping, Sequence

from clouduploader.platforms.openstack import cloud


class RegionHints:
    """See `clouduploader.plugin.Hints`.

    Args:
        environment: Where OS_REGION_NAME and OS_CLOUD are looked up.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def choices(self, name: str) -> Sequence[str]:
        """Name nothing: regions are the cloud's own."""
        return ()

    def default(self, name: str) -> str | None:
        """Give the region that the openstack command would use: OS_REGION_NAME, or that of the cloud in OS_CLOUD.

        Raises:
            ConfigError: clouds.yaml has no such cloud.
        """
        if name != "region":
            return None
        if self._environment.get("OS_REGION_NAME"):
            return self._environment["OS_REGION_NAME"]
        return cloud.own_region(self._environment["OS_CLOUD"]) if self._environment.get("OS_CLOUD") else None
