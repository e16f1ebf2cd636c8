"""What a person's own AWS settings and the SDK tell about regions, without asking AWS."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from clouduploader.platforms.ec2.fields import EVERYWHERE


class RegionHints:
    """See `clouduploader.plugin.Hints`.

    Args:
        environment: Where AWS_REGION is looked up.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def choices(self, name: str) -> Sequence[str]:
        """Name the regions of all partitions that the SDK knows; read from its data, for importing it takes long.

        For copies all of them have a word too.
        """
        if name not in ("region", "regions"):
            return ()
        found = importlib.util.find_spec("botocore")
        if found is None or found.origin is None:
            return ()
        try:
            document = json.loads((Path(found.origin).parent / "data" / "partitions.json").read_bytes())
            regions = {region for partition in document["partitions"] for region in partition["regions"]}
        except (OSError, ValueError, LookupError, TypeError):  # another botocore, or a damaged one: these are but hints
            return ()
        everywhere = [EVERYWHERE] if name == "regions" else []
        return everywhere + sorted(region for region in regions if not region.endswith("-global"))

    def default(self, name: str) -> str | None:
        """Give the region that the aws command would use: AWS_REGION, AWS_DEFAULT_REGION, or that of the profile.

        Raises:
            ClouduploaderError: The profile is not there, or its file is damaged.
        """
        if name != "region":
            return None
        if self._environment.get("AWS_REGION"):  # the SDK for Python knows the other one only
            return self._environment["AWS_REGION"]
        import botocore.session

        from clouduploader.platforms.ec2 import boto

        with boto.translated("the region of your AWS profile"):
            region: str | None = botocore.session.Session().get_config_variable("region")
        return region
