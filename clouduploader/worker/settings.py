"""Section `[worker]` of the settings file."""

import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from clouduploader.errors import ConfigError, MissingProgramError
from clouduploader.store.config import Config
from clouduploader.util.frozen import frozen

PROGRAM = "clouduploader"  # what OBS's worker executes, found on PATH
INHERITED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|CLOUDUPLOADER_\w+"
    r"|(?i:https?_proxy|all_proxy|no_proxy)|SSL_CERT_(FILE|DIR)|[A-Z]+_CA_BUNDLE"
)
"""Variables of the worker's environment that an upload gets: paths, locale and time, proxies, certificates."""


@frozen(kw_only=True)
class WorkerSettings:
    """The settings of the worker, with their defaults.

    Attributes:
        max_jobs: How many uploads at once; `$clouduploadworker_maxchild` of OBS.
        max_jobs_per_user: How many of them for one user; fixed in OBS's worker.
        tries: How often an upload is tried that fails with exit code 75.
        retry_seconds: How long until the second try; each later pause is twice as long.
        retry_max_seconds: The longest pause.
        kill_grace_seconds: How long the processes of a killed job may clean up until SIGKILL ends them: longer
            than the platforms' programs may clean up by settings of theirs, and what comes after it.
        program: What is executed, a name to be found on PATH or a path.
        pass_environment: Names of more variables that uploads get from the worker's environment.
        obs_lock: The lock of OBS's worker: `$rundir/bs_clouduploadworker.lock`. None for where OBS has it by default.
    """

    max_jobs: int = 4
    max_jobs_per_user: int = 2
    tries: int = 5
    retry_seconds: int = 60
    retry_max_seconds: int = 3600
    kill_grace_seconds: int = 900
    program: str = PROGRAM
    pass_environment: tuple[str, ...] = ()
    obs_lock: Path | None = None

    def pause_seconds(self, try_: int) -> int:
        """Return how long to wait before a try.

        Args:
            try_: Its number, from 2.
        """
        return int(min(self.retry_max_seconds, self.retry_seconds * 2 ** min(try_ - 2, 30)))


MAX_DIGITS = 19  # Python itself refuses to parse thousands
LIMITS = {
    "max_jobs": (1, 1000),
    "max_jobs_per_user": (1, 1000),
    "tries": (1, 100),
    "retry_seconds": (1, 86400),
    "retry_max_seconds": (1, 604800),
    "kill_grace_seconds": (1, 86400),
}
"""Smallest and largest value of each number; all ours."""


def read(config: Config) -> WorkerSettings:
    """Check the section.

    Raises:
        ConfigError: An unknown key, or a value that is not allowed.
    """
    known = [field.name for field in dataclasses.fields(WorkerSettings)]
    values: dict[str, int | str | tuple[str, ...] | Path | None] = {}
    for key, text in config.worker.items():
        if key not in known:
            raise ConfigError(
                f"{config.path}: unknown setting '{key}' in [worker]", hint=f"Known are: {', '.join(known)}."
            )
        if key in LIMITS:
            values[key] = _number(config.path, key, text)
        elif key == "pass_environment":
            values[key] = tuple(text.split())
        elif key == "obs_lock":
            values[key] = Path(text) if text else None
        else:
            values[key] = text or PROGRAM
    return WorkerSettings(**values)  # type: ignore[arg-type]


def _number(path: Path, key: str, text: str) -> int:
    smallest, largest = LIMITS[key]
    if not (text.isascii() and text.isdigit() and len(text) < MAX_DIGITS and smallest <= int(text) <= largest):
        raise ConfigError(f"{path}: {key} in [worker] is '{text}', not a number from {smallest} to {largest}")
    return int(text)


def find_program(name: str, environment: Mapping[str, str]) -> Path:
    """Find a program: on PATH as OBS looks for it, or else beside the running Python.

    Raises:
        MissingProgramError: It is in neither.
    """
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    own = Path(sys.executable).parent / name
    if found is None and not os.access(own, os.X_OK):
        raise MissingProgramError(
            f"the program {name} is not there, or not on PATH",
            hint="Set `program` in section [worker] of clouduploader.conf to its path.",
        )
    return Path(found).absolute() if found else own


def upload_environment(config: Config, settings: WorkerSettings) -> dict[str, str]:
    """Return the environment of an upload: only what it needs of the worker's, with the same directories."""
    names = set(settings.pass_environment)
    kept = {name: value for name, value in config.environment.items() if name in names or INHERITED.fullmatch(name)}
    kept.setdefault("PATH", os.defpath)
    for variable, setting in (
        ("CLOUDUPLOADER_HOME", config.home),
        ("CLOUDUPLOADER_SPOOL", config.spool),
        ("CLOUDUPLOADER_STATE", config.state),
    ):
        if setting.source != "default" or setting.value in config.own_directories:
            kept[variable] = str(setting.value)
    return kept
