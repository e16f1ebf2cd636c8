"""The commands of the page "HTTP API", followed with curl from the first request to a log that ends."""

import datetime
import lzma
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from samples.minimal_disk import as_disk

from clouduploader.store.tokens import Role, TokenStore

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "http-api.rst").read_text("utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"code-block:: sh\n\n((?:   .*\n|\n)+)", PAGE)]
SETTINGS = """
[server]
listen = 127.0.0.1:0
allow = none
clients = 127.0.0.0/8
keep_free = 1
[directory]
path = {place}/images
"""


@pytest.fixture
def url(tmp_path):
    for name in ("home", "images", "user"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "clouduploader.conf").write_text(SETTINGS.format(place=tmp_path))
    with subprocess.Popen(
        [EXECUTABLE, "--home", tmp_path / "home", "--spool", tmp_path / "spool", "serve"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        yield next(found[1] for line in server.stderr if (found := re.search(r"event=serving url=(\S+)", line)))
        server.terminate()


def test_image_is_sent_and_its_job_followed_as_the_page_says(url, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    token = TokenStore(tmp_path / "home").create("tom", Role.USER, note="", expires=None, now=now)[1]
    home = tmp_path / "user" / ".config" / "clouduploader"
    home.mkdir(parents=True)
    (home / "token").write_text(token)
    image = lzma.compress(as_disk(os.urandom(1 << 20)))
    (tmp_path / "my.raw.xz").write_bytes(image)

    first, sending, following = BLOCKS[:3]
    script = "set -e\n" + re.sub(r"(?m)^SERVER=.*$", f"SERVER={url}", first)
    script += re.sub(r'"region".*?"my-image"', "", sending.replace('"ec2"', '"directory"'))
    script += following[: following.index("api /jobs/$JOB/kill")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "user")}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"user":"tom"' in done.stdout
    assert "event: end\n" in done.stdout
    assert done.stdout.splitlines()[-2] == "succeeded", done.stdout
    (made,) = [path for path in (tmp_path / "images").rglob("*") if path.is_file() and path.read_bytes() == image]
    assert made.name == "my.raw.xz"
