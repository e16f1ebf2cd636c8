import sys
from pathlib import Path

import pytest

from clouduploader.errors import CannotCreateError, ClouduploaderError, MissingProgramError
from clouduploader.sandbox import installation


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A factory: put a made-up npm, which does this with `sys.argv`, in the place of the real one."""

    def make(code):
        path = tmp_path / "bin/npm"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport sys, pathlib\n{code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))
        return path

    return make


def test_failure_is_one_line_and_the_next_time_begins_anew(npm):
    npm("pathlib.Path(sys.argv[-2], 'litter').touch(); sys.exit('all is lost\\nnothing works')")
    with pytest.raises(ClouduploaderError) as caught:
        installation.node_packages("made-up", ["made-up"], say=str)
    assert caught.value.message == "made-up could not be installed for the sandbox: npm: nothing works"
    npm("pathlib.Path(sys.argv[-2], 'program').touch()")
    directory = installation.node_packages("made-up", ["made-up"], say=str)
    assert {path.name for path in directory.iterdir()} == {"program", installation.MARK}


def test_npm_installs_into_a_directory_of_its_own(npm, tmp_path):
    program = npm(f"pathlib.Path('{tmp_path}/argv').write_text(repr(sys.argv))")
    directory = installation.node_packages("tool", ["tool@^3"], say=str)
    assert f"'--prefix', '{directory}', 'tool@^3'" in (tmp_path / "argv").read_text()
    program.unlink()
    assert installation.node_packages("tool", ["tool@^3"], say=str) == directory
    with pytest.raises(MissingProgramError, match="needs the Debian package npm"):
        installation.node_packages("tool", ["tool@^4"], say=str)


def test_cache_that_can_t_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CannotCreateError, match="can't be made: Not a directory"):
        installation.python_environment("made-up", [], say=str)


def test_cache_is_below_home_unless_told_otherwise():
    default = Path.home() / ".cache/clouduploader/sandbox"
    assert installation.cache({}) == installation.cache({"XDG_CACHE_HOME": "relative"}) == default
    assert installation.cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/clouduploader/sandbox")
