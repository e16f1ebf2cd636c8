"""Look whether everything is in place for a first upload to OpenStack."""

from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import ClouduploaderError
from clouduploader.platforms.openstack import accounts, cloud
from clouduploader.plugin import Context, Finding, Level


def run(ctx: Context, home: Path) -> Iterator[Finding]:
    """Look whether all is in place; see `Platform.check`.

    Args:
        ctx: With target data or without.
        home: Of clouduploader.
    """
    path = str(home / cloud.CLOUDS_FILE)
    try:
        clouds = cloud.clouds_of_home(home)
        listed = ", ".join(f"{name} ({one.auth_url})" for name, one in clouds.items())
        yield Finding(Level.OK, path, f"clouds: {listed or 'none'}")
        if ctx.targetdata:
            yield from accounts.examine(ctx)
    except ClouduploaderError as exc:
        yield Finding(Level.FAILURE, "the cloud", exc.message, exc.hint)
