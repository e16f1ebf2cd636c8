"""ARCHITECTURE.rst names every module; what it says of imports is checked by lint-imports (see bin/test)."""

import re
from pathlib import Path

import clouduploader

PACKAGE = Path(clouduploader.__file__).parent
PAGE = Path(__file__).parents[2] / "ARCHITECTURE.rst"


def test_map_names_every_module_and_no_other():
    named = re.findall(r"^ *- ``([a-z_0-9/]+(?:/|\.py))`` - \S", PAGE.read_text("utf-8"), re.MULTILINE)
    paths = [
        path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
    ]
    modules = [f"{path.parent}/" if path.stem == "__init__" else str(path) for path in paths]
    assert sorted(named) == sorted(modules)
