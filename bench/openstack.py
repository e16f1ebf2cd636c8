"""Uploads into a real Glance beside those of `openstack image create`, and how long both take to their first request.

    .venv/bin/python bench/openstack.py --openstack /path/to/openstack [--gib 1] [--rounds 3] [--starts 15]

`openstack` is that of python-openstackclient, in an environment of its own. Both have the same application credential,
and send the same raw file, a third of it noise, to the servers of the sandbox (`clouduploader sandbox --cloud openstack
--install`). The start is measured as `startup.py` does it: a small server on loopback in the place of Keystone notes
when the request for a token is complete.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import startup
from methods import PIECE

BIN = Path(sys.executable).parent
TARGET = "openstack"
REGION = "RegionOne"
WORD = b"application_credential"  # in the request for a token


def make_image(path, size_bytes):
    """A raw disk, a third of it noise; with holes where there is none."""
    with path.open("wb") as file:
        for number in range(size_bytes // PIECE):
            if number % 3 == 0:
                file.seek(number * PIECE)
                file.write(os.urandom(PIECE))
        file.truncate(size_bytes)
        file.seek(446)
        file.write(b"\x80\0\0\0\x83\0\0\0" + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little") + bytes(48))
        file.write(b"\x55\xaa")


def run(command, environment):
    """Run a command to its end; return its wall and CPU seconds and its peak memory in MiB."""
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare_uploads(cli, gib, rounds):
    """Run in the sandbox: upload in turn, and print medians and ratios."""
    root = Path(os.environ["CLOUDUPLOADER_SANDBOX"])
    described = json.loads((root / "sandbox.json").read_text())
    names = ("application_credential_id", "application_credential_secret")
    credential = {name: described[name] for name in names}
    image, data = root / "bench.raw", root / "bench.json"
    make_image(image, gib << 30)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    settings = {"OS_AUTH_TYPE": "v3applicationcredential", "OS_AUTH_URL": described["auth_url"]}
    settings |= {f"OS_{name.upper()}": value for name, value in credential.items()}
    settings |= {"OS_REGION_NAME": REGION, "OS_CACERT": described["ca"]}
    taken = {"openstack image create": [], "clouduploader upload": []}
    for number in range(rounds):
        command = [cli, "image", "create", "--file", image, "--disk-format", "raw", f"cli-{number}"]
        taken["openstack image create"].append(run(command, environment | settings))
        target = {"cloud": "sandbox", "region": REGION, "image_name": f"ours-{number}", **credential}
        data.write_text(json.dumps(target))
        command = [BIN / "clouduploader", "-q", "upload", "--target", TARGET, "--data", data, image]
        taken["clouduploader upload"].append(run(command, environment))
        for stored in Path(described["stores"][REGION]).iterdir():
            stored.unlink()  # the disk is not what is measured
    print(f"\n{gib} GiB into Glance, {rounds} rounds, medians")
    print(f"{'':24} {'wall s':>8} {'CPU s':>8} {'MiB':>6} {'wall ratio':>11} {'CPU ratio':>10}")
    base = None
    for name, values in taken.items():
        wall, cpu, mib = (statistics.median(value[index] for value in values) for index in range(3))
        base = base or (wall, cpu)
        print(f"{name:24} {wall:8.2f} {cpu:8.2f} {mib:6.0f} {wall / base[0]:11.2f} {cpu / base[1]:10.2f}")


def compare_starts(cli, rounds):
    """Kill both as soon as their request for a token is complete."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        startup.lay_out(root)
        certificate = startup.make_certificate(root)
        sink = startup.Sink(certificate, WORD)
        url = f"{sink.url}/v3"
        credential = {"application_credential_id": "0123", "application_credential_secret": "a secret"}
        (root / "home/clouds.yaml").write_text(
            json.dumps({"clouds": {"mine": {"auth": {"auth_url": url}, "cacert": str(root / "public.pem")}}})
        )
        targetdata = {"cloud": "mine", "region": REGION, "image_name": "an image", **credential}
        spool = root / "spool"
        (spool / "1").write_text(startup.RECORD.replace("ec2", TARGET))
        (spool / "1.data").write_text(json.dumps(targetdata))
        environment = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "CLOUDUPLOADER_HOME": str(root / "home"),
        }
        settings = {
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": url,
            "OS_CACERT": str(root / "public.pem"),
        }
        settings |= {f"OS_{name.upper()}": value for name, value in credential.items()}
        contract = [str(BIN / "clouduploader"), "tom", TARGET, str(spool / "1.file"), str(spool / "1.data")]
        contract += ["an-image.x86_64.raw.xz", str(spool / "1.result")]

        def as_obs_does():
            shutil.rmtree(spool / "journal", ignore_errors=True)  # of the round before, which was killed
            return sink.measure(contract, environment)

        cases = {
            "openstack image list": lambda: sink.measure([cli, "image", "list"], environment | settings),
            "clouduploader, six arguments": as_obs_does,
        }
        startup.compare("exec to the request for a token, https", cases, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--openstack", required=True, help="the program of python-openstackclient")
    parser.add_argument("--gib", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--in-sandbox", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_sandbox:
        compare_uploads(options.openstack, options.gib, options.rounds)
        return
    compare_starts(options.openstack, options.starts)
    sandbox = [BIN / "clouduploader", "sandbox", "--cloud", TARGET, "--"]
    subprocess.run([*sandbox, sys.executable, __file__, *sys.argv[1:], "--in-sandbox"], check=True)


if __name__ == "__main__":
    main()
