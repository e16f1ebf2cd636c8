"""What an emulated cloud runs that is no library of ours: installed once, each in an environment of its own.

They lie in the cache of the person who uses the sandbox ($XDG_CACHE_HOME, or ~/.cache), below `clouduploader/sandbox`.
The name of an environment tells what was asked for, so that another version of clouduploader makes another one.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from clouduploader.errors import CannotCreateError, ClouduploaderError, MissingProgramError

MARK = "installed"  # the file in an environment that is complete
Say = Callable[[str], None]
_Make = Callable[[Path], Sequence[Sequence[str | Path]]]


def python_environment(
    name: str,
    requirements: Sequence[str],
    *,
    say: Say,
    complete: Callable[[Path], None] = lambda _: None,
    version: str = "",
) -> Path:
    """Make a virtual environment, unless it is there. Blocks, for minutes the first time; uses pip and its network.

    Args:
        name: Of what is in it, for its directory.
        requirements: As pip takes them.
        say: Told if it takes long.
        complete: Called with its directory, to add to it what is the same in all sandboxes.
        version: Of what `complete` does.

    Returns:
        Its directory; programs are in `bin`.

    Raises:
        ClouduploaderError: It can't be made.
    """

    def commands(directory: Path) -> Sequence[Sequence[str | Path]]:
        pip = (directory / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        return [(sys.executable, "-m", "venv", directory), (*pip, *requirements)]

    return _environment(name, (sys.version, version, *requirements), commands, say, complete)


def node_packages(name: str, packages: Sequence[str], *, say: Say) -> Path:
    """Install packages of npm, unless they are there; see `python_environment`.

    Returns:
        The directory; programs are in `node_modules/.bin`.

    Raises:
        MissingProgramError: There is no npm.
        ClouduploaderError: They can't be installed.
    """
    options = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")

    def commands(directory: Path) -> Sequence[Sequence[str | Path]]:
        npm = shutil.which("npm")
        if npm is None:
            raise MissingProgramError("the sandbox needs the Debian package npm", hint="apt install npm")
        return [(npm, "install", *options, "--prefix", directory, *packages)]

    return _environment(name, packages, commands, say, lambda _: None)


def cache(environment: Mapping[str, str]) -> Path:
    """Return the directory that holds all environments."""
    base = environment.get("XDG_CACHE_HOME") or ""  # "All paths must be absolute", XDG Base Directory
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "clouduploader" / "sandbox"


def _environment(name: str, wanted: Sequence[str], commands: _Make, say: Say, complete: Callable[[Path], None]) -> Path:
    place = cache(os.environ)
    directory = place / f"{name}-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"
    if (directory / MARK).exists():
        return directory
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(place / f"{name}.lock"):
            if not (directory / MARK).exists():
                say(f"installing {name} for the sandbox into {directory}, once; this can take some minutes")
                shutil.rmtree(directory, ignore_errors=True)  # what an installation that was killed has left
                directory.mkdir(mode=0o700)
                for command in commands(directory):
                    run(name, command)
                complete(directory)
                (directory / MARK).touch()
    except OSError as exc:
        raise CannotCreateError(f"{directory} can't be made: {exc.strerror}") from exc
    return directory


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other sandbox installs the same, and keep others from it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Run a command of an installation, and wait for its end.

    Args:
        name: Of what is installed.
        command: The command and its arguments.
        environment: All of its environment; None for ours.

    Raises:
        ClouduploaderError: It failed.
    """
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()
        program = Path(command[0]).name
        raise ClouduploaderError(f"{name} could not be installed for the sandbox: {program}: {lines[-1]}")
