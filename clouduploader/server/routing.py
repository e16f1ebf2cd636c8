"""Find the route of a request as OBS's dispatcher does (BSDispatch.pm), with its checks and messages."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from clouduploader.server.access import Right
from clouduploader.server.replies import RefusalError
from clouduploader.util.frozen import frozen

Handler = TypeVar("Handler")

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")  # all others are refused by BSServer.pm
READING = ("GET", "HEAD")
USUAL = (*READING, "POST")  # of a route without a method; OBS makes no difference between them
LARGEST = 2**63 - 1  # no file has more bytes
MAX_PARAMETERS = 20_000  # as many jobs by name fit into a request's first line
_NUMBER = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"-?[0-9]+")
_BAD_NAME = re.compile(r"[/\x00-\x1f]|\A\.")

Check = Callable[[str, str], None]


def to_integer(text: str) -> int:
    """Return the value of a checked number, cut to LARGEST: Python refuses to parse very long ones."""
    digits = text.lstrip("-").lstrip("0")
    value = int(digits or "0") if len(digits) < len(str(LARGEST)) else LARGEST
    return -value if text.startswith("-") else value


def check_number(_name: str, value: str) -> None:
    """Refuse what is not all digits."""
    _check_pattern(value, _NUMBER)


def check_integer(_name: str, value: str) -> None:
    """Refuse what is not all digits, with or without a minus."""
    _check_pattern(value, _INTEGER)


def check_boolean(_name: str, value: str) -> None:
    """Refuse what is neither 0 nor 1."""
    if value not in ("0", "1"):
        raise RefusalError("not boolean")


def check_job(_name: str, value: str) -> None:
    """Refuse a name that no file of the spool can have; a job whose name is no number is just not there."""
    if not value:
        raise RefusalError("jobid is empty")
    if _BAD_NAME.search(value):
        raise RefusalError(f"jobid '{value}' is illegal")


def check_filled(name: str, value: str) -> None:
    """Refuse an empty value."""
    if not value:
        raise RefusalError(f"{name} is empty")


def check_nothing(_name: str, _value: str) -> None:
    """Take any value."""


def _check_pattern(value: str, pattern: re.Pattern[str]) -> None:
    if not value:
        raise RefusalError("number is empty")
    if not pattern.fullmatch(value):
        raise RefusalError(f"not a number: '{value}'")


@frozen(kw_only=True)
class Parameter:
    """A parameter that a query may have.

    Attributes:
        name: Its name.
        check: Called with the name and each value, raises RefusalError.
        is_multiple: Whether it may be there more than once; the same value counts once.
        is_required: Whether it must be there.
    """

    name: str
    check: Check = check_nothing
    is_multiple: bool = False
    is_required: bool = False


@frozen(kw_only=True)
class Route(Generic[Handler]):
    """A route.

    Attributes:
        path: With `$job` for a job's name, and `$` and other names for other parts of it.
        handler: Answers.
        right: Who asks needs it; what it reaches is checked for `$job` before the handler is called.
        methods: Of the requests that it answers.
        parameters: Known in its query; others are refused.
        is_polled: Whether programs poll it, so that requests that succeed are not logged.
        takes_all: Whether parameters that are not known are passed over, as OAuth wants it (RFC 6749, 4.1.2).
        selector: Parameters that the query must have, once each: with this value, or with any if it is None.
    """

    path: str
    handler: Handler
    right: Right
    methods: Collection[str] = USUAL
    parameters: Sequence[Parameter] = ()
    is_polled: bool = False
    takes_all: bool = False
    selector: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    def match(self, path: str) -> re.Match[str] | None:
        """Match a path, decoded."""
        return re.fullmatch(re.sub(r"\\\$(\w+)", r"(?P<\1>[^/]*)", re.escape(self.path)), path, re.DOTALL)

    def is_selected(self, query: Mapping[str, Sequence[str]]) -> bool:
        """Return whether the query, values by name, has what the selector asks for."""
        found = [query.get(name, ()) for name in self.selector]
        wanted = self.selector.values()
        return all(len(values) == 1 and want in (None, values[0]) for values, want in zip(found, wanted, strict=True))


@frozen()
class RouteMatch(Generic[Handler]):
    """A route, and what the request says.

    Attributes:
        handler: Answers.
        right: See `Route`.
        job: The job's name, checked; "" on a route without.
        parts: What the path has for the names of the route's, `job` among them, unchecked.
        values: The query's values by name; of a name that is not in the query, none.
        is_polled: See `Route`.
    """

    handler: Handler
    right: Right
    job: str
    parts: Mapping[str, str]
    values: Mapping[str, Sequence[str]]
    is_polled: bool

    def value(self, name: str) -> str | None:
        """Return the only value of a parameter; None if it is not there."""
        values = self.values.get(name)
        return values[0] if values else None


def split_target(target: str) -> tuple[str, str]:
    """Split a request's target into path and query.

    Args:
        target: As on the wire; bytes that are not UTF-8 as surrogates.

    Returns:
        The path, decoded, and the query as it came.

    Raises:
        RefusalError: One of them is not UTF-8, or the path not absolute.
    """
    raw_path, _, query = target.partition("?")
    path = _decode(raw_path, "path is not utf-8")
    if not path.startswith("/"):
        raise RefusalError("invalid path", status=501, is_coded=True)
    _decode(query, "query string is not utf-8")
    return path, query


def parse_query(query: str) -> dict[str, list[str]]:
    """Parse a query into the values of each name. One without a value has the value 1, as OBS assumes.

    Raises:
        RefusalError: There are more than MAX_PARAMETERS, or they are not UTF-8.
    """
    if query.count("&") > MAX_PARAMETERS:
        raise RefusalError(f"the query has more than {MAX_PARAMETERS} parameters")
    found: dict[str, list[str]] = {}
    for piece in query.split("&"):
        name, equals, value = piece.partition("=")
        if name:
            decoded = _decode(value.replace("+", " "), "query string is not utf-8") if equals else "1"
            found.setdefault(_decode(name.replace("+", " "), "query string is not utf-8"), []).append(decoded)
    return found


def find(routes: Sequence[Route[Handler]], method: str, path: str, query: str) -> RouteMatch[Handler]:
    """Find the route of a request, and check its parameters.

    Args:
        routes: The first that fits is taken.
        method: One of METHODS.
        path: Decoded.
        query: As it came.

    Raises:
        RefusalError: There is none, or it does not take this query.
    """
    stripped = path.rstrip("/") if path != "/" else path
    given = parse_query(query)
    for route in routes:
        match = route.match(stripped) if method in route.methods else None
        if match and route.is_selected(given):
            parts = match.groupdict()
            job = parts.get("job")
            values = _values(route, given)
            if job is not None:
                check_job("job", job)
            _check(route, values)
            return RouteMatch(route.handler, route.right, job or "", parts, values, route.is_polled)
    raise RefusalError(f"unknown request: {method}:{path}", is_coded=True)


def _values(route: Route[Handler], given: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the values of what a route knows, each once."""
    known = {parameter.name: parameter for parameter in route.parameters}
    for name, values in given.items():
        if name in known and len(values) > 1 and not known[name].is_multiple:
            raise RefusalError(f"parameter '{name}' set multiple times")
    if not route.takes_all and (unknown := sorted(given.keys() - known.keys())):
        names = "', '".join(unknown)
        raise RefusalError(f"unknown parameter '{names}'")
    return {name: list(dict.fromkeys(values)) for name, values in given.items()}


def _check(route: Route[Handler], values: Mapping[str, Sequence[str]]) -> None:
    for parameter in route.parameters:
        if parameter.is_required and parameter.name not in values:
            raise RefusalError(f"parameter '{parameter.name}' is missing")
        for value in values.get(parameter.name, ()):
            parameter.check(parameter.name, value)


def _decode(text: str, complaint: str) -> str:
    if "%" not in text and text.isascii():
        return text  # nearly all are, and there may be thousands
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeError as exc:
        raise RefusalError(complaint, status=400, is_coded=True) from exc
