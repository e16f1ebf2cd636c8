"""A Python environment for the sandbox, made by pip."""

import subprocess
import threading

import pytest

from clouduploader.sandbox import installation

PACKAGE = """
[project]
name = "made-up"
version = "1"
[project.scripts]
made-up = "made_up:main"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# a wheel without a build: pip needs no network for it
BACKEND = """
import pathlib, zipfile
def build_wheel(directory, *_arguments, **_settings):
    name = "made_up-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, name), "w") as wheel:
        wheel.writestr("made_up.py", "def main(): print('it runs')")
        meta = "made_up-1.dist-info"
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\\nName: made-up\\nVersion: 1\\n")
        wheel.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{meta}/entry_points.txt", "[console_scripts]\\nmade-up = made_up:main\\n")
        wheel.writestr(f"{meta}/RECORD", "")
    return name
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A Python package that can be installed, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = tmp_path / "package"
    directory.mkdir()
    (directory / "pyproject.toml").write_text(PACKAGE)
    (directory / "backend.py").write_text(BACKEND)
    return str(directory)


def test_environment_is_made_and_completed_once(package):
    said, found, completed = [], [], []

    def make():
        found.append(installation.python_environment("made-up", [package], say=said.append, complete=completed.append))

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert completed == found[:1]
    assert [line.split(" for ")[0] for line in said] == ["installing made-up"]
    assert subprocess.run([found[0] / "bin/made-up"], capture_output=True, text=True, check=True).stdout == "it runs\n"
