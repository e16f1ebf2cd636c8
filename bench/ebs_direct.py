"""What it costs to send an image's blocks, against a client in C, boto3, and flexible-snapshot-proxy.

    .venv/bin/python bench/ebs_direct.py --testbed DIR [--rounds 5] [--fsp DIR [--fsp-python PYTHON]] [--json FILE]

DIR holds sink.c, a server for the EBS direct APIs that throws the blocks away, floor.c, a client that does what
any client has to and nothing else, and mkimage.py, which makes a sparse image of 4 GiB. Each client is a process
of its own; its CPU is that of the whole process, from exec to exit. The clients of one table run in turn, round by
round. All of it is https, and the image lies in memory.
"""

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import queue
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
import types
from pathlib import Path

BLOCK_BYTES = 524288
NO_UPLOAD = ("unpack", "xz -T0 -dc")
REGION = "us-east-1"
PACKED_GIB = 1  # of the packed images
PACKERS = {
    "xz": ("xz", "-T0", "-1", "--block-size=24MiB"),  # blocks as large as those of -6, in a fraction of the time
    "zst": ("zstd", "-q", "-3"),
    "gz": ("gzip", "-6"),
}
SECONDS = 600  # no run takes longer
FSP = """
import sys
sys.path.insert(0, sys.argv[1] + "/src")
import singleton
one = singleton.SingletonClass()
one.AWS_ORIGIN_REGION = one.AWS_DEST_REGION = "us-east-1"
one.NUM_JOBS = 16
one.VERBOSITY_LEVEL = 0
import fsp
fsp.singleton = one
fsp.upload(sys.argv[2], None)
"""


# --- the clients, each in a process of its own -----------------------------------------------------------------------


def ours(place):
    """sender.send, with the image read as an upload reads it."""
    from clouduploader.cli import collector

    collector.collect_rarely()  # as all commands do
    from clouduploader.image import open as image_open
    from clouduploader.model.disk import ZeroBlocks
    from clouduploader.platforms.ec2.context import Ec2Context
    from clouduploader.platforms.ec2.ebs import sender
    from clouduploader.platforms.ec2.settings import Ec2Settings
    from clouduploader.platforms.ec2.sigv4 import AccessKeys
    from clouduploader.plugin.transfer import ConfirmedChunks
    from clouduploader.util.cancel import Cancel
    from clouduploader.util.clock import Clock

    if place.sdk:  # as in an upload, whose control plane is boto3's
        import boto3

        session = boto3.Session("AKIAEXAMPLE", "sesame", region_name=REGION)
        clients = [session.client(service, endpoint_url=place.url) for service in ("ebs", "ec2")]
    cancel, silent = Cancel(), Silent()
    account = types.SimpleNamespace(
        region=REGION,
        keys=lambda: AccessKeys("AKIAEXAMPLE", "sesame", "token"),
        ebs=lambda: None,
        route=lambda _client: route(place),
    )
    context = Ec2Context(
        types.SimpleNamespace(cancel=cancel, clock=Clock(), reporter=silent, client=account),
        Ec2Settings(connections=place.connections, blocks_per_second=place.rate),
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        ConfirmedChunks(Path(directory) / "confirmed", BLOCK_BYTES) as confirmed,
        image_open.open_blocks(
            image_open.describe(place.image, place.image.name, Cancel()),
            block_bytes=BLOCK_BYTES,
            zero_blocks=ZeroBlocks(place.zero_blocks),
            expected_sha256=None,
            max_size_bytes=None,
            cancel=cancel,
            reporter=silent,
        ) as source,
    ):
        sender.send(context, source, snapshot_id=place.snapshot_id, confirmed=confirmed, total_bytes=None)
        place.complete(confirmed.count, base64.b64encode(confirmed.digest_of_digests()).decode())
    if place.sdk:
        clients.clear()


def route(place):
    from clouduploader.platforms.ec2 import endpoint

    parsed = endpoint.parse(place.url, origin="the benchmark")
    return endpoint.ProxyRoute(place=parsed, region=REGION, authorities=os.environ["AWS_CA_BUNDLE"])


class Silent:
    def line(self, text): ...
    def detail(self, text): ...
    def event(self, event): ...
    def hide(self, secret): ...


