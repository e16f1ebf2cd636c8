"""The plan of the house, as ARCHITECTURE.rst draws it: imports go down, and each tool has one room."""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

import clouduploader

FLOORS = (
    {"errors", "frozen"},
    {
        "contents",
        "deadline",
        "filename",
        "files",
        "job",
        "jobxml",
        "platform",
        "serverxml",
        "stop",
        "visibility",
        "wallclock",
    },
    {
        "accounts",
        "config",
        "events",
        "home",
        "image",
        "joblog",
        "journal",
        "keyring",
        "platforms",
        "process",
        "readiness",
        "registry",
        "remote",
        "sandbox",
        "spool",
        "stopping",
        "targetdata",
        "watch",
        "workspace",
    },
    {"dispatcher", "runner"},
    {"commands", "service_log"},
    {"server"},
    {"cli"},
)
WORDS_FLOOR = 1  # its rooms are the words the others speak, and may use each other's
FOREIGN_ROOMS = {
    "aiohttp": "server",
    "asyncssh": "sandbox",
    "backports": "image",
    "botocore": "platforms.ec2",
    "click": "cli",
    "compression": "image",  # the standard library's since Python 3.14
    "cryptography": "keyring",
    "gnupg": "keyring",
    "inotify_simple": "watch",
    "isal": "image",
    "moto": "sandbox",
    "prometheus_client": "server",
    "rich": "cli",
    "urllib3": "platforms.ec2",
    "werkzeug": "sandbox",
}


def read_package(package_dir):
    """Return the source of each module by its dotted name without `clouduploader.`; "" for the root."""
    sources = {}
    for path in sorted(package_dir.rglob("*.py")):
        parts = path.relative_to(package_dir).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return sources


def violations(sources):
    """Return what breaks the plan, a line each."""
    found = []
    graph = {}
    for module, source in sources.items():
        if _floor(module) is None:
            found.append(f"{module} has no floor")
            continue
        imports = list(_imports(source, sources))
        graph[module] = {target for is_own, target in imports if is_own} - {module}
        for is_own, target in imports:
            fault = _own_fault(module, target) if is_own else _foreign_fault(module, target)
            if fault:
                found.append(f"{module} imports {target}: {fault}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        found.append("cycle: " + " <- ".join(exc.args[1]))
    return found


def _imports(source, sources):
    """Yield (is ours, module) for each import anywhere in a module, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"{base}.{alias.name}" for alias in node.names]
            # `from package import module` is an import of the module, else one of the package
            names = [name if _own(name) in sources else base for name in names]
        else:
            continue
        for name in names:
            own = _own(name)
            yield (own is not None, name if own is None else own)


def _own(name):
    """The name without `clouduploader.`; None for a stranger's."""
    first, _, rest = name.partition(".")
    return rest if first == "clouduploader" else None


def _room(module):
    """The first part of a name; a platform is a room of its own."""
    return ".".join(module.split(".")[: 2 if module.startswith("platforms.") else 1])


def _floor(module):
    if module == "":
        return 0
    return next((number for number, rooms in enumerate(FLOORS) if module.split(".")[0] in rooms), None)


def _own_fault(module, target):
    here, there = _floor(module), _floor(target)
    if _room(module) == _room(target):
        return None
    if there is None:
        return "it has no floor"
    if there > here:
        return "upwards"
    if there == here and here != WORDS_FLOOR:
        return "another room of the same floor"
    if _room(target).startswith("platforms."):
        return "a platform is loaded by the registry only"
    return None


def _foreign_fault(module, target):
    package = target.split(".")[0]
    if package == "":
        return "a relative import"
    if package in sys.stdlib_module_names or package == "_typeshed":
        return None
    if package not in FOREIGN_ROOMS:
        return "a stranger without a room"
    return None if _room(module) == FOREIGN_ROOMS[package] else f"only {FOREIGN_ROOMS[package]} may"


def test_package_keeps_the_plan():
    sources = read_package(Path(clouduploader.__file__).parent)
    assert len(sources) > 10
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("errors", "from clouduploader import job", "errors imports job: upwards"),
        ("spool", "from clouduploader.commands import kill", "spool imports commands: upwards"),
        ("runner", "import clouduploader.cli.output", "runner imports cli.output: upwards"),
        ("spool", "def f():\n    from clouduploader import runner", "spool imports runner: upwards"),
        (
            "spool",
            "from clouduploader import process",
            "spool imports process: another room of the same floor",
        ),
        (
            "platforms.directory",
            "from clouduploader.platforms import ec2",
            "platforms.directory imports platforms.ec2: another room of the same floor",
        ),
        (
            "platforms.ec2.upload",
            "from clouduploader.config import Config",
            "platforms.ec2.upload imports config: another room of the same floor",
        ),
        (
            "registry",
            "from clouduploader.platforms import ec2",
            "registry imports platforms.ec2: another room of the same floor",
        ),
        (
            "runner",
            "from clouduploader.platforms.ec2 import create",
            "runner imports platforms.ec2: a platform is loaded by the registry only",
        ),
        ("commands.kill", "from .. import spool", "commands.kill imports ..: a relative import"),
        ("commands.kill", "import click", "commands.kill imports click: only cli may"),
        ("runner", "from rich import table", "runner imports rich: only cli may"),
        ("sandbox.cloud", "import botocore", "sandbox.cloud imports botocore: only platforms.ec2 may"),
        (
            "platforms.directory",
            "import botocore.session",
            "platforms.directory imports botocore.session: only platforms.ec2 may",
        ),
        ("targetdata", "import gnupg", "targetdata imports gnupg: only keyring may"),
        (
            "platforms.ec2",
            "from cryptography.hazmat import primitives",
            "platforms.ec2 imports cryptography.hazmat: only keyring may",
        ),
        ("cli.check", "import moto", "cli.check imports moto: only sandbox may"),
        ("image.xz", "import asyncssh", "image.xz imports asyncssh: only sandbox may"),
        ("spool", "import lxml.etree", "spool imports lxml.etree: a stranger without a room"),
        ("wardrobe", "import os", "wardrobe has no floor"),
    ],
)
def test_violation_is_found(module, line, fault):
    plan = {name: "" for rooms in FLOORS for name in rooms} | {"platforms.ec2": "", "cli.output": ""}
    assert violations(plan) == []
    assert fault in violations(plan | {module: line})


