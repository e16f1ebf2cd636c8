"""A decorator for immutable classes of values, as `dataclasses.dataclass(frozen=True)` makes them, but quick to define.

`dataclasses.dataclass(frozen=True)` compiles six methods for each class, half a millisecond; the sixty classes on the
way to the first request of an upload took a tenth of its time. Here only `__init__` is made, and the others are
shared. All else is as with a frozen dataclass: `dataclasses.field`, `fields`, `replace` and `asdict`, `match`, and
what mypy says.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

Made = TypeVar("Made")


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(*, kw_only: bool = False) -> Callable[[type[Made]], type[Made]]:
    """Make a class immutable and compared by its fields; these are its annotations.

    Args:
        kw_only: Whether its fields are given by name only.
    """

    def made(cls: type[Made]) -> type[Made]:
        for name, method in _METHODS.items():
            if name not in vars(cls):
                setattr(cls, name, method)
        return dataclasses.dataclass(repr=False, eq=False, kw_only=kw_only)(cls)

    return made


def _set_once(self: Any, name: str, content: object) -> None:  # noqa: ANN401 any value
    if name in (fields := self.__dict__):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    fields[name] = content


def _never_delete(_self: object, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _compared(self: Any) -> tuple[object, ...]:  # noqa: ANN401
    return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.compare)


def _equals(self: Any, other: object) -> bool:  # noqa: ANN401
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: object) -> int:
    return hash(_compared(self))


def _shown(self: Any) -> str:  # noqa: ANN401
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


_METHODS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "__setattr__": _set_once,
        "__delattr__": _never_delete,
        "__eq__": _equals,
        "__hash__": _hash,
        "__repr__": _shown,
    }
)
