"""The log of a job, as tests look at it."""

import re

TIME = re.compile(r"^[0-9]{2}:[0-9]{2}:[0-9]{2} ")


def untimed(log: str) -> list[str]:
    """The lines of a log without the time of day that those of ours begin with."""
    return [TIME.sub("", line) for line in log.splitlines()]
