"""How long from exec to the first request on the wire, and how long `list` takes on an empty spool.

Beside the command of AWS stands what is left of it without a command line: Python, the SDK, and the same call.

    .venv/bin/python bench/startup.py [--rounds 15] [--aws /usr/bin/aws]...

Each command is run once a round, in turn, and killed by a small server as soon as its request has
arrived: its CPU time is what it used until then, its wall time ends when the request was complete.
"""

import argparse
import contextlib
import json
import lzma
import os
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ROLE = "arn:aws:iam::123456789012:role/obs-upload"
RECORD = """<clouduploadjob name="1">
  <state>uploading</state>
  <created>1514764800</created>
  <user>tom</user>
  <target>ec2</target>
  <filename>an-image.x86_64.raw.xz</filename>
</clouduploadjob>
"""
SDK_ALONE = f"""
import botocore.session

client = botocore.session.Session().create_client("sts")
client.assume_role(RoleArn={ROLE!r}, RoleSessionName="obs", ExternalId="abcdef")
"""


class Sink:
    """A server on loopback that notes when the first request of a process is complete, and kills it.

    Args:
        certificate: Of the server, for https.
        word: Stands at the end of that request, and in none before it.
    """

    def __init__(self, certificate=None, word=b"AssumeRole"):
        self._context = None
        self._word = word
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"
        self.pid = None
        self.arrived_at = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _address = self._socket.accept()
            with contextlib.suppress(OSError), connection:
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                data = b""
                while self._word not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    data += piece
                else:
                    self.arrived_at = time.monotonic()
                    os.kill(self.pid, signal.SIGKILL)

    def measure(self, command, environment):
        """Run a command up to its first request; return its CPU and wall time in ms."""
        self.arrived_at = None
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.pid = process.pid
        output = process.stdout.read()
        _pid, _status, usage = os.wait4(process.pid, 0)
        process.stdout.close()
        if self.arrived_at is None:
            sys.exit(f"no request came from {command}:\n{output.decode(errors='replace')}")
        return cpu_ms(usage), (self.arrived_at - began) * 1000


def cpu_ms(usage):
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure_whole(command, environment):
    """Run a command to its end; return its CPU and wall time in ms."""
    began = time.monotonic()
    pid = os.posix_spawn(
        command[0], command, environment, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _pid, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return cpu_ms(usage), (time.monotonic() - began) * 1000


def lay_out(root):
    """Make a home, a spool with a job that waits, and an empty spool."""
    (root / "home/.aws").mkdir(parents=True)
    keys = "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = x\n"
    (root / "home/.aws/credentials").write_text(keys)
    (root / "home/.aws/credentials").chmod(0o600)
    (root / "home/.ec2utils.conf").write_text(
        "[region-us-east-1]\nami = ami-0123456789abcdef0\ninstance_type = t2.micro\nuser = ec2-user\n"
    )
    for name in ("spool/1.dir", "empty/done", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "spool/1").write_text(RECORD)
    disk = bytearray(1 << 20)
    disk[446:512] = struct.pack("<8B2I48x", 0x80, 0, 0, 0, 0x83, 0, 0, 0, 64, 1984) + b"\x55\xaa"
    (root / "spool/1.file").write_bytes(lzma.compress(disk))
    targetdata = {"external_id": "abcdef", "arn": ROLE, "region": "us-east-1", "ami_name": "an-image"}
    (root / "spool/1.data").write_text(json.dumps(targetdata))


def make_certificate(root, name="IP:127.0.0.1"):
    path = root / "certificate.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"],
            *["-addext", f"subjectAltName={name}", "-keyout", str(path), "-out", str(root / "public.pem")],
        ],
        check=True,
        capture_output=True,
    )
    with path.open("a") as file:
        file.write((root / "public.pem").read_text())
    return path


def compare(title, cases, rounds):
    """Run the cases in turn, and print a table; the first case is what the others are compared with."""
    for run in cases.values():
        run()  # fills the page cache and the caches of bytecode
    taken = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            taken[name].append(run())
    print(f"\n{title}, {rounds} rounds, medians (smallest)")
    print(f"{'':52} {'CPU ms':>14} {'wall ms':>14} {'CPU ratio':>10} {'wall ratio':>11}")
    base = None
    for name, values in taken.items():
        cpu, wall = ([value[index] for value in values] for index in (0, 1))
        medians = statistics.median(cpu), statistics.median(wall)
        base = base or medians
        print(
            f"{name:52} {medians[0]:7.0f} ({min(cpu):4.0f}) {medians[1]:7.0f} ({min(wall):4.0f}) "
            f"{medians[0] / base[0]:10.2f} {medians[1] / base[1]:11.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--aws", action="append", help="an executable of awscli; may be repeated")
    options = parser.parse_args()
    found = options.aws or [path for path in [shutil.which("aws")] if path]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        lay_out(root)
        certificate = make_certificate(root)
        for sink in (Sink(certificate), Sink()):
            environment = {
                "PATH": f"{BIN}:/usr/bin:/bin",
                "HOME": str(root / "home"),
                "TMPDIR": str(root / "tmp"),
                "CLOUDUPLOADER_HOME": str(root / "home"),
                "AWS_ENDPOINT_URL": sink.url,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_CA_BUNDLE": str(root / "public.pem"),
            }
            spool = root / "spool"
            contract = [str(BIN / "clouduploader"), "tom", "ec2", str(spool / "1.file"), str(spool / "1.data")]
            contract += ["an-image.x86_64.raw.xz", str(spool / "1.result")]
            cases = {}
            for aws in found:
                command = [aws, "sts", "assume-role", "--role-arn", ROLE, "--role-session-name", "obs"]
                command += ["--external-id", "abcdef", "--endpoint-url", sink.url]
                cases[f"{aws} sts assume-role"] = lambda c=command, s=sink, e=environment: s.measure(c, e)
            alone = [sys.executable, "-c", SDK_ALONE]
            cases["the SDK alone, AssumeRole"] = lambda c=alone, s=sink, e=environment: s.measure(c, e)

            def as_obs_does(command=contract, sink=sink, environment=environment, journal=spool / "journal"):
                shutil.rmtree(journal, ignore_errors=True)  # of the round before, which was killed
                return sink.measure(command, environment)

            cases["clouduploader, six arguments"] = as_obs_does
            compare(f"exec to the first request, {sink.url.partition(':')[0]}", cases, options.rounds)
        environment = {"PATH": "/usr/bin:/bin", "CLOUDUPLOADER_SPOOL": str(root / "empty"), "HOME": str(root)}
        cases = {
            "python -c 'import click'": [sys.executable, "-c", "import click"],
            "clouduploader list": [str(BIN / "clouduploader"), "list"],
            "clouduploader list --json": [str(BIN / "clouduploader"), "list", "--json"],
        }
        runs = {name: lambda c=command: measure_whole(c, environment) for name, command in cases.items()}
        compare("an empty spool", runs, options.rounds)


if __name__ == "__main__":
    main()
