"""Check that everything is in place for the first job."""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import ClouduploaderError
from clouduploader.plugin import Context, Finding, JsonValue, Level, NullReporter, Platform
from clouduploader.store import home, keyring, target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry
from clouduploader.util.cancel import Cancel


def configured(config: Config) -> list[str]:
    """List the targets that have settings, a file in the home, or an account; never raises."""
    home_path, found = config.home.value, set()
    with contextlib.suppress(ClouduploaderError):  # `run` tells it
        from clouduploader.store import accounts

        found |= {account.target for account in accounts.AccountStore(home_path).accounts()}
    with contextlib.suppress(ClouduploaderError):  # of a damaged package
        for target in registry.names():
            with contextlib.suppress(ClouduploaderError):
                files = registry.load_without_settings(target).files
                if config.platforms.get(target) or any((home_path / file.path).exists() for file in files):
                    found.add(target)
    return sorted(found)


def run(config: Config, *, targets: Sequence[str], region: str | None, data_path: Path | None) -> Iterator[Finding]:
    """Look at the home, the spool, the keys, and what the platforms need. Uses the network.

    Args:
        config: The settings.
        targets: Which platforms.
        region: Only this one; None for all that are configured.
        data_path: Target data of a job that is to come, to try them; or None.
    """
    yield from _home(config)
    yield from _spool(config.spool.value)
    keys = keyring.Keyring(config.home.value, config.environment)
    yield from keys.findings()
    for target in targets:
        yield from _platform(config, target, keys, region=region, data_path=data_path)


def _platform(
    config: Config, target: str, keys: keyring.Keyring, *, region: str | None, data_path: Path | None
) -> Iterator[Finding]:
    try:
        platform = registry.load(target, config)
    except ClouduploaderError as exc:
        yield Finding(Level.FAILURE, f"platform {target}", exc.message, exc.hint)
        return
    data = None
    if data_path:
        try:
            data = _targetdata(data_path, platform, keys)
        except ClouduploaderError as exc:
            yield Finding(Level.FAILURE, str(data_path), exc.message, exc.hint)
            return
        yield Finding(Level.OK, str(data_path), f"target data for {target}")
    ctx = Context(platform, data or {}, NullReporter(), Cancel(), region=region)
    yield from platform.check(ctx)


def _targetdata(path: Path, platform: Platform, keys: keyring.Keyring) -> Mapping[str, JsonValue]:
    return target_data.read(target_data.read_file(path), platform, keys).values


def _home(config: Config) -> Iterator[Finding]:
    path = config.home.value
    subject = f"{path}"
    if not path.is_dir():
        hint = "Make it, or name another with --home or CLOUDUPLOADER_HOME."
        yield Finding(Level.FAILURE, subject, f"is not a directory (set by {config.home.source})", hint)
        return
    if not os.access(path, os.R_OK | os.X_OK):
        hint = f"It must be readable for the user that uploads ({_user()}): change its owner."
        yield Finding(Level.FAILURE, subject, "can't be read", hint)
        return
    yield Finding(Level.OK, subject, f"home (set by {config.home.source})")
    if config.path.exists():
        yield Finding(Level.OK, str(config.path), "settings")
    for exposed in home.exposed(path, registry.home_files()):
        mode = stat.S_IMODE(exposed.stat().st_mode)
        hint = f"chmod {'700' if exposed.is_dir() else '600'} {exposed}"
        yield Finding(Level.WARNING, str(exposed), f"others can get at it (mode {mode:04o})", hint)
    yield from _accounts(path)


def _accounts(home_path: Path) -> Iterator[Finding]:
    """Look whether the accounts can be used at all, and by the daemons."""
    path = next(filter(os.path.lexists, (home_path / home.ACCOUNTS, home_path / home.EARLIER[0])), None)
    if path is None:
        return
    if home.is_strange(home_path):
        hint = f"chown --reference={home_path} {path}"
        yield Finding(Level.WARNING, str(path), "does not belong to the owner of the home", hint)
    if os.path.lexists(path):
        from clouduploader.store import accounts

        try:
            found = len(accounts.AccountStore(home_path).accounts())
        except ClouduploaderError as exc:
            yield Finding(Level.FAILURE, str(path), exc.message, exc.hint)
        else:
            yield Finding(Level.OK, str(path), f"{found} account{'s' * (found != 1)}")


def _spool(path: Path) -> Iterator[Finding]:
    subject = str(path)
    if not path.is_dir():
        hint = "OBS makes it; on a machine without OBS make it yourself, or name another with --spool."
        yield Finding(Level.FAILURE, subject, "there is no spool", hint)
        return
    for directory in (path, path / "done"):
        if directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            hint = f"It must belong to the user that uploads ({_user()})."
            yield Finding(Level.FAILURE, str(directory), "can't be written", hint)
            return
    yield Finding(Level.OK, subject, "spool, can be written")


def _user() -> str:
    return f"uid {os.geteuid()}"
