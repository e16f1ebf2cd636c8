"""Classes of values: held against frozen dataclasses of the standard library."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import pytest

from clouduploader.util.frozen import frozen


@frozen()
class Point:
    """A value."""

    x: int
    y: int = 2
    note: str = dataclasses.field(default="", compare=False)
    secret: str = dataclasses.field(default="", repr=False)


@frozen(kw_only=True)
class Labelled(Point):
    """A value with more."""

    label: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a Point would be."""

    x: int
    y: int = 2
    note: str = dataclasses.field(default="", compare=False)
    secret: str = dataclasses.field(default="", repr=False)


@pytest.mark.parametrize("fields", [{"x": 1}, {"x": 1, "y": 3, "note": "n", "secret": "s"}])
def test_a_value_is_shown_hashed_and_taken_apart_as_a_dataclass(fields: dict[str, Any]) -> None:
    ours, theirs = Point(**fields), Reference(**fields)
    assert repr(ours) == repr(theirs).replace("Reference", "Point")
    assert hash(ours) == hash(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert Point.__match_args__ == Reference.__match_args__


@pytest.mark.parametrize(
    ("other", "is_equal"),
    [
        (Point(1), True),
        (Point(1, note="of no weight"), True),
        (Point(1, 3), False),
        (Point(1, secret="s"), False),
        (Labelled(x=1, label=""), False),
        (Reference(1), False),
        ((1, 2, "", ""), False),
    ],
)
def test_values_are_equal_if_class_and_compared_fields_are(other: Hashable, is_equal: bool) -> None:
    assert (Point(1) == other) is is_equal
    assert (other in {Point(1)}) is is_equal


def test_a_value_never_changes() -> None:
    point = Labelled(x=1, label="a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="'label'"):
        del point.label
    assert dataclasses.replace(point, x=2) == Labelled(x=2, label="a")


def test_fields_that_are_missing_or_unknown_are_refused() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'label'"):
        Labelled(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=3)  # type: ignore[call-arg]
