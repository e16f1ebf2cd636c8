"""Section `[ec2]` of the settings file."""

import dataclasses
import re
from collections.abc import Mapping

from clouduploader.errors import ConfigError
from clouduploader.util.frozen import frozen


@frozen(kw_only=True)
class Ec2Settings:
    """What can be set for EC2, with its defaults.

    Attributes:
        profile: The section of `.aws/credentials` with the keys that assume the roles.
        session_seconds: Life of the temporary credentials. 3600 is allowed for every role: the
            smallest MaxSessionDuration is an hour (API reference of AssumeRole).
        sts_region: The region whose STS is asked; empty for the region of the upload.
        roles: Patterns of the ARNs of the roles that are assumed, separated by spaces, with `*` and `?` as in a policy;
            any other role is refused before AWS is asked.
        ec2uploadimg: The program, a name or a path.
        ssh_timeout: Seconds; ec2uploadimg tries that many tenths of it, and each try may take all of it:
            with 60 a silent port costs at most 7 minutes.
        wait_count: How often ec2uploadimg waits 10 minutes for a snapshot and the like.
        grace_seconds: How long ec2uploadimg may take to clean up after SIGTERM; its slowest steps
            were seen to react after minutes.
        ssh_cidr: Who may reach port 22 of the helper, in the group made for a given subnet.
        method: The method of uploads whose target data name none.
        connections: How many blocks are under way at once, each on a connection of its own.
        blocks_per_second: How many blocks are sent at most: just under the default quota of 1,000 a snapshot
            and account (EBS user guide, quotas).
        pending_minutes: How long AWS keeps an unfinished snapshot that gets no blocks.
        snapshot_usd: What a GiB in a snapshot costs a month: list price of us-east-1 in 2025 ("Amazon EBS pricing");
            other regions take up to twice as much.
        transfer_usd: What a GiB costs that is copied to another region: the same ("Amazon EC2 On-Demand pricing", data
            transfer); from some regions it is seven times as much.
        file_digest: Which images of ebs-direct get a tag with the SHA-256 of their file, see FILE_DIGESTS.
    """

    profile: str = "default"
    session_seconds: int = 3600
    sts_region: str = ""
    roles: str = "*"
    ec2uploadimg: str = "ec2uploadimg"
    ssh_timeout: int = 60
    wait_count: int = 3
    grace_seconds: int = 600
    ssh_cidr: str = "0.0.0.0/0"
    method: str = "ec2uploadimg"
    connections: int = 64
    blocks_per_second: int = 990
    pending_minutes: int = 60
    file_digest: str = "free"
    snapshot_usd: float = 0.05
    transfer_usd: float = 0.02

    def is_role_allowed(self, arn: str) -> bool:
        """Tell whether `roles` names a role."""
        patterns = (re.escape(word).replace(r"\*", ".*").replace(r"\?", ".") for word in self.roles.split())
        return any(re.fullmatch(pattern, arn, re.DOTALL) for pattern in patterns)


LIMITS = {
    "session_seconds": (900, 43200),  # DurationSeconds, API reference of AssumeRole
    "ssh_timeout": (10, 3600),
    "wait_count": (1, 100),
    "grace_seconds": (0, 3600),
    "connections": (1, 128),
    "blocks_per_second": (1, 100000),
    "pending_minutes": (10, 4320),  # Timeout, EBS direct API, StartSnapshot
}
"""Smallest and largest value of each number; those without a source are ours."""
PRICES = ("snapshot_usd", "transfer_usd")
"""The settings that are prices in US dollars."""
METHODS = ("ec2uploadimg", "ebs-direct", "auto")
"""How an image gets into EC2; `auto` is ebs-direct, or ec2uploadimg where the role may not do that."""

FILE_DIGESTS = ("free", "always")
"""`free`: where the file is read in order anyhow: it is packed, or must have a given digest. `always` reads all others
once more."""
_PRICE = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?")


DEFAULTS: Mapping[str, str] = {field.name: str(field.default) for field in dataclasses.fields(Ec2Settings)}
"""The default of each setting, as it would stand in the file."""


def read(section: Mapping[str, str]) -> Ec2Settings:
    """Check the section.

    Args:
        section: Keys of DEFAULTS, with their values.

    Raises:
        ConfigError: A value is not allowed.
    """
    values: dict[str, str | float] = {}
    for key, text in section.items():
        values[key] = _number(key, text) if key in LIMITS else _price(key, text) if key in PRICES else text
    for key, allowed in (("method", METHODS), ("file_digest", FILE_DIGESTS)):
        if (value := values.get(key, allowed[0])) not in allowed:
            raise ConfigError(
                f"setting '{key}' in [ec2] of clouduploader.conf is '{value}', not one of {', '.join(allowed)}"
            )
    if not str(values.get("roles", Ec2Settings.roles)).split():
        raise ConfigError("setting 'roles' in [ec2] of clouduploader.conf is empty: no role could be assumed")
    return dataclasses.replace(Ec2Settings(), **values)  # type: ignore[arg-type]


def _price(key: str, text: str) -> float:
    if not _PRICE.fullmatch(text):
        raise ConfigError(
            f"setting '{key}' in [ec2] of clouduploader.conf is '{text}', not a price in USD such as 0.05"
        )
    return float(text)


def _number(key: str, text: str) -> int:
    low, high = LIMITS[key]
    if not text.isdecimal() or len(text) > len(str(high)) or not low <= int(text) <= high:
        raise ConfigError(
            f"setting '{key}' in [ec2] of clouduploader.conf is '{text}', not a number from {low} to {high}"
        )
    return int(text)
