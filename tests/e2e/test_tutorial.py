"""The tutorial "Write a platform in an hour": its commands do, with its files, what it shows."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
PAGE = (TUTORIALS / "write-a-platform.rst").read_text("utf-8")
SET_UP = ("mkdir depot", "python3 -m venv", ". .venv", "pip install", "cp ")
"""Commands that `workshop` stands for."""
WAIT = "until (: </dev/tcp/127.0.0.1/8765) 2>/dev/null; do sleep 0.1; done"  # what a person is too slow to need
HALF, _, REST = PAGE.partition("\nPlan, find and check\n")  # the heading above the methods that are missing so far


@pytest.fixture
def workshop(tmp_path):
    """The directory of the reader, with the tutorial's package installed; gives a function that runs commands there."""
    place, site = tmp_path / "depot", tmp_path / "site"
    shutil.copytree(TUTORIALS / "write_a_platform", place, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    metadata = site / "{name}-{version}.dist-info".format(**project).replace("depot-", "depot_")
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: {name}\nVersion: {version}\n".format(**project))
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {reference}" for name, reference in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {
        **os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join((str(place), str(site))),
        "PYTEST_DEBUG_TEMPROOT": str(tmp_path),  # the reader's pytest would shut ours to all other users
    }  # fmt: skip

    def run(text):
        commands = [line for line in re.findall(r"^    \$ (.+)$", text, re.MULTILINE) if not line.startswith(SET_UP)]
        script = "\n".join(["set -e", *commands]).replace(" &\n", f" &\n{WAIT}\n").replace("8765", port)
        done = subprocess.run(
            ["bash", "-c", script], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout.replace(port, "8765")

    return place, run


def shown(text):
    """The lines that a part of the page shows as output."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    lines = [line for line in "".join(blocks).splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("    $ ")]


def comparable(line):
    """A line without what differs each time: times, numbers of tests, keys, users, widths of columns."""
    line = re.sub(r"\d\d:\d\d:\d\d ?|\d+ passed in \d+\.\d+s|[0-9a-f]{32}|on \d{4}-\d\d-\d\d|user \S+", "", line)
    return " ".join(line.split())


def assert_shown(text, output):
    said = [comparable(line) for line in output.splitlines()]
    assert [line for line in shown(text) if comparable(line) not in said] == [], output


def test_half_a_platform_fails_as_the_page_shows(workshop):
    place, run = workshop
    platform = place / "depot_platform.py"
    platform.write_text(platform.read_text("utf-8").partition("    def plan")[0])
    assert_shown(HALF, run(HALF))


def test_whole_platform_does_what_the_page_shows(workshop):
    _, run = workshop
    assert len(shown(REST)) > 10
    assert_shown(REST, run(REST))
