"""What it costs to send an image to Azure, against azure-cli and azure-img-utils; and until the first request.

    .venv/bin/python bench/azure.py [--rounds 5] [--az /path/to/az] [--img-utils /path/to/python] [--mib 1024]

The server is the sandbox's, in a process of its own, with its pages in memory. clouduploader does a whole upload of a
raw disk (login, image and clean-up too); `az storage blob upload` and azure-img-utils send a fixed VHD that was made
before, and nothing else. All of it is https. CPU is that of the whole process, from exec to exit.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import random
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import startup

BIN = Path(sys.executable).parent
TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
LOGIN_HOST = "login.microsoftonline.com"
SAS = "sv=2021-12-02&sig=bench"
IMG_UTILS = """
import sys
from azure.core.credentials import AzureSasCredential
from azure.storage.blob import BlobServiceClient
from azure_img_utils.azure_image import AzureImage

image = AzureImage(container="images", storage_account="bench")
image._blob_service_client = BlobServiceClient(sys.argv[1], credential=AzureSasCredential(sys.argv[2]))
image.upload_image_blob(sys.argv[3], blob_name=sys.argv[4], force_replace_image=True)
"""


# --- the server, in a process of its own ------------------------------------------------------------------------------


def serve(directory):
    """Serve until the standard input ends; write down where."""
    from clouduploader.sandbox.azure.servers import AzureServers
    from clouduploader.sandbox.azure.storage import Storage
    from clouduploader.sandbox.call_record import CallRecord

    class OpenStorage(Storage):
        """Lets in what has the signature of the benchmark too."""

        async def answer(self, request):
            if request.query.get("sig") == "bench":
                return await self.answered(request)
            return await super().answer(request)

        async def answered(self, request):
            from clouduploader.sandbox.azure.account import Refusal
            from clouduploader.sandbox.azure.storage import refused

            try:
                return await self.stored(request, request.path.split("/", 3)[2:])
            except Refusal as exc:
                return refused(exc.status, exc.code, exc.message)

    async def run():
        (directory / "disks").mkdir()
        (directory / "calls").touch()
        now = lambda: datetime.datetime.now(datetime.UTC)  # noqa: E731
        servers = AzureServers(directory / "disks", now, CallRecord(directory / "calls"), OpenStorage)
        servers.reset()
        servers.account.storage_account = "bench"
        url = await servers.start(directory / "server.pem")
        account = servers.account
        described = {
            "cloud": url,
            "blobs": account.blob_endpoint,
            "container": account.container,
            "data": {
                "tenant": account.tenant,
                "application_id": account.application_id,
                "application_key": account.application_key,
                "resource_group": account.group,
                "storage_account": account.storage_account,
                "container": account.container,
            },
        }
        (directory / "new.json").write_text(json.dumps(described))
        (directory / "new.json").rename(directory / "server.json")
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


@contextlib.contextmanager
def serving(directory):
    from clouduploader.sandbox import certificates

    certificates.create(directory / "ca.pem", directory / "server.pem")
    process = subprocess.Popen([sys.executable, __file__, "--serve", directory], stdin=subprocess.PIPE)
    while not (directory / "server.json").exists():
        if process.poll() is not None:
            sys.exit("the server has ended")
        time.sleep(0.05)
    try:
        yield json.loads((directory / "server.json").read_text())
    finally:
        process.stdin.close()
        process.wait()


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(command, environment):
    """Run a command to its end; return wall s, CPU s and peak MiB, of it and its children."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = process.stdout.read()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}:\n{output.decode(errors='replace')}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def table(title, cases, rounds):
    """Run the cases in turn, and print medians; the first one is what the others are compared with."""
    taken = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            taken[name].append(run())
    print(f"\n{title}, {rounds} rounds, medians")
    print(f"{'':50} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'wall ratio':>11} {'CPU ratio':>10}")
    base = None
    for name, values in taken.items():
        wall, cpu, peak = (statistics.median(value[index] for value in values) for index in range(3))
        base = base or (wall, cpu)
        print(f"{name:50} {wall:8.2f} {cpu:8.2f} {peak:9.0f} {wall / base[0]:11.2f} {cpu / base[1]:10.2f}")


class Entra:
    """A proxy that stands for Microsoft Entra too, and kills the process; azure-cli asks for other hosts before.

    Attributes:
        until: "connection": the process is killed as soon as it wants one to Entra; "token": when its request for a
            token is complete.
    """

    def __init__(self, certificate):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.pid = self.arrived_at = None
        self.until = "connection"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _address = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                if f"CONNECT {LOGIN_HOST}".encode() in connection.recv(65536) and not self.arrived_at:
                    if self.until == "connection":
                        self._arrived()
                        continue
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    with self._context.wrap_socket(connection, server_side=True) as tls:
                        self._answer(tls)

    def _answer(self, tls):
        """Tell what azure-cli asks for first, until the request for a token has come."""
        root = f"https://{LOGIN_HOST}/{TENANT}"
        names = {"token": "token", "authorization": "authorize", "device_authorization": "devicecode"}
        found = {f"{name}_endpoint": f"{root}/oauth2/v2.0/{path}" for name, path in names.items()}
        body = json.dumps({**found, "issuer": f"{root}/v2.0"}).encode()
        data = b""
        while piece := tls.recv(65536):
            data += piece
            if data.startswith(b"GET") and data.endswith(b"\r\n\r\n"):
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                tls.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                data = b""
            elif data.startswith(b"POST") and b"client_secret=" in data:
                self._arrived()
                return

    def _arrived(self):
        self.arrived_at = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)

    def measure(self, command, environment):
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
        return self.arrived_at - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


