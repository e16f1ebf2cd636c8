"""The HTTP API, from the server's own description of it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rst

import clouduploader.server

PATH = Path(clouduploader.server.__file__).with_name("openapi.json")
DOCUMENT = json.loads(PATH.read_text("utf-8"))
METHODS = ("get", "head", "post", "put")

Node = Mapping[str, Any]


def routes() -> Iterator[str]:
    """Describe each path: its methods, parameters and answers; first the answers that all of them have."""
    operations = [item[method] for item in DOCUMENT["paths"].values() for method in METHODS if method in item]
    first, *others = (set(map(_answer, operation["responses"].items())) for operation in operations)
    common = first.intersection(*others)
    yield from ("Every route may give one of these answers:", "")
    yield from _answers(common)
    for path, item in DOCUMENT["paths"].items():
        yield from rst.section(f"``{path}``")
        yield from _parameters(item.get("parameters", ()))
        for methods, operation in _merged(item):
            yield from (f"**{', '.join(methods).upper()}**: {rst.inline(operation['summary'])}", "")
            yield from (rst.inline(operation.get("description", "")), "")
            yield from _parameters(operation.get("parameters", ()))
            yield from _body(operation.get("requestBody"))
            yield from _answers(set(map(_answer, operation["responses"].items())) - common)


def documents() -> Iterator[str]:
    """Describe the documents that are sent and answered, by their names in the tables of the routes."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        element = schema.get("xml", {}).get("name")
        if schema.get("type") not in ("object", "array"):
            continue
        yield from (f".. _document-{name.lower()}:", "")
        yield from rst.section(name, "~")
        yield from (f"The XML element {rst.code(element)}." if element else "An object in JSON.", "")
        if schema["type"] == "array":
            yield from (f"Holds {_kind(schema)}.", "")
            continue
        rows = [
            (rst.code(key), _kind(member) + (", an attribute" if member.get("xml", {}).get("attribute") else ""),
             "yes" if key in schema.get("required", ()) else "", rst.inline(_resolved(member).get("description", "")))
            for key, member in schema.get("properties", {}).items()
        ]  # fmt: skip
        yield from rst.table(("name", "value", "always", "what"), rows, (20, 35, 10, 35))


def _merged(item: Node) -> list[tuple[list[str], Node]]:
    """Return the operations of a path, those together that differ in their method alone."""
    merged: list[tuple[list[str], Node]] = []
    for method in METHODS:
        if method not in item:
            continue
        operation = {key: value for key, value in item[method].items() if key != "operationId"}
        if merged and merged[-1][1] == operation:
            merged[-1][0].append(method)
        else:
            merged.append(([method], operation))
    return merged


def _parameters(parameters: list[Node]) -> Iterator[str]:
    if parameters:
        found = [_resolved(parameter) for parameter in parameters]
        rows = [
            (rst.code(one["name"]), one["in"], _kind(one["schema"]), rst.inline(one.get("description", "")))
            for one in found
        ]
        yield from rst.table(("parameter", "in", "value", "what"), rows, (15, 10, 30, 45))


def _body(body: Node | None) -> Iterator[str]:
    if body:
        kinds = " or ".join(f"{rst.code(kind)}{_named(content)}" for kind, content in body["content"].items())
        yield from (f"Body: {kinds}. {rst.inline(body.get('description', ''))}", "")


def _answers(answers: set[tuple[str, str]]) -> Iterator[str]:
    rows = []
    for status, reference in sorted(answers):
        answer = _resolved({"$ref": reference})
        kinds = ", ".join(f"{rst.code(kind)}{_named(content)}" for kind, content in answer.get("content", {}).items())
        rows.append((status, kinds, rst.inline(answer["description"])))
    yield from rst.table(("status", "body", "what"), rows, (10, 40, 50))


def _answer(item: tuple[str, Node]) -> tuple[str, str]:
    status, response = item
    return status, response["$ref"]


def _named(content: Node) -> str:
    """Return the names of the documents that a body is, behind a blank."""
    schema = content.get("schema", {})
    names = [_name(one) for one in schema.get("anyOf", [schema]) if "$ref" in one]
    return f" ({' or '.join(names)})" if names else ""


def _name(node: Node) -> str:
    """Return the name of a document, as a link."""
    name = str(node["$ref"]).rpartition("/")[2]
    return f":ref:`{name} <document-{name.lower()}>`"


def _resolved(node: Node) -> Node:
    """Return what a reference points to; what is none, as it is."""
    if "$ref" not in node:
        return node
    found: Any = DOCUMENT
    for key in node["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found  # type: ignore[no-any-return]


def _kind(schema: Node) -> str:
    """Say what a value can be."""
    if schema.get("type") == "array":
        return f"a list: {_kind(schema['items'])}"
    found = _resolved(schema)
    if "$ref" in schema and found.get("type") in ("object", "array"):
        return _name(schema)
    if "const" in found:
        return rst.code(str(found["const"]))
    if "enum" in found:
        return ", ".join(rst.code(str(value)) for value in found["enum"])
    if "pattern" in found and "description" not in found:  # which says it better
        return f"string like {rst.code(found['pattern'])}"
    kind = found.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
