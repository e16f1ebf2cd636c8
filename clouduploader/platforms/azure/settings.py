"""Section `[azure]` of the settings file."""

import dataclasses
import re
from collections.abc import Mapping

from clouduploader.errors import ConfigError
from clouduploader.util.frozen import frozen

METHODS = ("auto", "blob", "disk")
"""How an image gets into Azure: `auto` is blob where there is a storage account that lets us in, else disk."""
LIMITS = {
    "connections": (1, 64),
    "pages_per_second": (1, 20000),
}
"""Smallest and largest value of each number; ours."""
_URL = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?")


@frozen(kw_only=True)
class Cloud:
    """The addresses of one cloud.

    Attributes:
        authority: Of Microsoft Entra, which gives tokens.
        resource_manager: Of Azure Resource Manager.
        storage_suffix: What the names of storage accounts are followed by.
        is_private: Whether it is none of Microsoft's own, which the authority would be asked about.
    """

    authority: str
    resource_manager: str
    storage_suffix: str
    is_private: bool = False


CLOUDS = {  # as azure-cli's `az cloud list --output json` has them
    "public": Cloud(
        authority="https://login.microsoftonline.com",
        resource_manager="https://management.azure.com",
        storage_suffix="core.windows.net",
    ),
    "china": Cloud(
        authority="https://login.chinacloudapi.cn",
        resource_manager="https://management.chinacloudapi.cn",
        storage_suffix="core.chinacloudapi.cn",
    ),
    "usgov": Cloud(
        authority="https://login.microsoftonline.us",
        resource_manager="https://management.usgovcloudapi.net",
        storage_suffix="core.usgovcloudapi.net",
    ),
}


@frozen(kw_only=True)
class AzureSettings:
    """What can be set for Azure, with its defaults.

    Attributes:
        cloud: One of CLOUDS; or the URL of another one's Resource Manager, which tells the rest.
        method: The method of uploads whose target data name none.
        connections: How many pages are under way at once, each on a connection of its own; each takes 16 MiB of memory,
            where an upload takes 32 besides, and is to take at most 96 with all that it may read.
        pages_per_second: How many pages are sent at most: a page blob takes 500 requests a second
            ("Scalability and performance targets for Blob storage").
    """

    cloud: str = "public"
    method: str = "auto"
    connections: int = 3
    pages_per_second: int = 490


DEFAULTS: Mapping[str, str] = {field.name: str(field.default) for field in dataclasses.fields(AzureSettings)}
"""The default of each setting, as it would stand in the file."""


def read(section: Mapping[str, str]) -> AzureSettings:
    """Check the section.

    Args:
        section: Keys of DEFAULTS, with their values.

    Raises:
        ConfigError: A value is not allowed.
    """
    values: dict[str, str | int] = {}
    for key, text in section.items():
        values[key] = _number(key, text) if key in LIMITS else text
    found = dataclasses.replace(AzureSettings(), **values)  # type: ignore[arg-type]
    if found.method not in METHODS:
        raise _wrong("method", found.method, f"one of {', '.join(METHODS)}")
    if found.cloud not in CLOUDS and not _URL.fullmatch(found.cloud):
        raise _wrong("cloud", found.cloud, f"one of {', '.join(CLOUDS)}, or the https URL of a Resource Manager")
    return found


def _number(key: str, text: str) -> int:
    low, high = LIMITS[key]
    if not text.isdecimal() or len(text) > len(str(high)) or not low <= int(text) <= high:
        raise _wrong(key, text, f"a number from {low} to {high}")
    return int(text)


def _wrong(key: str, text: str, wanted: str) -> ConfigError:
    return ConfigError(f"setting '{key}' in [azure] of clouduploader.conf is '{text}', not {wanted}")