# --- what is compared -------------------------------------------------------------------------------------------------


def make_images(directory, mib):
    """A disk of which half is noise, as a raw file and as a fixed VHD."""
    from clouduploader.model import vhd

    raw, fixed = directory / "disk.raw", directory / "disk.vhd"
    noise = random.Random(0)
    with raw.open("wb") as file:
        for start in range(0, mib, 8):  # four MiB of noise, four of zeros
            file.seek(start << 20)
            file.write(noise.randbytes(4 << 20))
        file.truncate(mib << 20)
        file.seek(446)
        file.write(bytes.fromhex("8000000083000000") + (64).to_bytes(4, "little") + (1984).to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")
    shutil.copyfile(raw, fixed)
    with fixed.open("ab") as file:
        file.write(vhd.fixed_footer(mib << 20, b"0123456789abcdef"))
    return raw, fixed


def compare_uploads(options, root):
    raw, fixed = make_images(root, options.mib)
    with serving(root) as server:
        home = root / "home"
        home.mkdir()
        (root / "spool").mkdir()
        (home / "clouduploader.conf").write_text(f"[azure]\ncloud = {server['cloud']}\n")
        data = root / "data.json"
        data.touch(mode=0o600)
        data.write_text(json.dumps(server["data"]))
        environment = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(root),
            "TMPDIR": str(root),
            "REQUESTS_CA_BUNDLE": str(root / "ca.pem"),
            "CLOUDUPLOADER_HOME": str(home),
            "CLOUDUPLOADER_SPOOL": str(root / "spool"),
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "AZURE_CORE_NO_COLOR": "true",
        }
        count = iter(range(1000))

        def az():
            command = [
                options.az,
                "storage",
                "blob",
                "upload",
                "--type",
                "page",
                "--file",
                fixed,
                "--name",
                f"{next(count)}.vhd",
            ]
            command += [
                "--container-name",
                server["container"],
                "--sas-token",
                SAS,
                "--no-progress",
                "--only-show-errors",
            ]
            return measure([*command, "--blob-endpoint", f"{server['blobs']}bench"], environment)

        def img_utils():
            words = [f"{server['blobs']}bench", SAS, str(fixed), f"{next(count)}.vhd"]
            return measure([options.img_utils, "-c", IMG_UTILS, *words], environment)

        def ours(method):
            name = f"image-{next(count)}"
            command = [BIN / "clouduploader", "--quiet", "upload", "--target", "azure", "--data", data, "--name", name]
            return measure([*command, "--method", method, raw], environment)

        cases = {}
        if options.az:
            cases["az storage blob upload"] = az
        if options.img_utils:
            cases["azure-img-utils, upload_image_blob"] = img_utils
        cases["clouduploader upload, blob"] = lambda: ours("blob")
        cases["clouduploader upload, disk"] = lambda: ours("disk")
        table(f"a disk of {options.mib} MiB, half of it zeros", cases, options.rounds)


def compare_starts(options, root):
    from clouduploader.store import keyring

    entra = Entra(startup.make_certificate(root, f"DNS:{LOGIN_HOST}"))
    spool = root / "contract"
    (spool / "1.dir").mkdir(parents=True)
    with (root / "disk.raw").open("rb") as disk, (spool / "1.file").open("wb") as file:
        file.write(disk.read(1 << 20))
    (spool / "1").write_text(
        '<clouduploadjob name="1">\n  <state>uploading</state>\n  <created>1514764800</created>\n  <user>tom</user>\n'
        "  <target>azure</target>\n  <filename>an-image.raw</filename>\n</clouduploadjob>\n"
    )
    home = root / "home-of-obs"
    home.mkdir()
    keys = keyring.Keyring(home, {}).rsa
    keys.generate()
    secrets = {"application_id": CLIENT, "application_key": "a made-up secret"}
    encrypted = {name: keys.encrypt(value) for name, value in secrets.items()}  # as OBS does
    (spool / "1.data").write_text(json.dumps({"subscription": TENANT, "resource_group": "g", **encrypted}))
    environment = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(root),
        "TMPDIR": str(root),
        "HTTPS_PROXY": entra.url,
        "CLOUDUPLOADER_HOME": str(home),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "REQUESTS_CA_BUNDLE": str(root / "public.pem"),
    }
    contract = [
        BIN / "clouduploader",
        "tom",
        "azure",
        spool / "1.file",
        spool / "1.data",
        "an-image.raw",
        spool / "1.result",
    ]
    login = ["login", "--service-principal", "--username", CLIENT, "--password", "a made-up secret", "--tenant", TENANT]

    def ours():
        shutil.rmtree(spool / "journal", ignore_errors=True)
        return entra.measure(contract, environment)

    def az(*, is_new):
        config = root / "azure"
        if is_new:
            shutil.rmtree(config, ignore_errors=True)
        return entra.measure([options.az, *login], {**environment, "AZURE_CONFIG_DIR": str(config)})

    cases = {}
    if options.az:
        cases["az login --service-principal, for the first time"] = lambda: az(is_new=True)
        cases["az login --service-principal, again"] = lambda: az(is_new=False)
    cases["clouduploader, six arguments"] = ours
    for entra.until in ("connection", "token"):
        title = {"connection": "connection to Entra", "token": "request for a token"}[entra.until]
        table(f"exec to the first {title}, through a proxy", cases, 2 * options.rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--az", help="azure-cli's program")
    parser.add_argument("--img-utils", help="a Python that has azure-img-utils")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        compare_uploads(options, Path(directory))
        compare_starts(options, Path(directory))


if __name__ == "__main__":
    main()
