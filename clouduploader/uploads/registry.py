"""Find and load the platform of a target: ours, and those that installed packages bring along.

A package offers a platform by an entry point in the group `clouduploader.platforms`: its name is
the target, its value a function that takes a `PlatformContext` and returns a `Platform`.

Two platforms of one name are an error in every command: otherwise the order of installation would
decide which one gets the credentials. To find that out for a built-in too, every call looks at the
installed packages; but importlib.metadata costs 30 ms of CPU (26 its import, 4 the look at 80
packages), a fifth of what a job may take up to its first request. So `_is_alone` first reads the
entry_points.txt files itself, in 2 ms, and only where one of them names a platform that is not
ours importlib.metadata is asked.
"""

import configparser
import contextlib
import importlib
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import clouduploader
from clouduploader.errors import ClouduploaderError, PluginLoadError, UnknownTargetError
from clouduploader.platforms import BUILT_INS
from clouduploader.plugin import HomeFile, Platform, PlatformContext

GROUP = "clouduploader.platforms"

_METADATA_ENDINGS = (".dist-info", "egg-info")  # the directories of importlib.metadata


class _Home(Protocol):
    @property
    def value(self) -> Path: ...


class SettingsReader(Protocol):
    """What is needed of `config.Config`."""

    @property
    def home(self) -> _Home:
        """The home of clouduploader."""

    @property
    def platforms(self) -> Mapping[str, Mapping[str, str]]:
        """The sections of the platforms by target."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables."""


class PlatformOffer(NamedTuple):
    """A package's word that it has a platform; nothing of it is loaded yet.

    Attributes:
        target: Which target it answers to.
        package: Name and version of the package.
        reference: `module:function` as in the entry point.
    """

    target: str
    package: str
    reference: str


def offers() -> list[PlatformOffer]:
    """Return all platforms there are, in the order of their names; one name may come up more than once."""
    own = f"clouduploader {clouduploader.__version__}"
    found = [PlatformOffer(target, own, reference) for target, reference in BUILT_INS.items()]
    return sorted(found if _is_alone() else [*found, *_foreign_offers()])


def names() -> list[str]:
    """Return the targets that a platform answers to, sorted."""
    return sorted({offer.target for offer in offers()})


def load(target: str, config: SettingsReader) -> Platform:
    """Make the platform that answers to a target. Imports that platform and no other.

    Raises:
        UnknownTargetError: There is none.
        PluginLoadError: It can't be imported or made, is no platform, or there are two.
        ClouduploaderError: What the platform itself raises, for example for wrong settings.
    """
    context = PlatformContext(
        home=config.home.value,
        settings=config.platforms.get(target, {}),
        environment=config.environment,
        target=target,
    )
    return _made(_offer(target), context)


def load_without_settings(target: str) -> Platform:
    """Make the platform that answers to a target for what does not depend on its settings, such as its fields.

    Raises:
        UnknownTargetError, PluginLoadError, ClouduploaderError: See `load`.
    """
    return _made(_offer(target), PlatformContext(home=Path(), settings={}, environment={}, target=target))


def home_files() -> Iterator[HomeFile]:
    """Name the files in the home that platforms read, of those platforms that can be loaded; never raises."""
    with contextlib.suppress(PluginLoadError):  # of a damaged package, which keeps all from being loaded
        for target in names():
            with contextlib.suppress(ClouduploaderError):
                yield from load_without_settings(target).files


def _offer(target: str) -> PlatformOffer:
    there = offers()
    candidates = [offer for offer in there if offer.target == target]
    if not candidates:
        import difflib

        known = sorted({offer.target for offer in there})
        near = difflib.get_close_matches(target, known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise UnknownTargetError(
            f"no platform answers to the target {target!r}; there are: {', '.join(known)}",
            hint=f"{meant}See `clouduploader platforms`.",
        )
    if len(candidates) > 1:
        packages = " and ".join(f"{offer.package} ({offer.reference})" for offer in candidates)
        raise PluginLoadError(
            f"more than one platform answers to the target '{target}': {packages}",
            hint="Uninstall what is not wanted.",
        )
    return candidates[0]


def _made(offer: PlatformOffer, context: PlatformContext) -> Platform:
    what = f"the platform '{offer.target}' of the package {offer.package} can't be loaded"
    try:
        module_name, _, attribute = offer.reference.partition(":")
        module = importlib.import_module(module_name)
        create: Callable[[PlatformContext], Platform] = operator.attrgetter(attribute)(module)
        platform = create(context)
    except ClouduploaderError:
        raise
    except (Exception, SystemExit) as exc:  # foreign code: it can fail in any way
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise PluginLoadError(f"{what}: {cause}", hint=f"Update or uninstall {offer.package}.") from exc
    if not isinstance(platform, Platform):
        found = type(platform).__name__
        raise PluginLoadError(
            f"{what}: {offer.reference} gives a {found}, not a clouduploader.plugin.Platform",
            hint=f"Update or uninstall {offer.package}.",
        )
    return platform


def _is_alone() -> bool:
    """Tell whether no installed package offers a platform but ours."""
    return all(_is_ours(path) for path in _entry_point_files())


def _entry_point_files() -> Iterator[Path]:
    """Return where importlib.metadata would look; an archive on the path is given too, as itself."""
    for place in dict.fromkeys(sys.path):
        try:
            with os.scandir(place or ".") as entries:
                for entry in entries:
                    if entry.name.lower().endswith(_METADATA_ENDINGS):
                        yield Path(entry.path, "entry_points.txt")
        except NotADirectoryError:
            yield Path(place)
        except OSError:
            continue  # a directory that is not there, or may not be read, holds no package


def _is_ours(path: Path) -> bool:
    """Tell whether this file offers no platform, or only what stands in BUILT_INS."""
    if path.name != "entry_points.txt":
        return False  # an archive: leave it to importlib.metadata
    try:
        data = path.read_bytes()
    except OSError:
        return True
    if GROUP.encode() not in data:
        return True
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case-sensitive
    try:
        parser.read_string(data.decode())
    except (configparser.Error, UnicodeDecodeError):
        return False
    return not parser.has_section(GROUP) or dict(parser.items(GROUP)).items() <= BUILT_INS.items()


def _foreign_offers() -> tuple[PlatformOffer, ...]:
    import importlib.metadata

    found, seen = [], set()
    for package in importlib.metadata.distributions():
        try:
            points = package.entry_points.select(group=GROUP)
            name, version = (package.name, package.version) if points else (None, None)
        except Exception as exc:
            said = " ".join(f"{type(exc).__name__}: {exc}".split())
            raise PluginLoadError(
                f"a package in {package.locate_file('')} is damaged: {said}",
                hint="Reinstall, or remove, what offers a platform for clouduploader there.",
            ) from exc
        if name in seen:
            continue  # hidden by the one before, of that name
        seen |= {name} - {None}
        for point in points:
            if BUILT_INS.get(point.name) != point.value:  # else our own package's
                found.append(PlatformOffer(point.name, f"{name} {version}", point.value.partition("[")[0].strip()))
    return tuple(found)
