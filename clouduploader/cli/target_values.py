"""Target data from options and files, checked by the rules of their platform, in the words of the command line."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from clouduploader.cli import parsing
from clouduploader.errors import TargetDataError, UsageError
from clouduploader.plugin import Field, FieldKind, JsonValue, Platform
from clouduploader.plugin.fields import is_allowed, problem
from clouduploader.store import target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry


def gather(config: Config, target: str, path: Path | None, given: Mapping[str, JsonValue]) -> bytes:
    """Make target data: those of a file, options on top, and what only the caller's environment tells.

    Args:
        config: See Config.
        target: Names the platform.
        path: The file, or None.
        given: Values from options by the names of their fields.

    Returns:
        JSON, or the file as it is if it is encrypted as a whole.

    Raises:
        UsageError: An option is missing; or there are options, but the file is encrypted as a whole.
        TargetDataError: An option has a wrong value, or the file holds no JSON object.
        MissingFileError, LocalIOError: The file can't be read.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    platform = registry.load(target, config)
    problems = _problems(platform, given)
    document: dict[str, JsonValue] = {}
    if path is not None:
        data = target_data.read_file(path)
        if target_data.is_armored(data.decode("utf-8", "replace")):
            if given:
                raise UsageError(f"{path} is encrypted as a whole, so options can't add to it")
            return data
        try:
            document = target_data.parse(data)
        except TargetDataError as exc:
            raise TargetDataError(f"{path}: {exc.message}", hint=exc.hint) from None
    document = {**document, **given}
    missing = []
    for field in platform.fields:
        if field.is_required and field.option_name() and not document.get(field.name):
            found = parsing.hints(platform).default(field.name)
            if found:
                document[field.name] = found
            else:
                missing.append(f"{field.option_name()} is missing")
    if missing:
        raise UsageError("; ".join([*missing, *problems]))
    if path is None and not problems:
        problems = [_with_option_name(platform, text) for text in platform.problems(document)]
    if problems:
        raise TargetDataError("; ".join(problems))
    return json.dumps(document).encode()


def unknown_values(config: Config, target: str, document: Mapping[str, JsonValue]) -> list[str]:
    """Say which values the platform's software does not know, a region say: they are new, or misspelt.

    Args:
        config: See Config.
        target: Names the platform.
        document: Target data, right or wrong.

    Raises:
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    platform = registry.load(target, config)
    found = []
    for field in platform.fields:
        value = document.get(field.name)
        if not value or field.allowed or field.is_secret:
            continue
        known = parsing.hints(platform).choices(field.name)
        for word in value if isinstance(value, list) else [value]:
            if known and isinstance(word, str) and word not in known:
                near = parsing.nearest(word, known)
                meant = f" (did you mean {near}?)" if near else ""
                found.append(f'{field.option_name() or field.name} is "{word}", which is not known here{meant}')
    return found


def has_unknown_values(config: Config, target: str, data: bytes) -> bool:
    """Tell whether target data, as of `gather`, have such values; data that are encrypted as a whole are not read.

    Raises:
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    if target_data.is_armored(data.decode("utf-8", "replace")):
        return False
    return bool(unknown_values(config, target, target_data.parse(data)))


def check_given(config: Config, target: str, given: Mapping[str, JsonValue]) -> None:
    """Check what options say by themselves, for a command that takes some of a platform's.

    Raises:
        TargetDataError: A value is wrong.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    problems = _problems(registry.load(target, config), given)
    if problems:
        raise TargetDataError("; ".join(problems))


def is_setting(platform: Platform, field: Field) -> bool:
    """Tell whether a field has its default in the platform's settings."""
    return field.name in platform.settings_defaults


def with_settings(config: Config, target: str, given: Mapping[str, JsonValue]) -> Config:
    """Put values of fields that have a setting into the section of their platform.

    Raises:
        TargetDataError: A value is wrong.
        UnknownTargetError, PluginLoadError, ConfigError: There is no such platform.
    """
    check_given(config, target, given)
    section = {**config.platforms.get(target, {}), **{name: str(value) for name, value in given.items()}}
    return dataclasses.replace(config, platforms={**config.platforms, target: section})


def _problems(platform: Platform, given: Mapping[str, JsonValue]) -> list[str]:
    fields = {field.name: field for field in platform.fields}
    return [text for name, value in given.items() for text in _value_problems(platform, fields[name], value)]


def _value_problems(platform: Platform, field: Field, value: JsonValue) -> Iterator[str]:
    """Say what is wrong with an option by itself, and what may have been meant."""
    kind = FieldKind.STRING if field.kind is FieldKind.ARRAY else field.kind
    one = dataclasses.replace(field, name=field.option_name(), kind=kind)
    for word in value if isinstance(value, list) else [value]:
        if not is_allowed(one, word):
            near = parsing.nearest(str(word), parsing.choices(platform, field.name))
            meant = f" (did you mean {near}?)" if near and not field.is_secret else ""
            yield problem(one, word, is_hidden=field.is_secret) + meant


def _with_option_name(platform: Platform, text: str) -> str:
    """Put what a platform says of a field into the words of the command line."""
    options = {field.name: field.option_name() or field.name for field in platform.fields}
    words = text.split(" ")
    front = list(itertools.takewhile(lambda word: word in (*options, "and", "or"), words))
    return " ".join([*(options.get(word, word) for word in front), *words[len(front) :]])
