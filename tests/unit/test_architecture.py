"""ARCHITECTURE.rst names every layer, and no cloud is known outside of its package.

What it says of imports is checked by lint-imports (see bin/test).
"""

import ast
import configparser
import re
from pathlib import Path

import clouduploader

PACKAGE = Path(clouduploader.__file__).parent
TOP = Path(__file__).parents[2]
PAGE = (TOP / "ARCHITECTURE.rst").read_text("utf-8")
WORDS_OF_AMAZON = re.compile(
    r"(?<![a-z])(?:amazon|amis?|arns?|aws|boto[a-z0-9]*|ebs|ec2[a-z]*|external.id|iam|kms|us-east|xen)(?![a-z])",
    re.IGNORECASE,
)
HOMES_OF_AMAZON = ("platforms/ec2/", "sandbox/aws/", "platforms/gce/", "sandbox/gce/")  # Google says IAM too
MAY_NAME_CLOUDS = {
    "cluster/dispatch/object_store.py": "speaks S3 by the SDK of AWS, which other stores speak too",
    "platforms/__init__.py": "lists our platforms",
    "plugin/testing/contract.py": "lists SDKs that are slow to import",
    "sandbox/registry.py": "lists the clouds of sandboxes",
}
TEXTS = (".css", ".html", ".js", ".json", ".py")


def layers():
    """The packages on each layer, from the top, as lint-imports has them."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    lines = setup["importlinter:contract:layers"]["layers"].split("\n")
    return [line.split(" | ") for line in lines if line]


def test_diagram_has_the_layers_in_their_order():
    diagram = PAGE[PAGE.index("┌") : PAGE.index("└")]
    rows = [re.findall(r"│ ([a-z]+)\b", row) for row in re.split(r"├.*┤\n", diagram)]
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {"errors"}
    assert [[name for name in row if name in packages] for row in rows] == layers()


def test_every_layer_is_described():
    described = {
        name for line in re.findall(r"^- ``.*$", PAGE, re.MULTILINE) for name in re.findall(r"``([a-z]+)/``", line)
    }
    assert described >= {name for row in layers() for name in row} - {"errors"}  # which has a section of its own


def test_modules_that_are_named_exist():
    named = re.findall(r"``((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.(?:py|rst))?)``", PAGE)
    assert len(named) > 30
    assert [name for name in named if not any((root / name).exists() for root in (PACKAGE, TOP))] == []


def test_every_module_says_what_it_does():
    docstrings = {path: ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in PACKAGE.rglob("*.py")}
    is_sentence = re.compile(r"[^\n].*(\n.+)*[.:](\n\n|$)").match
    assert [path for path, text in docstrings.items() if not is_sentence(text)] == []


def test_core_knows_no_cloud():
    found = []
    for path in PACKAGE.rglob("*"):
        name = path.relative_to(PACKAGE).as_posix()
        if path.suffix in TEXTS and not name.startswith(HOMES_OF_AMAZON) and name not in MAY_NAME_CLOUDS:
            lines = path.read_text("utf-8").splitlines()
            found += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if WORDS_OF_AMAZON.search(line)]
    assert found == []


def test_exceptions_are_needed():
    for name in MAY_NAME_CLOUDS:
        assert WORDS_OF_AMAZON.search((PACKAGE / name).read_text("utf-8")), name
