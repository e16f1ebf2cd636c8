"""ARCHITECTURE.rst names every module, and no cloud is known outside of its package.

What it says of imports is checked by lint-imports (see bin/test).
"""

import re
from pathlib import Path

import clouduploader

PACKAGE = Path(clouduploader.__file__).parent
PAGE = Path(__file__).parents[2] / "ARCHITECTURE.rst"
WORDS_OF_AMAZON = re.compile(
    r"(?<![a-z])(?:amazon|amis?|arns?|aws|boto[a-z0-9]*|ebs|ec2[a-z]*|external.id|iam|kms|us-east|xen)(?![a-z])",
    re.IGNORECASE,
)
HOMES_OF_AMAZON = ("platforms/ec2/", "sandbox/aws/")
MAY_NAME_CLOUDS = {
    "platforms/__init__.py": "lists our platforms",
    "plugin/testing/contract.py": "lists SDKs that are slow to import",
    "sandbox/registry.py": "lists the clouds of sandboxes",
}
TEXTS = (".css", ".html", ".js", ".json", ".py")


def test_map_names_every_module_and_no_other():
    named = re.findall(r"^ *- ``([a-z_0-9/]+(?:/|\.py))`` - \S", PAGE.read_text("utf-8"), re.MULTILINE)
    paths = [
        path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
    ]
    modules = [f"{path.parent}/" if path.stem == "__init__" else str(path) for path in paths]
    assert sorted(named) == sorted(modules)


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
