"""The script of the tutorial "From a CI pipeline to an AMI"."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

SCRIPT = Path(__file__).parents[3] / "docs" / "tutorials" / "pipeline" / "publish.sh"


@pytest.fixture
def publish(sandbox, tmp_path):
    """Run the script in a directory of its own; its pauses take no time."""

    def run(image):
        return sandbox.run([SCRIPT, image, "my-image"], cwd=tmp_path, env=sandbox.environment(PAUSE="0"))

    return run


def test_copy_that_fails_is_made_up_for(sandbox, publish, make_image, tmp_path):
    sandbox.fault("CopyImage", nth=1, code="SnapshotLimitExceeded", message="Too many snapshots.")
    done = publish(make_image().path)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split() for line in done.stdout.splitlines())
    assert lines == json.loads((tmp_path / "answer.json").read_text())["data"]["images"]
    assert lines.keys() == {"us-east-1", "eu-central-1"}


def test_image_that_is_refused_ends_it(publish, tmp_path):
    (tmp_path / "page.raw").write_text("<html>")
    done = publish("page.raw")
    assert done.returncode == 65
    assert "web page" in done.stderr
