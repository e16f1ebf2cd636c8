"""What schemathesis has to know to hold the server against its description; test_openapi.py hands it over."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import schemathesis

from clouduploader.server import operations

DESCRIPTION = Path(operations.__file__).with_name("openapi.json")
SCHEMAS = json.loads(DESCRIPTION.read_text("utf-8"))["components"]["schemas"]
ROOTS = {schema["xml"]["name"]: schema for schema in SCHEMAS.values() if "xml" in schema}
EXCUSES = re.compile(
    "no such job|Not Found|.*[: ] No such file or directory|start out of range[: ] .*|job is not in created state"
    "|cannot do x-www-form-urlencoded with chunks"  # as an empty form is sent
)
"""What keeps the server from what it promises: whether there is such a job or byte, a description can't tell."""
FAILURES = {500: "No space left on device: the image has ", 501: "Bad method: ", 503: '"status": "failed"'}


@schemathesis.deserializer("text/xml")
def deserialize(_context, response):
    """Read XML as the `xml` of the schemas has it; what is none becomes a text, which no schema allows."""
    if not response.content:  # the answer to HEAD
        return None
    try:
        root = ET.fromstring(response.content)  # noqa: S314 it is ours
        return read(root, ROOTS[root.tag])
    except (ET.ParseError, KeyError, AssertionError) as exc:  # any error would end schemathesis's thread unnoticed
        return repr(exc)


def read(element, schema):
    if schema.get("type") == "object":
        return read_object(element, schema["properties"])
    assert not element.attrib
    if schema.get("type") == "array":
        item = resolve(schema["items"])
        assert {child.tag for child in element} <= {item["xml"]["name"]}
        return [read(child, item) for child in element]
    assert not len(element)
    return convert(element.text or "", schema)


def read_object(element, properties):
    found = {}
    for name, text in element.attrib.items():
        schema = resolve(properties[name])
        assert schema["xml"] == {"attribute": True}
        found[name] = convert(text, schema)
    for child in element:
        schema = resolve(properties[child.tag])
        if schema.get("type") == "array" and "xml" not in schema:
            found.setdefault(child.tag, []).append(read(child, resolve(schema["items"])))
        else:
            assert child.tag not in found
            found[child.tag] = read(child, schema)
    return found


def resolve(schema):
    return SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def convert(text, schema):
    return int(text) if schema.get("type") == "integer" and re.fullmatch("-?[0-9]{1,18}", text) else text


@schemathesis.check
def failures_are_no_fault(_context, response, _case):
    if response.status_code >= 500 and response.content:
        assert FAILURES[response.status_code] in response.text


@schemathesis.check
def promises_are_kept(_context, response, case):
    if response.status_code // 100 == 4 and case.meta.generation.mode.is_positive and is_promised(case):
        assert EXCUSES.fullmatch(response.message), response.message


def is_promised(case):
    """Return whether a request is one that the description means: it can't say that some parts exclude each other."""
    if case.operation.label == "POST /cloudupload":
        return case.media_type == "text/xml" and not case.query
    if case.operation.label == "POST /cloudupload/{job}":
        return len(case.query) + (len(case.body) if isinstance(case.body, dict) else 0) < 2
    return True
