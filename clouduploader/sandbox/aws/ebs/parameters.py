"""Reads and checks what comes with a call."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from clouduploader.sandbox.aws.ebs.errors import invalid

MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 50, 127, 255  # API reference, StartSnapshot and Tag
MAX_DIGITS = 18  # more than any number here can have


def json_object(data: memoryview) -> dict[str, Any]:
    """Read the body of StartSnapshot."""
    try:
        parameters = json.loads(bytes(data))
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise invalid("The body is no JSON object.")
    return parameters


def text(parameters: Mapping[str, Any], key: str, limit: int, reason: str = "INVALID_PARAMETER_VALUE") -> str | None:
    """Return a text that may be absent, but not empty."""
    value = parameters.get(key)
    if value is None or (isinstance(value, str) and 0 < len(value) <= limit):
        return value
    raise invalid(f"{key} is no text of 1 to {limit} characters.", reason)


def integer(
    parameters: Mapping[str, Any], key: str, bounds: tuple[int, int], reason: str = "INVALID_PARAMETER_VALUE"
) -> int | None:
    """Return a number that may be absent."""
    value = parameters.get(key)
    if value is None:
        return None
    if type(value) is not int or not bounds[0] <= value <= bounds[1]:
        raise invalid(f"{key} is no number from {bounds[0]} to {bounds[1]}.", reason)
    return value


def decimal(
    headers: Mapping[str, str], key: str, bounds: tuple[int, int], reason: str = "INVALID_PARAMETER_VALUE"
) -> int | None:
    """Return a number that stands in a header, a query or a path, and may be absent."""
    given = headers.get(key)
    is_number = given is not None and given.isascii() and given.isdecimal() and len(given) <= MAX_DIGITS
    return integer({key: int(given) if given is not None and is_number else given}, key, bounds, reason)


def checksum(headers: Mapping[str, str]) -> bytes | None:
    """Return the digest that the headers name, if they name one."""
    encoded, algorithm = headers.get("x-amz-checksum"), headers.get("x-amz-checksum-algorithm")
    if encoded is None and algorithm is None:
        return None
    if algorithm != "SHA256":
        raise invalid("x-amz-Checksum-Algorithm is not SHA256.")
    try:
        digest = base64.b64decode(encoded or "", validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise invalid("x-amz-Checksum is no SHA-256 in base64.")
    return digest


def tags(given: object) -> dict[str, str]:
    """Check tags (the model's bounds; EC2 user guide, "Tag restrictions")."""
    if not isinstance(given, list) or len(given) > MAX_TAGS:
        raise invalid(f"More than {MAX_TAGS} tags, or no tags at all.", "INVALID_TAG")
    found: dict[str, str] = {}
    for tag in given:
        if not isinstance(tag, dict):
            raise invalid("A tag is no object.", "INVALID_TAG")
        key = text(tag, "Key", MAX_TAG_KEY, reason="INVALID_TAG") or ""
        value = text({"Value": tag.get("Value") or None}, "Value", MAX_TAG_VALUE, reason="INVALID_TAG") or ""
        if not key:
            raise invalid("A tag has no key.", "INVALID_TAG")
        if key in found or key.lower().startswith("aws:"):
            raise invalid(f"The tag key '{key}' is there twice, or reserved.", "INVALID_TAG")
        found[key] = value
    return found
