"""The JSON API, from the description that the server makes of it."""

from collections.abc import Iterator, Mapping
from typing import Any

import rst

from clouduploader.server.api import openapi, problems, table

DOCUMENT = openapi.describe(table.ROUTES)
SCHEMAS: Mapping[str, Any] = DOCUMENT["components"]["schemas"]

Node = Mapping[str, Any]


def routes() -> Iterator[str]:
    """Describe each path with its methods: who may ask, what is sent, what is answered."""
    for path, item in DOCUMENT["paths"].items():
        yield from rst.section(f"``{path}``")
        for method, operation in item.items():
            if method == "parameters":
                continue
            yield from (f"**{method.upper()}**: {rst.inline(operation['summary'])}", "")
            yield from (rst.inline(operation["description"]), "")
            parameters = [
                (rst.code(one["name"]), one["in"], _kind(one["schema"]), rst.inline(one["description"]))
                for one in operation.get("parameters", ())
            ]
            if parameters:
                yield from rst.table(("parameter", "in", "value", "what"), parameters, (18, 9, 28, 45))
            if "requestBody" in operation:
                yield from (f"Body: {_content(operation['requestBody'])}.", "")
            rows = [
                (status, _content(answer), rst.inline(answer["description"]))
                for status, answer in operation["responses"].items()
                if int(status) not in openapi.COMMON
            ]
            yield from rst.table(("status", "body", "what"), rows, (10, 45, 45))


def refusals() -> Iterator[str]:
    """List the statuses and codes of errors."""
    rows = [
        (str(status), rst.code(code), rst.inline(openapi.REFUSALS.get(status, "The method is none that there is.")))
        for status, code in problems.CODES.items()
    ]
    yield from rst.table(("status", "code", "what"), rows, (10, 25, 65))


def documents() -> Iterator[str]:
    """Describe the documents that are sent and answered."""
    for name, schema in SCHEMAS.items():
        yield from (f".. _api-{name.lower()}:", "")
        yield from rst.section(name, "~")
        yield from (rst.inline(schema.get("description", "").partition("\n")[0]), "")
        if "enum" in schema:
            yield from (f"One of {', '.join(rst.code(str(value)) for value in schema['enum'])}.", "")
            continue
        rows = [
            (rst.code(key), _kind(member), rst.inline(member.get("description", "")))
            for key, member in schema["properties"].items()
        ]
        if rows:
            yield from rst.table(("name", "value", "what"), rows, (20, 35, 45))


def _content(node: Node) -> str:
    """Say of which types a body is, and which document."""
    kinds = []
    for kind, content in node.get("content", {}).items():
        schema = content.get("schema", {})
        kinds.append(f"{rst.code(kind)} ({_kind(schema)})" if "$ref" in schema else rst.code(kind))
    return ", ".join(kinds)


def _kind(schema: Node) -> str:
    """Say what a value can be."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f":ref:`{name} <api-{name.lower()}>`"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"a list: {_kind(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"an object of {_kind(schema['additionalProperties'])}"
    return str({"date-time": "time, RFC 3339"}.get(schema.get("format", ""), schema.get("type", "any")))