def test_cycle_is_found():
    sources = {
        "job": "from clouduploader.jobxml import parse",
        "jobxml": "def f():\n    from clouduploader import job",
    }
    (fault,) = violations(sources)
    assert fault.startswith("cycle: ")
    assert {"job", "jobxml"} <= set(fault.split())


def test_downward_imports_are_allowed():
    sources = {
        "": '__version__ = "1"',
        "errors": "import enum",
        "platform": "from clouduploader import stop",
        "stop": "from clouduploader.errors import StoppedError",
        "platforms.ec2": "from clouduploader.platforms.ec2 import upload",
        "platforms.ec2.upload": "import botocore\nfrom clouduploader import errors, platform",
        "commands.kill": "from clouduploader import spool",
        "spool": "from clouduploader import job",
        "job": "import clouduploader",
        "cli.output": "import click",
        "cli.main": "from clouduploader.cli import output\nfrom clouduploader.commands import kill",
    }
    assert violations(sources) == []


def test_modules_are_named_by_their_path(tmp_path):
    for name in ("__init__.py", "image/__init__.py", "image/xz.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"'{name}'")
    assert read_package(tmp_path) == {
        "": "'__init__.py'",
        "image": "'image/__init__.py'",
        "image.xz": "'image/xz.py'",
    }


def test_map_has_every_room_and_module():
    text = (Path(__file__).parents[2] / "ARCHITECTURE.rst").read_text("utf-8")
    modules = [name for name in read_package(Path(clouduploader.__file__).parent) if name]
    unnamed = [
        name
        for name in modules
        if not any(form in text for form in (f"``{name.replace('.', '/')}.py``", f"``{name.replace('.', '/')}/``"))
    ]
    assert unnamed == []
    named = set(re.findall(r"``([a-z_0-9/]+)(?:\.py|/)`` +- ", text))
    assert named - {name.replace(".", "/") for name in modules} == set()
