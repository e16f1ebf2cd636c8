"""What IAM says to a call: policies with conditions, permissions boundaries and policies of sessions.

Sources: IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements: Condition operators" and "Multivalued
context keys". What is not known here is an error: a condition that is passed over would be a right too many.
"""

import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from clouduploader.util.frozen import frozen

Context = Mapping[str, str | tuple[str, ...]]
"""Keys of conditions in lower case, with what they have in a call; those that it does not have are absent."""

STATEMENT_KEYS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
SETS = {"ForAllValues": all, "ForAnyValue": any}


class PolicyError(ValueError):
    """A policy is wrong, or has what the sandbox does not know; says what."""


def like(pattern: str, text: str) -> bool:
    """Match as IAM does: `*` is anything, `?` one character."""
    return _pattern(pattern).fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


OPERATORS: Mapping[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (str.__eq__, True),
    "StringNotEquals": (str.__eq__, False),
    "StringLike": (like, True),
    "StringNotLike": (like, False),
    "Bool": (lambda wanted, found: wanted.lower() == found.lower(), True),
}
"""How what a policy wants is compared with what a call has, and whether one of the wanted must be met, or none."""


@frozen()
class Request:
    """One question to IAM: may this be done to that?

    Attributes:
        action: For example `ec2:DeleteSnapshot`.
        resource: An ARN, or `*`.
        context: See Context.
    """

    action: str
    resource: str
    context: Context


@frozen()
class Rights:
    """What a principal may do.

    Attributes:
        policies: Of the user or role; JSON.
        boundary: Its permissions boundary; None for none.
        session: The policy of the session; None for none.
    """

    policies: Collection[str]
    boundary: str | None = None
    session: str | None = None

    def allow(self, request: Request) -> bool:
        """Tell whether all kinds of policies that there are allow it, and no policy denies it.

        Raises:
            PolicyError: A policy can't be evaluated.
        """
        kinds = [self.policies, *([one] for one in (self.boundary, self.session) if one is not None)]
        verdicts = [{effect for document in kind for effect in _effects(document, request)} for kind in kinds]
        return all(effects == {"Allow"} for effects in verdicts)


def check(document: str) -> None:
    """Refuse a policy that can't be evaluated.

    Raises:
        PolicyError: It is no policy, or has what is not known here.
    """
    for statement in _statements(document):
        for operator, keys in statement.get("Condition", {}).items():
            for key, wanted in keys.items():
                _is_met(operator, key, wanted, {})


def is_met(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    """Tell whether all conditions of a statement are met.

    Raises:
        PolicyError: One is not known here.
    """
    return all(
        _is_met(operator, key, wanted, context) for operator, keys in conditions.items() for key, wanted in keys.items()
    )


def listed(value: Any) -> list[Any]:  # noqa: ANN401 whatever JSON has there
    """Return a list: in a policy one of a kind can stand alone."""
    return value if isinstance(value, list) else [value]


def _effects(document: str, request: Request) -> Iterable[str]:
    for statement in _statements(document):
        if not _names(statement, "Action", request.action, ignore_case=True):
            continue
        if _names(statement, "Resource", request.resource) and is_met(statement.get("Condition", {}), request.context):
            yield statement["Effect"]


def _names(statement: Mapping[str, Any], element: str, value: str, *, ignore_case: bool = False) -> bool:
    is_negated = f"Not{element}" in statement
    patterns = listed(statement[f"Not{element}" if is_negated else element])
    if ignore_case:
        value, patterns = value.lower(), [pattern.lower() for pattern in patterns]
    return any(like(pattern, value) for pattern in patterns) != is_negated


@functools.lru_cache(maxsize=256)
def _statements(document: str) -> list[dict[str, Any]]:
    try:
        found = listed(json.loads(document)["Statement"])
    except (ValueError, TypeError, KeyError) as exc:
        raise PolicyError(f"no policy: {document[:60]}") from exc
    for statement in found:
        if not isinstance(statement, dict) or statement.keys() - STATEMENT_KEYS:
            raise PolicyError(f"a statement of unknown elements: {statement}")
        if statement.get("Effect") not in ("Allow", "Deny"):
            raise PolicyError(f"a statement that neither allows nor denies: {statement}")
        for element in ("Action", "Resource"):
            if (element in statement) == (f"Not{element}" in statement):
                raise PolicyError(f"a statement without {element}: {statement}")
    return found


def _is_met(operator: str, key: str, wanted: Any, context: Context) -> bool:  # noqa: ANN401 JSON
    words = [str(word).lower() if isinstance(word, bool) else str(word) for word in listed(wanted)]
    found = context.get(key.lower())
    if operator == "Null":
        return words == [str(found is None).lower()]
    quantifier, _, name = operator.rpartition(":")
    if name not in OPERATORS or (quantifier and quantifier not in SETS):
        raise PolicyError(f"the sandbox does not know the operator {operator} of conditions")
    compare, is_positive = OPERATORS[name]
    values = () if found is None else (found,) if isinstance(found, str) else found
    if not quantifier and len(values) > 1:
        raise PolicyError(f"{key} has several values, and {operator} is for one")
    met = [any(compare(word, value) for word in words) == is_positive for value in values]
    if quantifier:
        return SETS[quantifier](met)
    return met[0] if met else not is_positive
