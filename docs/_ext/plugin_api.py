"""The plugin API: what its packages offer, and the names by which its docstrings speak of each other."""

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import rst
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation

from clouduploader.plugin import JsonValue

JSON_VALUE = stringify_annotation(JsonValue)
EVERYWHERE = {*sys.stdlib_module_names, *dir(builtins)}


def package(name: str) -> Iterator[str]:
    """Document what a package offers, by the modules that it comes from."""
    found = importlib.import_module(name)
    yield from (f".. currentmodule:: {name}", "")
    imports = [
        node
        for node in ast.parse(Path(str(found.__file__)).read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(name)
    ]
    imports.sort(key=lambda node: node.module != "clouduploader.plugin.platform")  # what all else is for
    for node in imports:
        summary = (importlib.import_module(str(node.module)).__doc__ or "").partition("\n")[0]
        yield from rst.section(rst.inline(summary.removesuffix(".")), "~")
        for alias in node.names:
            offered = getattr(found, alias.name)
            kind = "class" if isinstance(offered, type) else "function" if callable(offered) else "data"
            yield f".. auto{kind}:: {alias.name}"
            yield from ("   :members:", "") if kind == "class" else ("",)


def show_indented_code(*arguments: object) -> None:
    """Make code of what a docstring sets in behind a colon; its lines are the last argument of Sphinx's event."""
    lines = cast(list[str], arguments[-1])
    text = re.sub(r"(?<=[^:\s]):(?=\n\n {4}\S)", "::", "\n".join(lines))
    lines[:] = text.splitlines()


def shorten_signature(*arguments: object) -> tuple[str, str] | None:
    """Call JSON values by their name, and leave out what no protocol is made with.

    Signature and return type are the last arguments of Sphinx's event.
    """
    signature, returned = arguments[-2:]
    if not isinstance(signature, str):  # of what can't be called
        return None
    text = signature.replace(JSON_VALUE, "JsonValue")
    return ("" if text == "(*args, **kwargs)" else text), str(returned or "").replace(JSON_VALUE, "JsonValue")


def resolve_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Node | None:
    """Link a name that stands without its module; leave a name of Python's own as it is, without a link."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if target.partition(".")[0] in EVERYWHERE:
        return text
    domain = env.domains.python_domain
    found = domain.find_obj(env, "", "", target, None, 1)
    if len({entry.node_id for _, entry in found}) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)
