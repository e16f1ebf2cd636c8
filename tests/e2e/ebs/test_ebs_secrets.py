"""Secrets are nowhere: no command line, no environment, no file, no output; while it runs and after."""

import json
import re
import sys
from pathlib import Path

import pytest
from e2e.watcher import Watcher

from clouduploader.errors import ExitCode

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")

# Hands requests on to the sandbox's AWS, and answers back, which it writes down.
EAVESDROPPER = """
import http.client, http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        connection = http.client.HTTPConnection("127.0.0.1", 5000)
        connection.putrequest("POST", self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        with open(sys.argv[1], "ab") as file:
            file.write(data)
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def overheard(sandbox, tmp_path_factory):
    """Overhear the temporary credentials; returns the URL to ask for them at, and how to get what was heard."""
    path = tmp_path_factory.mktemp("overheard") / "answers"
    process = sandbox.popen([sys.executable, "-c", EAVESDROPPER, path], stdout=-1, text=True)
    port = process.stdout.readline().strip()

    def secrets():
        text = path.read_text()
        names = ("SecretAccessKey", "SessionToken")
        return {f"{name} {value[:4]}": value for name in names for value in re.findall(f"<{name}>(.*)</{name}>", text)}

    return f"http://127.0.0.1:{port}", secrets


@pytest.mark.parametrize("is_failing", [False, True], ids=["success", "failure"])
def test_secrets_are_nowhere(sandbox, make_disk, overheard, tmp_path, is_failing):
    url, temporary_secrets = overheard
    private = tmp_path / "private"
    private.mkdir()
    state, log, result = tmp_path / "state", tmp_path / "log", tmp_path / "result"
    environment = sandbox.environment(
        AWS_ENDPOINT_URL_STS=url, CLOUDUPLOADER_STATE=str(state), TMPDIR=str(private), PYTHONUNBUFFERED="1"
    )
    assert sandbox.run([EXECUTABLE, "keygen"], env=environment).returncode == 0
    targetdata = json.dumps(sandbox.targetdata(method="ebs-direct"))
    encrypted = sandbox.run([EXECUTABLE, "encrypt", "--field=external_id"], env=environment, input=targetdata)
    data = tmp_path / "targetdata"
    data.write_text(encrypted.stdout)
    (sandbox.home / "clouduploader.conf").write_text(
        f"[clouduploader]\nevents = {tmp_path}/events.jsonl\n[ec2]\nblocks_per_second = 40\n"
    )
    external_id = sandbox.description["external_id"]
    if is_failing:  # such that the journal keeps all it has
        sandbox.fault("RegisterImage", code="InvalidParameterValue", message=f"Who is {external_id}?")
        argv = ["upload", "--json", "--verbose", "--keep=snapshot", f"--data={data}", make_disk(40).path]
    else:
        argv = ["--verbose", "tom", "ec2", make_disk(40).path, data, "disk.raw", result]

    with Watcher(sandbox, private) as watcher, log.open("wb") as output:
        process = sandbox.popen([EXECUTABLE, *argv], env=environment, stdout=output, stderr=output)
        status = process.wait(60)

    assert status == (ExitCode.PROTOCOL if is_failing else ExitCode.OK), log.read_text()
    assert watcher.keys == set()
    assert is_failing or result.read_text().startswith("ami-")
    secrets = {
        "external id": external_id,
        "own secret key": sandbox.description["obs"]["secret_access_key"],
        **temporary_secrets(),
    }
    assert len(secrets) >= 4
    assert all(len(secret) > 20 for secret in secrets.values())
    places = {f"/proc {number}": text for number, text in enumerate(watcher.seen)}
    assert any(b"disk.raw" in text for text in places.values())
    for directory in (tmp_path, sandbox.spool, sandbox.home, Path(environment["HOME"])):
        places |= {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    names = {Path(place).name for place in places}
    assert {"log", "journal"} | ({"targetdata"} if is_failing else {"events.jsonl", "result"}) <= names
    allowed = {
        (str(sandbox.home / ".aws" / "credentials"), "own secret key"),
        (str(sandbox.spool / "1.data"), "external id"),  # the sandbox's own job
    }
    found = {
        (place, name) for place, text in places.items() for name, secret in secrets.items() if secret.encode() in text
    }
    assert found <= allowed
    assert list(private.rglob("*")) == []
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*") if path.is_file()} == {0o600}
