"""Secrets are nowhere: no command line, no environment, no file, no output; while it runs and after."""

import json
from pathlib import Path

import pytest
from e2e.watcher import Watcher

from clouduploader.errors import ExitCode

pytestmark = pytest.mark.sandbox

# Writes down what it is told, and is the real one then.
RECORDER = """\
#!{python}
import json, runpy, sys
with open({record!r}, "w") as file:
    json.dump(sys.argv, file)
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture
def record(sandbox, settings, tmp_path):
    """Record ec2uploadimg's arguments; returns how to read an option of them."""
    python = (sandbox.layout.bin / "ec2uploadimg").read_text().partition("\n")[0].removeprefix("#!")
    script, path = tmp_path / "ec2uploadimg", tmp_path / "arguments.json"
    script.write_text(RECORDER.format(python=python, record=str(path), script=str(sandbox.layout.bin / "ec2uploadimg")))
    script.chmod(0o755)
    settings(f"[clouduploader]\nevents = {tmp_path}/events-{{job}}.jsonl\n[ec2]\nec2uploadimg = {script}\n")

    def option(name):
        words = json.loads(path.read_text())
        (found,) = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
        return found

    return option


@pytest.mark.parametrize("is_failing", [False, True], ids=["success", "failure"])
def test_secrets_are_nowhere(sandbox, make_job, make_image, record, tmp_path, is_failing):
    environment = sandbox.environment()
    assert sandbox.run(["clouduploader", "keygen"], env=environment).returncode == 0
    data = json.dumps(sandbox.targetdata())
    encrypted = sandbox.run(["clouduploader", "encrypt", "--field=external_id"], env=environment, input=data)
    assert "BEGIN PGP MESSAGE" in encrypted.stdout, encrypted.stderr
    job = make_job(make_image("x.raw.xz", size_bytes=1 << 20), data=encrypted.stdout.encode())
    if is_failing:
        sandbox.fault("RegisterImage", code="Oops", message=f"Who is {sandbox.description['external_id']}?")

    with Watcher(sandbox, job.temporary) as watcher:
        done = job.run("--verbose")

    assert (done.status != ExitCode.OK) is is_failing, done.log
    assert {mode for _key, mode in watcher.keys} == {0o600}
    key, _mode = max(watcher.keys, key=lambda seen: len(seen[0]))
    secrets = {
        "external id": sandbox.description["external_id"],
        "own secret key": sandbox.description["obs"]["secret_access_key"],
        "secret key": record("secret-key"),
        "session token": record("session-token"),
        "private key": key.splitlines()[1],
    }
    assert all(len(secret) > 20 for secret in secrets.values())
    places = {f"/proc {number}": text for number, text in enumerate(watcher.seen)}
    assert any(b"wrapper.py" in text for text in places.values())
    (tmp_path / "arguments.json").unlink()
    events = tmp_path / f"events-{job.name}.jsonl"
    first, *_, last = map(json.loads, events.read_text().splitlines())
    assert (first["event"], first["job"], last["event"]) == ("start", job.name, "end")
    for directory in (tmp_path, sandbox.spool, sandbox.home, Path(environment["HOME"])):
        places |= {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    allowed = {(str(sandbox.home / ".aws" / "credentials"), "own secret key")} | {
        (str(sandbox.spool / "1.data"), "external id")  # the sandbox's own job
    }
    found = {
        (place, name) for place, text in places.items() for name, secret in secrets.items() if secret.encode() in text
    }
    assert found <= allowed
    assert job.litter() == []