def data_blocks(image):
    """The index of each block of a sparse file that has something in it."""
    last = -1
    with image.open("rb") as file:
        position, size = 0, image.stat().st_size
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                return
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            first = max(start // BLOCK_BYTES, last + 1)
            last = -(-position // BLOCK_BYTES) - 1
            yield from range(first, last + 1)


def by_threads(place, count, connect):
    """Send blocks by threads; `connect` gives each a function that sends one block and waits for its answer."""
    left = queue.SimpleQueue()
    for index in data_blocks(place.image):
        left.put(index)
    digests = {}
    descriptor = os.open(place.image, os.O_RDONLY)

    def work():
        buffer = bytearray(BLOCK_BYTES)
        send = connect()
        while True:
            try:
                index = left.get_nowait()
            except queue.Empty:
                return
            read = os.preadv(descriptor, [buffer], index * BLOCK_BYTES)
            buffer[read:] = bytes(BLOCK_BYTES - read)
            digest = hashlib.sha256(buffer).digest()
            send(index, base64.b64encode(digest).decode(), buffer)
            digests[index] = digest

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = hashlib.sha256(b"".join(digests[index] for index in sorted(digests))).digest()
    place.complete(len(digests), base64.b64encode(total).decode())


def boto3_threads(place):
    """put_snapshot_block in threads of one client, whose pool has a connection for each."""
    import boto3
    import botocore.config

    config = botocore.config.Config(max_pool_connections=place.connections, retries={"mode": "standard"})
    session = boto3.Session("AKIAEXAMPLE", "sesame", "token", REGION)
    client = session.client("ebs", endpoint_url=place.url, config=config)

    def send(index, checksum, buffer):
        client.put_snapshot_block(
            SnapshotId=place.snapshot_id,
            BlockIndex=index,
            BlockData=buffer,
            DataLength=BLOCK_BYTES,
            Checksum=checksum,
            ChecksumAlgorithm="SHA256",
        )

    by_threads(place, place.connections, lambda: send)


def thread_each(place):
    """A thread for each connection, with the engine's own requests."""
    from clouduploader.platforms.ec2.ebs import protocol
    from clouduploader.platforms.ec2.sigv4 import AccessKeys

    found = route(place).place
    requests = protocol.BlockRequests(place=found, region=REGION, snapshot_id=place.snapshot_id)
    context = route(place).tls_context()
    keys = AccessKeys("AKIAEXAMPLE", "sesame", "token")

    def connect():
        plain = socket.create_connection((found.host, found.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = context.wrap_socket(plain, server_hostname=found.host)

        def send(index, checksum, buffer):
            sock.sendall(requests.head(index, checksum, keys))
            sock.sendall(buffer)
            parser, answer = protocol.BlockResponseParser(), None
            while not answer:
                answer = parser.feed(sock.recv(16384))
            if not answer.confirms(checksum):
                sys.exit(f"not confirmed: {answer}")

        return send

    by_threads(place, place.connections, connect)


def unpack(place):
    """The image unpacked by us, and nothing sent."""
    from clouduploader.image import open as image_open
    from clouduploader.util.cancel import Cancel

    image_open.measure(
        image_open.describe(place.image, place.image.name, Cancel()), on_bytes=lambda _done: None, cancel=Cancel()
    )


CLIENTS = {"ours": ours, "boto3": boto3_threads, "threads": thread_each, "unpack": unpack}


class Place:
    """What a client is told: where to send what."""

    def __init__(self, options):
        self.url = options.url
        self.image = options.image
        self.connections = options.connections
        self.rate = options.rate
        self.sdk = options.sdk
        self.zero_blocks = options.zero_blocks
        size_gib = max(PACKED_GIB, -(-self.image.stat().st_size // (1 << 30)))
        body = json.dumps({"VolumeSize": size_gib}).encode()
        self.snapshot_id = json.loads(self._ask("POST", "/snapshots", body))["SnapshotId"]

    def complete(self, count, checksum):
        headers = {"x-amz-ChangedBlocksCount": str(count), "x-amz-Checksum": checksum}
        self._ask("POST", f"/snapshots/completion/{self.snapshot_id}", b"", headers)

    def _ask(self, *request):
        status, body = ask(self.url, *request)
        if status not in (201, 202):
            sys.exit(f"{request[:2]}: {status} {body}")
        return body


def ask(url, *request):
    connection = http.client.HTTPSConnection(
        url.removeprefix("https://"), context=ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    )
    with contextlib.closing(connection):
        connection.request(*request)
        answer = connection.getresponse()
        return answer.status, answer.read()


def peak_mib():
    """The largest resident set of this process so far."""
    words = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(words.split()[1]) / 1024


# --- running them ----------------------------------------------------------------------------------------------------


class Bench:
    """The compiled yardsticks, a certificate, an image; and runs of clients against fresh servers."""

    def __init__(self, root, options):
        self.root = root
        self.options = options
        for name in ("sink", "floor"):
            command = ["gcc", "-O2", "-pthread", str(options.testbed / f"{name}.c"), "-o", str(root / name)]
            subprocess.run([*command, "-lssl", "-lcrypto"], check=True, capture_output=True)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True, cwd=root)
        self.image = options.image or root / "image.raw"
        if not options.image:
            subprocess.run([sys.executable, options.testbed / "mkimage.py", self.image], check=True)
            with self.image.open("r+b") as file:
                file.write(bytes(512))  # its first block begins like a tarball, and would be taken for one
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(root),
            "AWS_CA_BUNDLE": str(root / "cert.pem"),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "sesame",
            "AWS_DEFAULT_REGION": REGION,
        }
        os.environ["AWS_CA_BUNDLE"] = self.environment["AWS_CA_BUNDLE"]

    @contextlib.contextmanager
    def sink(self, *arguments):
        """A server; gives its URL."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [self.root / "sink", "--port", str(port), "--tls", "cert.pem", "key.pem", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=self.root)
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()

    def cut(self):
        """The first part of the image, with holes where it has zeros."""
        path = self.root / "part.raw"
        with self.image.open("rb") as image, path.open("wb") as part:
            part.truncate(PACKED_GIB << 30)
            for index in range(PACKED_GIB << 11):
                block = image.read(BLOCK_BYTES)
                if block.strip(b"\0"):
                    part.seek(index * BLOCK_BYTES)
                    part.write(block)
        return path

    def pack(self, part, ending):
        """That part, packed."""
        path = self.root / f"packed.raw.{ending}"
        with part.open("rb") as image, path.open("wb") as packed:
            subprocess.run([*PACKERS[ending], "-c"], stdin=image, stdout=packed, check=True)
        return path

    def run(self, client, url, *, connections=64, rate=100_000, sdk=False, image=None, zero_blocks="holes"):
        """Run a client; returns its figures and the server's."""
        image = image or self.image
        port = url.rpartition(":")[2]
        if client == "C":
            command = [self.root / "floor", "tls", image, connections, port]
        elif client == "fsp":
            command = [self.options.fsp_python, "-c", FSP, self.options.fsp, self.image]
        elif client == "xz -T0 -dc":
            command = ["sh", "-c", 'exec xz -T0 -dc "$1" > /dev/null', "sh", image]
        else:
            command = [sys.executable, __file__, "--client", client, "--url", url, "--image", image]
            command += ["--connections", connections, "--rate", rate, *(["--sdk"] if sdk else [])]
            command += ["--zero-blocks", zero_blocks]
        began = time.monotonic()
        process = subprocess.Popen(
            list(map(str, command)),
            env=self.environment | {"AWS_ENDPOINT_URL_EBS": url},
            stdout=subprocess.PIPE,
            cwd=self.root,
        )
        timer = threading.Timer(SECONDS, process.send_signal, [signal.SIGKILL])
        timer.start()
        output = process.stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        timer.cancel()
        process.stdout.close()
        stats = json.loads(ask(url, "GET", "/stats")[1])
        if process.returncode or not (stats["complete"] or client in NO_UPLOAD):
            sys.exit(f"{client} failed ({process.returncode}): {output.decode(errors='replace')[-2000:]}")
        last = json.loads(output.splitlines()[-1]) if client in CLIENTS else {}
        return {
            "cpu": usage.ru_utime + usage.ru_stime,
            "wall": wall,
            "blocks_per_second": (stats["last_puts"] - 1) / stats["last_span"] if stats["last_span"] else 0.0,
            "refused": stats["throttled"],
            "connections": stats["conns"],
            "peak_mib": last.get("peak_mib", usage.ru_maxrss / 1024),
        }

    def table(self, title, cases, rounds, *sink, peers=()):
        """Run cases in turn, round by round; returns the medians, each case's against that of its peers together.

        The first case is the only peer, unless some are given.
        """
        peers = peers or (next(iter(cases)),)
        taken = {name: [] for name in cases}
        for number in range(rounds):
            for name in list(cases) if number % 2 == 0 else reversed(list(cases)):
                with self.sink(*sink) as url:
                    taken[name].append(self.run(url=url, **cases[name]))
                print(f"  {name}: {taken[name][-1]}", file=sys.stderr)
        names = list(next(iter(taken.values()))[0])
        medians = {
            name: {key: statistics.median(value[key] for value in values) for key in names}
            for name, values in taken.items()
        }
        # pairs, not medians, are compared: both members of one met the same load
        for name, values in taken.items():
            for key in ("cpu", "wall"):
                sums = [
                    sum(figures) for figures in zip(*([v[key] for v in taken[peer]] for peer in peers), strict=True)
                ]
                ratios = [value[key] / of_peers for value, of_peers in zip(values, sums, strict=True)]
                medians[name][f"{key}_of_peers"] = statistics.median(ratios)
        print(f"\n{title}; {rounds} rounds, medians; load {os.getloadavg()[0]:.1f}")
        print(f"{'':24}{'CPU s':>8}{'wall s':>8}{'blocks/s':>10}{'refused':>9}{'conns':>7}{'MiB':>6}", end="")
        print(f"{'CPU of ' + ' + '.join(peers):>30}{'wall':>7}")
        for name, row in medians.items():
            print(
                f"{name:24}{row['cpu']:8.2f}{row['wall']:8.2f}{row['blocks_per_second']:10.0f}{row['refused']:9.0f}"
                f"{row['connections']:7.0f}{row['peak_mib']:6.0f}{row['cpu_of_peers']:30.2f}"
                f"{row['wall_of_peers']:7.2f}"
            )
        return medians


def compare(bench, options):
    """Make all tables; returns their figures."""
    found = {}
    want = options.only
    if "cpu" in want:
        cases = {"C": {"client": "C"}, "clouduploader": {"client": "ours"}}
        cases["boto3, 32 threads"] = {"client": "boto3", "connections": 32}
        found["cpu"] = bench.table("CPU, no latency", cases, options.rounds)
    if "fsp" in want and options.fsp:
        cases = {"fsp, 16 jobs": {"client": "fsp"}, "clouduploader": {"client": "ours"}}
        found["fsp"] = bench.table("against flexible-snapshot-proxy", cases, max(1, options.rounds // 2))
    if "quota" in want:
        quota = options.quota
        cases = {"clouduploader": {"client": "ours", "rate": quota * 99 // 100}}
        server = ("--latency-ms", 20, "--rate", quota)
        found["quota"] = bench.table(f"quota {quota}/s, 20 ms", cases, options.rounds, *server)
    if "tail" in want:
        cases = {"thread a connection": {"client": "threads"}, "clouduploader": {"client": "ours"}}
        tail = ("--latency-ms", 20, "--tail", 0.01, 1000)
        found["tail"] = bench.table("20 ms, 1 % of answers 1 s late", cases, options.rounds, *tail)
    if "memory" in want:
        cases = {
            f"{count} in flight{', SDK' if sdk else ''}": {"client": "ours", "connections": count, "sdk": sdk}
            for sdk in (False, True)
            for count in (64, 128)
        }
        found["memory"] = bench.table("memory, 150 ms", cases, max(1, options.rounds // 2), "--latency-ms", 150)
    endings = [ending for ending in PACKERS if {"packed", ending} & set(want)]
    part = bench.cut() if endings else None
    for ending in endings:
        image = bench.pack(part, ending)
        decoder = {"client": "xz -T0 -dc" if ending == "xz" else "unpack", "image": image}
        cases = {"decoder": decoder, "C": {"client": "C", "image": part}} | {
            f"sent, zeros: {mode}": {"client": "ours", "zero_blocks": mode, "image": image}
            for mode in ("skip", "holes")
        }
        found[ending] = bench.table(f".raw.{ending}, {PACKED_GIB} GiB", cases, options.rounds, peers=("decoder", "C"))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--testbed", type=Path, help="the directory of sink.c, floor.c, and mkimage.py")
    parser.add_argument("--image", type=Path, help="a raw image instead of the one that mkimage.py makes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fsp", type=Path, help="a checkout of awslabs/flexible-snapshot-proxy")
    parser.add_argument("--fsp-python", default=sys.executable, help="a Python with what that needs")
    parser.add_argument("--quota", type=int, default=1000, help="blocks a second; fewer for a busy machine")
    parser.add_argument("--only", nargs="+", default=["cpu", "fsp", "quota", "tail", "memory", "packed"])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sdk", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--zero-blocks", default="holes", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        CLIENTS[options.client](Place(options))
        print(json.dumps({"peak_mib": peak_mib()}))
        return
    if not options.testbed:
        parser.error("--testbed is needed")
    options.testbed = options.testbed.resolve()
    root = Path(tempfile.mkdtemp(prefix="clouduploader-bench-", dir="/dev/shm"))
    try:
        found = compare(Bench(root, options), options)
    finally:
        shutil.rmtree(root)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
