"""Section `[ec2]` of the settings file."""

import dataclasses
from collections.abc import Mapping

from clouduploader.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set for EC2, with its defaults.

    Attributes:
        profile: The section of `.aws/credentials` with the keys that assume the roles.
        session_seconds: Life of the temporary credentials. 3600 is allowed for every role: the
            smallest MaxSessionDuration is an hour (API reference of AssumeRole).
        sts_region: The region whose STS is asked; empty for the region of the upload.
        ec2uploadimg: The program, a name or a path.
        ssh_timeout: Seconds; ec2uploadimg tries that many tenths of it, and each try may take all of it:
            with 60 a silent port costs at most 7 minutes.
        wait_count: How often ec2uploadimg waits 10 minutes for a snapshot and the like.
        grace_seconds: How long ec2uploadimg may take to clean up after SIGTERM; its slowest steps
            were seen to react after minutes.
        ssh_cidr: Who may reach port 22 of the helper, in the group made for a given subnet.
    """

    profile: str = "default"
    session_seconds: int = 3600
    sts_region: str = ""
    ec2uploadimg: str = "ec2uploadimg"
    ssh_timeout: int = 60
    wait_count: int = 3
    grace_seconds: int = 600
    ssh_cidr: str = "0.0.0.0/0"


LIMITS = {
    "session_seconds": (900, 43200),  # DurationSeconds, API reference of AssumeRole
    "ssh_timeout": (10, 3600),
    "wait_count": (1, 100),
    "grace_seconds": (0, 3600),
}
"""Smallest and largest value of each number; those without a source are ours."""


def read(section: Mapping[str, str]) -> Settings:
    """Check the section.

    Raises:
        ConfigError: An unknown key, or a value that is not allowed.
    """
    defaults = dataclasses.asdict(Settings())
    values: dict[str, str | int] = {}
    for key, text in section.items():
        if key not in defaults:
            raise ConfigError(
                f"unknown setting '{key}' in [ec2] of clouduploader.conf",
                hint=f"Known are: {', '.join(defaults)}.",
            )
        values[key] = _number(key, text) if key in LIMITS else text
    return dataclasses.replace(Settings(), **values)  # type: ignore[arg-type]


def _number(key: str, text: str) -> int:
    low, high = LIMITS[key]
    if not text.isdecimal() or len(text) > len(str(high)) or not low <= int(text) <= high:
        raise ConfigError(
            f"setting '{key}' in [ec2] of clouduploader.conf is '{text}', not a number from {low} to {high}"
        )
    return int(text)
