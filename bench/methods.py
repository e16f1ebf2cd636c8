"""Whole uploads by ec2uploadimg and by EBS direct, side by side in one sandbox; nothing sleeps shorter than for real.

    .venv/bin/python bench/methods.py [--gib 2] [--rounds 1]

The image is packed with `xz -T0`; a third of it is noise, the rest zeros. ec2uploadimg takes its minutes: most of its
time it waits, as it does with Amazon, while the sandbox's instances and volumes are ready at once.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("ec2uploadimg", "ebs-direct")
PIECE = 1 << 20


def make_image(path, size_bytes):
    """A raw disk: runs of noise with zeros between them, a third full; then packed beside itself."""
    noise = random.Random(3)
    # a partition table, for what has none is not taken for a disk: one active partition over all but the first MiB
    partition = struct.pack("<B3sB3sLL", 0x80, b"", 0x83, b"", 2048, size_bytes // 512 - 2048)
    boot_sector = partition.rjust(462, b"\0").ljust(510, b"\0") + b"\x55\xaa"
    with path.open("wb") as file:
        for number in range(size_bytes // PIECE):
            file.write(noise.randbytes(PIECE) if number % 48 < 16 else bytes(PIECE))
        file.seek(0)
        file.write(boot_sector)
    subprocess.run(["xz", "-T0", "-0", path], check=True)
    return path.with_name(f"{path.name}.xz")


def upload(method, image, number, directory):
    """Upload once; return seconds, CPU seconds of the process and its children, and the AMI's id."""
    sandbox = json.loads((Path(os.environ["CLOUDUPLOADER_SANDBOX"]) / "sandbox.json").read_text())
    data = directory / "data.json"
    names = ("region", "external_id")
    data.write_text(
        json.dumps(
            {name: sandbox[name] for name in names}
            | {"arn": sandbox["role_arn"], "ami_name": f"bench-{method}-{number}", "method": method}
        )
    )
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = ["clouduploader", "-q", "upload", "--data", data, image]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu_seconds, done.stdout.strip(), sandbox


def content(image_id, sandbox, size_bytes):
    """The SHA-256 of what an AMI of the sandbox boots from."""
    import boto3

    found = boto3.client("ec2").describe_images(ImageIds=[image_id])["Images"][0]
    snapshot = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    digest = hashlib.sha256()
    with (Path(sandbox["volumes"]) / f"{snapshot}.raw").open("rb") as file:
        for _ in range(size_bytes // PIECE):
            digest.update(file.read(PIECE).ljust(PIECE, b"\0"))
    return digest.hexdigest()


def measure(gib, rounds):
    """Run in the sandbox."""
    directory = Path(tempfile.mkdtemp(prefix="methods-"))
    try:
        image = make_image(directory / "bench.x86_64.raw", gib << 30)
        sys.stdout.write(f"image: {gib} GiB, {image.stat().st_size >> 20} MiB packed\n")
        for number in range(rounds):
            digests = set()
            for method in METHODS:
                seconds, cpu_seconds, image_id, sandbox = upload(method, image, number, directory)
                digests.add(content(image_id, sandbox, gib << 30))
                sys.stdout.write(f"{method:14} {seconds:7.1f} s wall {cpu_seconds:7.1f} s CPU\n")
                sys.stdout.flush()
            if len(digests) != 1:
                sys.exit("the images differ")
    finally:
        shutil.rmtree(directory)


def main():
    """Read the arguments, and go into a sandbox."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    if "CLOUDUPLOADER_SANDBOX" in os.environ:
        measure(arguments.gib, arguments.rounds)
        return
    program = Path(sys.executable).with_name("clouduploader")
    os.execv(program, [program, "sandbox", "--wait-factor", "1", "--", sys.executable, *sys.argv])


if __name__ == "__main__":
    main()
